"""Core code between a guest's core module and the shim's: what the canonical ABI asks for between components.

Lowered and lifted functions have two memories between them, and two tables of handles. Here the shim keeps
the one table of handles, so they cross as they are, but for a check; texts and lists are copied from memory
to memory in one piece each, where wasmtime's own adapters copy element by element. A function of the bridge
takes what a guest's lowered import takes:

      parameters    texts and lists are copied into the shim's scratch, borrowed handles become addresses of
                    objects, owned ones are handed over
      call          of the shim's function
      result        copied to where the guest wants it, each text and list into a place that it allocates

https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lattice import wit
from node.engine import mixed_bridge
from node.engine.canonical import (
    CoreSignature,
    align,
    core_signature,
    discriminant_bytes,
    flatten,
    payload_offset,
    payloads,
    size_and_alignment,
)
from node.engine.component_text import quote

_U32 = wit.Primitive("u32")
_MAX_BYTES = 1 << 28
"""Of one list; the canonical ABI has the same bound."""
_NARROW = {"u8": 0xFF, "u16": 0xFFFF}
_SIGNED = {"s8": "i32.extend8_s", "s16": "i32.extend16_s"}

_IMPORTS = {
    "$scratch": '(import "allocator" "scratch" (func $scratch (param i32) (result i32)))',
    "$release": '(import "allocator" "release" (func $release))',
    "$object": '(import "allocator" "handle-object" (func $object (param i32 i32) (result i32)))',
    "$moved": '(import "allocator" "handle-moved" (func $moved (param i32 i32) (result i32)))',
    "$check-text": '(import "core" "lattice:shim/control#check-text" (func $check-text (param i32 i32)))',
    "$realloc": '(import "guest" "realloc" (func $realloc (param i32 i32 i32 i32) (result i32)))',
}

_MEMORIES = """(import "allocator" "memory" (memory $shim 1))
    (import "guest" "memory" (memory $guest 0))"""

_COPIES_IN = f"""(func $block-in (param $from i32) (param $count i32) (param $size i32) (result i32)
      (local $to i32)
      (if (i64.gt_u (i64.mul (i64.extend_i32_u (local.get $count)) (i64.extend_i32_u (local.get $size)))
                    (i64.const {_MAX_BYTES}))
        (then unreachable))
      (local.set $size (i32.mul (local.get $count) (local.get $size)))
      (local.set $to (call $scratch (local.get $size)))
      (memory.copy $shim $guest (local.get $to) (local.get $from) (local.get $size))
      (local.get $to))
    (func $text-in (param $from i32) (param $length i32) (result i32)
      (local $to i32)
      (local.set $to (call $block-in (local.get $from) (local.get $length) (i32.const 1)))
      (call $check-text (local.get $to) (local.get $length))
      (local.get $to))"""

_COPIES_OUT = """(func $block-out (param $from i32) (param $size i32) (param $alignment i32) (result i32)
      (local $to i32)
      (local.set $to (call $realloc (i32.const 0) (i32.const 0) (local.get $alignment) (local.get $size)))
      (memory.copy $guest $shim (local.get $to) (local.get $from) (local.get $size))
      (local.get $to))"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A function that the guest imports and the shim implements; `name` is the shim's, without a version."""

    name: str
    function: wit.Function
    is_shared: bool = False
    """Whether the host implements it too, for handles that it made: see `node.engine.mixed_bridge`."""


def lowered_signature(function: wit.Function) -> tuple[tuple[str, ...], str | None]:
    """Parameters and result of a function as core code calls it."""
    signature = core_signature(function)
    return (*signature.params, *(("i32",) if signature.area_bytes else ())), signature.result


def crosses_as_it_is(function: wit.Function) -> bool:
    """Whether the guest can call the shim's function without anything between them."""
    if core_signature(function).area_bytes:
        return False
    return not any(_changes(type_) or _is_checked(type_) for _, type_ in function.params)


