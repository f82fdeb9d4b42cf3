"""From wasmtime's values to Python's: each WIT type is compiled once into a closure.

A closure reads a value from a copy of its 32 bytes and copies what those point to. Freeing is for the owner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Any, Protocol, TypeAlias

from lattice import wit
from lattice.errors import Invalid
from node.engine.capi import ENTRY_SIZE, NAME_SIZE, PAYLOAD, VALUE_SIZE, read, view
from node.engine.lowering import CODES, HEAVY_BYTES, HEAVY_ELEMENTS, HEAVY_STRING_BYTES, Heavy


class HandleOwner(Protocol):
    """An instance, as far as handles concern it."""

    def take(self, handle: int) -> Any:
        """The object behind a host's handle; an owned one leaves the instance's table."""


@dataclass(slots=True, eq=False)
class Reader:
    """For whom values are lifted, and whether that may take long. Not frozen: each call makes one."""

    owner: HandleOwner
    may_be_heavy: bool


class NoHandles:
    """Owns the values of a function in whose type there are none."""

    def take(self, handle: int) -> Any:
        """There is none to take."""
        raise AssertionError("a handle in a value whose type has none")


Data: TypeAlias = bytes | memoryview
Lift: TypeAlias = Callable[[Data, int, Reader], Any]

_unpack_slice = Struct("<QQ").unpack_from
_unpack_variant = Struct("<QQQ").unpack_from
_unpack_result = Struct("<?7xQ").unpack_from
_unpack_pointer = Struct("<Q").unpack_from
_unpack_char = Struct("<I").unpack_from


def compile_lift(type_: wit.Type, is_adapted: bool) -> Lift:
    """The closure that lifts values of a type."""
    match type_:
        case wit.STRING if is_adapted:
            return _lift_text_from_bytes
        case wit.Primitive(name):
            return _PRIMITIVES[name]
        case wit.BYTES:
            return _lift_bytes_from_string if is_adapted else _lift_bytes_from_list
        case wit.List(wit.Primitive(name)) if name in CODES:
            return _numbers(name)
        case wit.List(element):
            return _list(compile_lift(element, is_adapted))
        case wit.Option(inner):
            return _option(compile_lift(inner, is_adapted), wit.can_be_nil(inner))
        case wit.Result(ok, err):
            return _result(_optional(ok, is_adapted), _optional(err, is_adapted))
        case wit.Tuple(items):
            return _tuple([compile_lift(item, is_adapted) for item in items])
        case wit.Record(fields):
            return _record([(name, compile_lift(part, is_adapted)) for name, part in fields])
        case wit.Variant(cases):
            return _variant({name.encode(): (name, _optional(part, is_adapted)) for name, part in cases})
        case wit.Enum(cases):
            return _enum({name.encode(): name for name in cases})
        case wit.Flags(names):
            return _flags({name.encode(): name for name in names})
        case wit.Handle():
            return _lift_handle
    raise Invalid(f"values of {type_} can't be converted")


def _optional(type_: wit.Type | None, is_adapted: bool) -> Lift | None:
    return None if type_ is None else compile_lift(type_, is_adapted)


def _lift_bool(data: Data, offset: int, _: Reader) -> bool:
    return data[offset + PAYLOAD] != 0


def _lift_char(data: Data, offset: int, _: Reader) -> str:
    return chr(_unpack_char(data, offset + PAYLOAD)[0])


def _lift_string(data: Data, offset: int, reader: Reader) -> str:
    size, address = _unpack_slice(data, offset + PAYLOAD)
    if size > HEAVY_STRING_BYTES and not reader.may_be_heavy:
        raise Heavy
    return read(address, size).decode()


def _lift_bytes_from_string(data: Data, offset: int, reader: Reader) -> bytes:
    size, address = _unpack_slice(data, offset + PAYLOAD)
    if size > HEAVY_STRING_BYTES and not reader.may_be_heavy:
        raise Heavy
    raw = read(address, size)
    return raw if raw.isascii() else raw.decode().encode("latin-1")


def _lift_text_from_bytes(data: Data, offset: int, reader: Reader) -> str:
    """A string from an adapter, where it crosses as its UTF-8 bytes do: as latin-1 characters."""
    return str(_lift_bytes_from_string(data, offset, reader), "utf-8")


def _lift_bytes_from_list(data: Data, offset: int, reader: Reader) -> bytes:
    size, address = _unpack_slice(data, offset + PAYLOAD)
    if size > HEAVY_BYTES and not reader.may_be_heavy:
        raise Heavy
    return bytes(view(address, size * VALUE_SIZE)[PAYLOAD::VALUE_SIZE]) if size else b""


def _scalar(code: str) -> Lift:
    unpack = Struct(f"<{code}").unpack_from
    return lambda data, offset, _: unpack(data, offset + PAYLOAD)[0]


_PRIMITIVES: dict[str, Lift] = {
    "bool": _lift_bool,
    "char": _lift_char,
    "string": _lift_string,
    **{name: _scalar(code) for name, code in CODES.items()},
}


def _numbers(name: str) -> Lift:
    code = CODES[name]
    width = Struct(f"<{code}").size
    places = slice(PAYLOAD // width, None, VALUE_SIZE // width)

    def lift(data: Data, offset: int, reader: Reader) -> list[Any]:
        size, address = _unpack_slice(data, offset + PAYLOAD)
        if size > HEAVY_BYTES and not reader.may_be_heavy:
            raise Heavy
        if not size:
            return []
        numbers: list[Any] = view(address, size * VALUE_SIZE).cast("B").cast(code)[places].tolist()
        return numbers

    return lift


def _list(lift_element: Lift) -> Lift:
    def lift(data: Data, offset: int, reader: Reader) -> list[Any]:
        size, address = _unpack_slice(data, offset + PAYLOAD)
        if size > HEAVY_ELEMENTS and not reader.may_be_heavy:
            raise Heavy
        length = size * VALUE_SIZE
        elements = read(address, length)
        return [lift_element(elements, at, reader) for at in range(0, length, VALUE_SIZE)]

    return lift


def _option(lift_some: Lift, is_wrapped: bool) -> Lift:
    def lift(data: Data, offset: int, reader: Reader) -> Any:
        (address,) = _unpack_pointer(data, offset + PAYLOAD)
        if not address:
            return None
        value = lift_some(read(address, VALUE_SIZE), 0, reader)
        return [value] if is_wrapped else value

    return lift


def _result(lift_ok: Lift | None, lift_err: Lift | None) -> Lift:
    def lift(data: Data, offset: int, reader: Reader) -> Any:
        is_ok, address = _unpack_result(data, offset + PAYLOAD)
        lift_payload = lift_ok if is_ok else lift_err
        payload = None
        if lift_payload is not None:
            payload = lift_payload(read(address, VALUE_SIZE), 0, reader)
        return {"ok" if is_ok else "err": payload}

    return lift


def _tuple(lifts: list[Lift]) -> Lift:
    steps = [(lift, index * VALUE_SIZE) for index, lift in enumerate(lifts)]
    length = len(lifts) * VALUE_SIZE

    def lift(data: Data, offset: int, reader: Reader) -> list[Any]:
        _, address = _unpack_slice(data, offset + PAYLOAD)
        items = read(address, length)
        return [lift_item(items, at, reader) for lift_item, at in steps]

    return lift


def _record(fields: list[tuple[str, Lift]]) -> Lift:
    steps = [
        (name, lift_field, index * ENTRY_SIZE + NAME_SIZE) for index, (name, lift_field) in enumerate(fields)
    ]
    length = len(fields) * ENTRY_SIZE

    def lift(data: Data, offset: int, reader: Reader) -> dict[str, Any]:
        _, address = _unpack_slice(data, offset + PAYLOAD)
        entries = read(address, length)
        return {name: lift_field(entries, at, reader) for name, lift_field, at in steps}

    return lift


def _variant(cases: Mapping[bytes, tuple[str, Lift | None]]) -> Lift:
    def lift(data: Data, offset: int, reader: Reader) -> dict[str, Any]:
        size, name_address, address = _unpack_variant(data, offset + PAYLOAD)
        name, lift_payload = cases[read(name_address, size)]
        if lift_payload is None:
            return {name: None}
        return {name: lift_payload(read(address, VALUE_SIZE), 0, reader)}

    return lift


def _enum(cases: Mapping[bytes, str]) -> Lift:
    def lift(data: Data, offset: int, _: Reader) -> str:
        size, address = _unpack_slice(data, offset + PAYLOAD)
        return cases[read(address, size)]

    return lift


def _flags(names: Mapping[bytes, str]) -> Lift:
    order = {name: index for index, name in enumerate(names.values())}

    def lift(data: Data, offset: int, _: Reader) -> list[str]:
        size, address = _unpack_slice(data, offset + PAYLOAD)
        entries = read(address, size * NAME_SIZE)
        found = []
        for at in range(0, size * NAME_SIZE, NAME_SIZE):
            length, name_address = _unpack_slice(entries, at)
            found.append(names[read(name_address, length)])
        return sorted(found, key=order.__getitem__)

    return lift


def _lift_handle(data: Data, offset: int, reader: Reader) -> Any:
    return reader.owner.take(_unpack_pointer(data, offset + PAYLOAD)[0])
