"""Core code that gives back the handles which a function was lent.

A lifted function gets an own handle for each `borrow` among its parameters, wherever that is: in a list, or
in one case of a variant. It must drop each before it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lattice import wit
from node.engine.canonical import (
    MAX_FLAT_PARAMS,
    align,
    discriminant_bytes,
    flatten,
    payload_offset,
    payloads,
    size_and_alignment,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What follows the call in a function's body; it leaves the stack as it is."""

    code: str = ""
    locals: int = 0
    """How many locals of type i32 it needs after the parameters."""


def borrowed_resources(function: wit.Function) -> tuple[str, ...]:
    """The resources of which the function borrows handles, in the order of their first use."""
    borrows = (part for _, type_ in function.params for part in _borrows(type_))
    return tuple(dict.fromkeys(handle.resource for handle in borrows))


def release(function: wit.Function, drops: Mapping[str, str]) -> Release:
    """Drop all that was borrowed; `drops` has the core function for each resource."""
    if not borrowed_resources(function):
        return Release()
    params = wit.Tuple(tuple(type_ for _, type_ in function.params))
    cores = flatten(params)
    if len(cores) > MAX_FLAT_PARAMS:
        writer = _Writer(["i32"], drops)
        code = writer.stored(params, "local.get 0", 0)
    else:
        writer = _Writer(cores, drops)
        code = writer.flat(params, 0)
    return Release(code=code, locals=writer.locals)


def _borrows(type_: wit.Type) -> list[wit.Handle]:
    return [part for part in wit.walk(type_) if isinstance(part, wit.Handle) and not part.is_owned]


class _Writer:
    """Writes the code for parameters that are core values, and for what is stored in memory."""

    def __init__(self, params: list[str], drops: Mapping[str, str]) -> None:
        self._params = params
        self._drops = drops
        self.locals = 0

    def flat(self, type_: wit.Type, index: int) -> str:
        """For a value whose core values are the parameters from `index` on."""
        match type_:
            case _ if not _borrows(type_):
                return ""
            case wit.Handle(resource):
                return f"{self._param(index)} call {self._drops[resource]} "
            case wit.List(element):
                return self._elements(element, self._param(index), self._param(index + 1))
            case wit.Tuple() | wit.Record():
                code = ""
                for part in _row(type_):
                    code += self.flat(part, index)
                    index += len(flatten(part))
                return code
        return self._cases(type_, self._param(index), lambda payload: self.flat(payload, index + 1))

    def stored(self, type_: wit.Type, base: str, offset: int) -> str:
        """For a value in memory; `base` is the code that gives the address."""
        match type_:
            case _ if not _borrows(type_):
                return ""
            case wit.Handle(resource):
                return f"{base} i32.load offset={offset} call {self._drops[resource]} "
            case wit.List(element):
                start, count = (f"{base} i32.load offset={at}" for at in (offset, offset + 4))
                return self._elements(element, start, count)
            case wit.Tuple() | wit.Record():
                code = ""
                for part in _row(type_):
                    size, alignment = size_and_alignment(part)
                    offset = align(offset, alignment)
                    code += self.stored(part, base, offset)
                    offset += size
                return code
        bits = {1: "8_u", 2: "16_u", 4: ""}[discriminant_bytes(type_)]
        inside = offset + payload_offset(type_)
        chosen = f"{base} i32.load{bits} offset={offset}"
        return self._cases(type_, chosen, lambda payload: self.stored(payload, base, inside))

    def _param(self, index: int) -> str:
        wrap = " i32.wrap_i64" if self._params[index] == "i64" else ""  # shared by cases of other types
        return f"local.get {index}{wrap}"

    def _cases(self, type_: wit.Type, chosen: str, write: Callable[[wit.Type], str]) -> str:
        code = ""
        for case, payload in enumerate(payloads(type_)):
            if payload is not None and (inner := write(payload)):
                code += f"{chosen} i32.const {case} i32.eq if {inner} end "
        return code

    def _elements(self, element: wit.Type, start: str, count: str) -> str:
        at, end = (len(self._params) + self.locals + number for number in (0, 1))
        self.locals += 2
        size, _ = size_and_alignment(element)
        body = self.stored(element, f"local.get {at}", 0)
        return (
            f"{start} local.tee {at} {count} i32.const {size} i32.mul i32.add local.set {end} "
            f"block loop local.get {at} local.get {end} i32.ge_u br_if 1 {body} "
            f"local.get {at} i32.const {size} i32.add local.set {at} br 0 end end "
        )


def _row(type_: wit.Tuple | wit.Record) -> tuple[wit.Type, ...]:
    return type_.items if isinstance(type_, wit.Tuple) else tuple(part for _, part in type_.fields)