def bridge_module(
    crossings: Sequence[Crossing],
    functions: frozenset[str],
    *,
    has_memory: bool,
    has_realloc: bool,
    flushes: bool = False,
) -> str:
    """The module's text: a function under the name of each crossing, a trap where `functions` lacks the name.

    It imports the guest's `memory` and `realloc` where it has them, and both parts of the shim, `allocator`
    and `core`; of these only what it needs, as each import costs time when a sandbox is made. Of `host` it
    imports what `node.engine.mixed_bridge.host_functions` lists. With `flushes`, a response leaves before the
    guest waits in a function of the host's.
    """
    writer = _Module(has_memory=has_memory, has_realloc=has_realloc, flushes=flushes)
    for crossing in crossings:
        writer.add(crossing, is_known=crossing.name in functions)
    return writer.text()


def _changes(type_: wit.Type) -> bool:
    """Whether a value of the type is not the same on both sides."""
    return any(isinstance(part, wit.List | wit.Handle) or part == wit.STRING for part in wit.walk(type_))


def _is_checked(type_: wit.Type) -> bool:
    """Whether a parameter of the type may have values that are none."""
    plain = (wit.Option, wit.Result, wit.Variant, wit.Enum)
    narrow = {"bool", *_NARROW, *_SIGNED}
    return any(
        isinstance(part, plain) or (isinstance(part, wit.Primitive) and part.name in narrow)
        for part in wit.walk(type_)
    )


class _Module:
    """Writes the text of the module."""

    # The mutable state is the functions so far; those that convert what lies in memory are shared.

    def __init__(self, *, has_memory: bool, has_realloc: bool, flushes: bool) -> None:
        self._has_memory = has_memory
        self._has_realloc = has_realloc
        self._flushes = flushes
        self._imports: list[str] = []
        self._functions: list[str] = []
        self._splices: list[str] = []
        self._shared: dict[tuple[str, wit.Type], str] = {}

    def text(self) -> str:
        copies = [*([_COPIES_IN] if self._has_memory else []), *([_COPIES_OUT] if self._has_realloc else [])]
        body = "\n    ".join([*copies, *self._functions, *self._splice_functions()])
        imports = [_MEMORIES] if self._has_memory else []
        imports += [
            line
            for symbol, line in (_IMPORTS | mixed_bridge.IMPORTS).items()
            if f"call {symbol} " in body or f"call {symbol})" in body
        ]
        return "\n    ".join(["(module", *imports, *self._imports, body]) + ")"

    def add(self, crossing: Crossing, *, is_known: bool) -> None:
        params, result = lowered_signature(crossing.function)
        head = f"(func (export {quote(crossing.name)}) {_params(params)} {_result(result)}"
        guard = self._guard(crossing) if crossing.is_shared else ""
        if not is_known:
            self._functions.append(f"{head} {guard} {self._missing(crossing, len(params) - 1)})")
            return
        signature = core_signature(crossing.function)
        symbol = mixed_bridge.OURS.get(crossing.name) or self._import_of_core(crossing.name, signature)
        body = _Body(self, crossing.function, signature)
        self._functions.append(f"{head} {body.text(symbol, guard)})")

    def _import_of_core(self, name: str, signature: CoreSignature) -> str:
        symbol = f"$f{len(self._imports)}"
        given = _result("i32" if signature.area_bytes else signature.result)
        called = f"(func {symbol} {_params(signature.params)} {given})"
        self._imports.append(f'(import "core" {quote(name)} {called})')
        return symbol

    def _missing(self, crossing: Crossing, area: int) -> str:
        """What the shim lacks traps, but for what an error meant to the host: one of the shim's, nothing."""
        first = crossing.function.params[0][1] if crossing.function.params else None
        if not crossing.is_shared or not isinstance(first, wit.Handle):
            return "unreachable"
        if not isinstance(crossing.function.result, wit.Option):
            return "unreachable"
        known = f"(drop (call $object (local.get 0) (i32.const {_number(first.resource)})))"
        return f"{known} (i32.store8 $guest (local.get {area}) (i32.const 0))"

    # What the host has a part in

    def _guard(self, crossing: Crossing) -> str:
        """Code before a function's own, which returns when the handle that it is given is the host's."""
        name = crossing.name
        if name == mixed_bridge.POLL:
            list_out = self._shared_function("list-out", _U32)
            pollable = type_number("wasi:io/poll#pollable")
            self._functions.append(mixed_bridge.poll_functions(list_out, pollable))
            return mixed_bridge.POLL_GUARD
        if name == mixed_bridge.BLOCK:
            return mixed_bridge.guard("$block-theirs", 1)
        params, result = lowered_signature(crossing.function)
        symbol = f"$h{len(self._imports)}"
        self._imports.append(
            f'(import "host" {quote(name)} (func {symbol} {_params(params)} {_result(result)}))'
        )
        if mixed_bridge.is_splice(name):
            self._splices.append(name)
            return mixed_bridge.splice_guard(name, symbol)
        before = self._before_waiting if mixed_bridge.waits(name) else ""
        return mixed_bridge.guard(symbol, len(params), before)

    @property
    def _before_waiting(self) -> str:
        return "(call $before-waiting)" if self._flushes else ""

    def _splice_functions(self) -> list[str]:
        if not self._splices:
            return []
        source, target = (type_number(f"wasi:io/streams#{name}-stream") for name in ("input", "output"))
        return mixed_bridge.splice_functions(self._splices, source, target, self._before_waiting)

    # What lies in memory: of the shim on the way in, of the guest on the way out

    def stored_in(self, type_: wit.Type, address: str, offset: int = 0) -> str:
        """Code that makes the guest's value, already copied to the shim's memory, one of the shim's."""
        place = f"(i32.add {address} (i32.const {offset}))" if offset else address
        load = f"(i32.load $shim offset={offset} {address})"
        match type_:
            case _ if not (_changes(type_) or _is_checked(type_)):
                return ""
            case wit.STRING:
                return _store_pair("$shim", address, offset, "$text-in")
            case wit.List(element):
                return f"(call {self._shared_function('list-in', element)} {place})"
            case wit.Handle(resource, is_owned):
                operation = "$moved" if is_owned else "$object"
                made = f"(call {operation} {load} (i32.const {_number(resource)}))"
                return f"(i32.store $shim offset={offset} {address} {made})"
            case wit.Tuple() | wit.Record():
                return "".join(
                    self.stored_in(part, address, offset + inside) for part, inside in _places(type_)
                )
            case wit.Primitive() | wit.Enum():
                return _check_stored(type_, address, offset)
        return self._stored_cases(type_, "$shim", address, offset, self.stored_in)

    def stored_out(self, type_: wit.Type, address: str, offset: int = 0) -> str:
        """Code that makes the shim's value, already copied to the guest's memory, one of the guest's."""
        place = f"(i32.add {address} (i32.const {offset}))" if offset else address
        match type_:
            case wit.STRING:
                return f"(call {self._shared_function('list-out', wit.U8)} {place})"
            case wit.List(element):
                return f"(call {self._shared_function('list-out', element)} {place})"
            case _ if not any(isinstance(part, wit.List) or part == wit.STRING for part in wit.walk(type_)):
                return ""
            case wit.Tuple() | wit.Record():
                return "".join(
                    self.stored_out(part, address, offset + inside) for part, inside in _places(type_)
                )
        return self._stored_cases(type_, "$guest", address, offset, self.stored_out)

    def _stored_cases(
        self,
        type_: wit.Type,
        memory: str,
        address: str,
        offset: int,
        write: Callable[[wit.Type, str, int], str],
    ) -> str:
        bits = {1: "8_u", 2: "16_u", 4: ""}[discriminant_bytes(type_)]
        chosen = f"(i32.load{bits} {memory} offset={offset} {address})"
        code = _check_case(chosen, len(payloads(type_))) if memory == "$shim" else ""
        for case, payload in enumerate(payloads(type_)):
            inner = write(payload, address, offset + payload_offset(type_)) if payload is not None else ""
            if inner:
                code += f"(if (i32.eq {chosen} (i32.const {case})) (then {inner}))"
        return code

    def _shared_function(self, kind: str, element: wit.Type) -> str:
        """A function for the list whose place in memory it is given."""
        key = (kind, element)
        if key not in self._shared:
            symbol = self._shared[key] = f"${kind}-{len(self._shared)}"
            write = self._list_in if kind == "list-in" else self._list_out
            self._functions.append(write(symbol, element))
        return self._shared[key]

    def _list_in(self, symbol: str, element: wit.Type) -> str:
        size, _ = size_and_alignment(element)
        copy = f"(call $block-in {_load('$shim', 0)} {_load('$shim', 4)} (i32.const {size}))"
        body = self.stored_in(element, "(local.get $at)")
        return _list_function(symbol, "$shim", copy, body, size)

    def _list_out(self, symbol: str, element: wit.Type) -> str:
        size, alignment = size_and_alignment(element)
        bytes_ = f"(i32.mul {_load('$guest', 4)} (i32.const {size}))"
        copy = f"(call $block-out {_load('$guest', 0)} {bytes_} (i32.const {alignment}))"
        body = self.stored_out(element, "(local.get $at)")
        return _list_function(symbol, "$guest", copy, body, size)

    def list_in(self, element: wit.Type, start: str, count: str) -> str:
        """Code for the address of a guest's list in the shim's memory."""
        size, _ = size_and_alignment(element)
        if not (_changes(element) or _is_checked(element)):
            return f"(call $block-in {start} {count} (i32.const {size}))"
        return f"(call {self._flat_list(element)} {start} {count})"

    def _flat_list(self, element: wit.Type) -> str:
        key = ("flat-list-in", element)
        if key not in self._shared:
            symbol = self._shared[key] = f"$flat-list-in-{len(self._shared)}"
            inner = self._shared_function("list-in", element)
            self._functions.append(
                f"(func {symbol} (param $start i32) (param $count i32) (result i32) (local $place i32) "
                "(local.set $place (call $scratch (i32.const 8))) "
                "(i32.store $shim (local.get $place) (local.get $start)) "
                "(i32.store $shim offset=4 (local.get $place) (local.get $count)) "
                f"(call {inner} (local.get $place)) (i32.load $shim (local.get $place)))"
            )
        return self._shared[key]


class _Body:
    """Writes one function: parameters are changed where they are, then the shim's function is called."""

    # The mutable state is the locals that were added.

    def __init__(self, module: _Module, function: wit.Function, signature: CoreSignature) -> None:
        self._module = module
        self._function = function
        self._signature = signature
        self._cores = list(lowered_signature(function)[0])

    def text(self, symbol: str, guard: str) -> str:
        own = len(self._cores)
        params = wit.Tuple(tuple(type_ for _, type_ in self._function.params))
        code = self._params(params)
        count = len(self._signature.params)
        call = f"(call {symbol} {' '.join(f'(local.get {index})' for index in range(count))})"
        frees = any(
            isinstance(part, wit.List) or part == wit.STRING
            for type_ in wit.function_types(self._function)
            for part in wit.walk(type_)
        )
        release = " (call $release)" if frees else ""
        if area := self._signature.area_bytes:
            assert self._function.result is not None
            place = f"(local.get {own - 1})"
            call = f"(memory.copy $guest $shim {place} {call} (i32.const {area}))"
            call += self._module.stored_out(self._function.result, place)
        added = "".join(f" (local {core})" for core in self._cores[own:])
        return f"{added} {guard} {code} {call}{release}"

    def _params(self, params: wit.Tuple) -> str:
        if len(flatten(params)) == len(self._signature.params):
            return self._flat(params, 0)
        size, _ = size_and_alignment(params)
        place = "(local.get 0)"
        block = f"(local.set 0 (call $block-in {place} (i32.const 1) (i32.const {size})))"
        return block + self._module.stored_in(params, place)

    def _flat(self, type_: wit.Type, index: int) -> str:
        """Code for a value whose core values are the locals from `index` on."""
        here = self._get(index)
        match type_:
            case _ if not (_changes(type_) or _is_checked(type_)):
                return ""
            case wit.STRING:
                return self._narrowed(index, lambda at: f"(call $text-in {at} {self._get(index + 1)})")
            case wit.List(element):
                return self._narrowed(
                    index, lambda at: self._module.list_in(element, at, self._get(index + 1))
                )
            case wit.Handle(resource, is_owned):
                operation = "$moved" if is_owned else "$object"
                kind = f"(i32.const {_number(resource)})"
                return self._narrowed(index, lambda at: f"(call {operation} {at} {kind})")
            case wit.Tuple() | wit.Record():
                code = ""
                for part in _row(type_):
                    code += self._flat(part, index)
                    index += len(flatten(part))
                return code
            case wit.Primitive(name):
                return self._primitive(name, index)
            case wit.Enum(cases):
                return _check_case(here, len(cases))
        code = _check_case(here, len(payloads(type_)))
        for case, payload in enumerate(payloads(type_)):
            inner = self._flat(payload, index + 1) if payload is not None else ""
            if inner:
                code += f"(if (i32.eq {here} (i32.const {case})) (then {inner}))"
        return code

    def _get(self, index: int) -> str:
        """A local as 32 bits: where cases of a variant share it, it may have 64."""
        here = f"(local.get {index})"
        return f"(i32.wrap_i64 {here})" if self._cores[index] == "i64" else here

    def _narrowed(self, index: int, convert: Callable[[str], str]) -> str:
        made = convert(self._get(index))
        if self._cores[index] == "i64":
            made = f"(i64.extend_i32_u {made})"
        return f"(local.set {index} {made})"

    def _primitive(self, name: str, index: int) -> str:
        """Higher bits of a narrow number say nothing."""
        if name == "bool":
            return self._narrowed(index, lambda at: f"(i32.ne {at} (i32.const 0))")
        if name in _NARROW:
            return self._narrowed(index, lambda at: f"(i32.and {at} (i32.const {_NARROW[name]}))")
        return self._narrowed(index, lambda at: f"({_SIGNED[name]} {at})")


def type_number(resource: str) -> int:
    """The number of a type of handles, by its unversioned name, as the shim computes it: FNV-1a."""
    number = 2166136261
    for byte in resource.encode():
        number = (number ^ byte) * 16777619 & 0xFFFFFFFF
    return number


def unversioned(name: str) -> str:
    """`wasi:io/poll@0.2.3#pollable` without its version."""
    interface, mark, item = name.partition("#")
    return f"{interface.partition('@')[0]}{mark}{item}"


def _number(resource: str) -> int:
    return type_number(unversioned(resource))


def _params(cores: Sequence[str]) -> str:
    return f"(param {' '.join(cores)})" if cores else ""


def _result(core: str | None) -> str:
    return f"(result {core})" if core else ""


def _load(memory: str, offset: int) -> str:
    return f"(i32.load {memory} offset={offset} (local.get $place))"


def _row(type_: wit.Tuple | wit.Record) -> tuple[wit.Type, ...]:
    return type_.items if isinstance(type_, wit.Tuple) else tuple(part for _, part in type_.fields)


def _places(type_: wit.Tuple | wit.Record) -> list[tuple[wit.Type, int]]:
    """The parts, and where each lies."""
    places, position = [], 0
    for part in _row(type_):
        size, alignment = size_and_alignment(part)
        position = align(position, alignment)
        places.append((part, position))
        position += size
    return places


def _store_pair(memory: str, address: str, offset: int, function: str) -> str:
    start, length = (f"(i32.load {memory} offset={at} {address})" for at in (offset, offset + 4))
    return f"(i32.store {memory} offset={offset} {address} (call {function} {start} {length}))"


def _check_case(chosen: str, count: int) -> str:
    return f"(if (i32.ge_u {chosen} (i32.const {count})) (then unreachable))"


def _check_stored(type_: wit.Primitive | wit.Enum, address: str, offset: int) -> str:
    """Narrow numbers are as wide in memory as they are; what else may be wrong is a case, or a bool."""
    if isinstance(type_, wit.Enum):
        bits = {1: "8_u", 2: "16_u", 4: ""}[size_and_alignment(type_)[0]]
        return _check_case(f"(i32.load{bits} $shim offset={offset} {address})", len(type_.cases))
    if type_.name == "bool":
        made = f"(i32.ne (i32.load8_u $shim offset={offset} {address}) (i32.const 0))"
        return f"(i32.store8 $shim offset={offset} {address} {made})"
    return ""


def _list_function(symbol: str, memory: str, copy: str, body: str, size: int) -> str:
    """Moves the list that a place tells of, and then what its elements point to."""
    each = ""
    if body:
        end = f"(i32.add (local.get $at) (i32.mul {_load(memory, 4)} (i32.const {size})))"
        each = (
            f"(local.set $at {_load(memory, 0)}) (local.set $end {end}) "
            "(block $done (loop $next (br_if $done (i32.ge_u (local.get $at) (local.get $end))) "
            f"{body} (local.set $at (i32.add (local.get $at) (i32.const {size}))) (br $next)))"
        )
    return (
        f"(func {symbol} (param $place i32) (local $at i32) (local $end i32) "
        f"(i32.store {memory} (local.get $place) {copy}) {each})"
    )
