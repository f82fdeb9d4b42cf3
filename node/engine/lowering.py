"""From Python values to wasmtime's: each WIT type is compiled once into a closure.

A lowered value is the 32 bytes of one C value. Its parts (strings, elements, names) are Python's own
bytes, lent for the time of the call: nothing is allocated in C, so nothing leaks when a conversion stops
halfway. Everything is checked; a `Mismatch` gains its path on the way up.
"""

from __future__ import annotations

import array
import reprlib
import struct
from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any, TypeAlias

from lattice import wit
from lattice.errors import Invalid
from node.engine.capi import BYTES_OFFSET, PAYLOAD, VALUE_SIZE, Kind, Lender, bytes_address

Lower: TypeAlias = Callable[[Any, Lender], bytes]

HEAVY_BYTES = 64 << 10
"""A `list<u8>` that is longer crosses as an array of values, 32 times its size: not on the event loop."""
HEAVY_ELEMENTS = 4096
HEAVY_STRING_BYTES = 256 << 10
MAX_LIST_BYTES = 2_795_654
"""Wasmtime grants one call 128 MiB of values, 48 bytes for each."""
MAX_STRING_BYTES = 128 << 20


class Mismatch(Exception):
    """A value does not fit its type; `path` leads to it from the argument or result that was checked."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = ""

    def within(self, step: str) -> Mismatch:
        """The same, seen from one level further out."""
        self.path = step + self.path
        return self


class Heavy(Exception):
    """So much would be converted that it must be begun anew on a worker thread."""


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60


def shown(value: Any) -> str:
    """A value in an error message, cut short whatever it is."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    try:
        return _short.repr(value[:64] if isinstance(value, (bytes, bytearray)) else value)
    except ValueError:
        return f"a {type(value).__name__}"


def compile_lower(type_: wit.Type, is_adapted: bool, resources: Mapping[str, int] | None) -> Lower:
    """The closure that lowers values of a type.

    `resources` numbers the host's resource types by `interface#name`; any other handle is refused.
    """
    return _Compiler(is_adapted, resources or {}).lower(type_)


# The layouts; x is padding up to 32 bytes.
_pack_slice = Struct("<B7xQQ8x").pack  # string, list, record, tuple, enum, flags: a size and an address
_pack_name = Struct("<QQ").pack
_pack_variant = Struct("<B7xQQQ").pack
_pack_result = Struct("<B7x?7xQ8x").pack
_pack_pointer = Struct("<B7xQ16x").pack  # option and handle
_pack_char = Struct("<B7xI20x").pack

CODES: Mapping[str, Any] = {
    "u8": "B", "s8": "b", "u16": "H", "s16": "h", "u32": "I", "s32": "i", "u64": "Q", "s64": "q",
    "f32": "f", "f64": "d",
}  # fmt: skip
"""Of `struct`, `array` and `memoryview` alike."""

_STRING, _LIST, _RECORD, _OPTION = int(Kind.STRING), int(Kind.LIST), int(Kind.RECORD), int(Kind.OPTION)
"""Plain numbers: looking up a member of an enumeration takes longer than packing it."""

_TRUE = Struct("<B7x?23x").pack(Kind.BOOL, True)
_FALSE = Struct("<B7x?23x").pack(Kind.BOOL, False)
_NONE = _pack_pointer(_OPTION, 0)


def _lower_bool(value: Any, _: Lender) -> bytes:
    if value is True:
        return _TRUE
    if value is False:
        return _FALSE
    raise Mismatch(f"{shown(value)} is not a bool")


def _lower_char(value: Any, _: Lender) -> bytes:
    if isinstance(value, str) and len(value) == 1 and not "\ud800" <= value <= "\udfff":
        return _pack_char(Kind.CHAR, ord(value))
    raise Mismatch(f"{shown(value)} is not a char: a string of one Unicode scalar value")


def _lower_string(value: Any, lender: Lender) -> bytes:
    if not isinstance(value, str):
        raise Mismatch(f"{shown(value)} is not a string")
    if len(value) > HEAVY_STRING_BYTES and not lender.may_be_heavy:
        raise Heavy
    try:
        data = value.encode()
    except UnicodeEncodeError as error:
        raise Mismatch(f"the string has half a surrogate pair at {error.start}") from None
    return _lend_string(data, lender)


def _lower_text_as_bytes(value: Any, lender: Lender) -> bytes:
    """A string to an adapter, where it crosses as its UTF-8 bytes do: as latin-1 characters."""
    if not isinstance(value, str):
        raise Mismatch(f"{shown(value)} is not a string")
    if value.isascii():
        if len(value) > HEAVY_STRING_BYTES and not lender.may_be_heavy:
            raise Heavy
        return _lend_string(value.encode(), lender)
    try:
        return _lower_bytes_as_string(value.encode(), lender)
    except UnicodeEncodeError as error:
        raise Mismatch(f"the string has half a surrogate pair at {error.start}") from None


def _lend_string(data: bytes, lender: Lender) -> bytes:
    size = len(data)
    if size > MAX_STRING_BYTES:
        raise Mismatch(f"{size} bytes are more than one call can carry ({MAX_STRING_BYTES})")
    lender.lent_bytes += size
    lender.kept.append(data)
    return _pack_slice(_STRING, size, id(data) + BYTES_OFFSET)


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, (list, tuple)):
        raise Mismatch(f"{shown(value)} is not bytes, nor a list of numbers from 0 to 255")
    for index, item in enumerate(value):
        if type(item) is not int or not 0 <= item <= 255:
            raise Mismatch(f"{shown(item)} is not a number from 0 to 255").within(f"[{index}]")
    return bytes(value)


def _lower_bytes_as_string(value: Any, lender: Lender) -> bytes:
    data = value if type(value) is bytes else _as_bytes(value)
    if len(data) > HEAVY_STRING_BYTES and not lender.may_be_heavy:
        raise Heavy
    if not data.isascii():
        data = data.decode("latin-1").encode()
    return _lend_string(data, lender)


def _lower_bytes_as_list(value: Any, lender: Lender) -> bytes:
    data = _as_bytes(value)
    size = len(data)
    if size > MAX_LIST_BYTES:
        raise Mismatch(
            f"{size} bytes are more than a list<u8> of this component can carry ({MAX_LIST_BYTES}): "
            "send them in parts"
        )
    if size > HEAVY_BYTES and not lender.may_be_heavy:
        raise Heavy
    lender.lent_bytes += size
    elements = bytearray(_U8_ELEMENT) * size
    elements[PAYLOAD::VALUE_SIZE] = data
    return _pack_slice(_LIST, size, lender.address(elements))


_U8_ELEMENT = bytes([Kind.U8]) + bytes(VALUE_SIZE - 1)


def _integer(name: str) -> Lower:
    low, high = wit.INTEGER_RANGES[name]
    kind, code = Kind[name.upper()], CODES[name]
    pack = _scalar(code)

    def lower(value: Any, _: Lender) -> bytes:
        if type(value) is not int and (not isinstance(value, int) or isinstance(value, bool)):
            raise Mismatch(f"{shown(value)} is not an integer ({name})")
        if low <= value <= high:
            return pack(kind, value)
        raise Mismatch(f"{shown(value)} is out of range for {name} ({low} to {high})")

    return lower


def _float(name: str) -> Lower:
    kind, pack = Kind[name.upper()], _scalar(CODES[name])

    def lower(value: Any, _: Lender) -> bytes:
        if not isinstance(value, (float, int)) or isinstance(value, bool):
            raise Mismatch(f"{shown(value)} is not a number ({name})")
        try:
            return pack(kind, value)
        except (OverflowError, struct.error):
            raise Mismatch(f"{shown(value)} is out of range for {name}") from None

    return lower


def _scalar(code: str) -> Callable[..., bytes]:
    size = Struct(f"<{code}").size
    return Struct(f"<B7x{code}{VALUE_SIZE - PAYLOAD - size}x").pack


_PRIMITIVES: dict[str, Lower] = {
    "bool": _lower_bool,
    "char": _lower_char,
    "string": _lower_string,
    "f32": _float("f32"),
    "f64": _float("f64"),
    **{name: _integer(name) for name in wit.INTEGER_RANGES},
}


def _check_sequence(value: Any) -> None:
    if not isinstance(value, (list, tuple)):
        raise Mismatch(f"{shown(value)} is not a list")


class _Compiler:
    """Compiles one function's types; they share whether bytes are adapted, and the host's resources."""

    def __init__(self, is_adapted: bool, resources: Mapping[str, int]) -> None:
        self._is_adapted = is_adapted
        self._resources = resources

    def lower(self, type_: wit.Type) -> Lower:
        match type_:
            case wit.STRING if self._is_adapted:
                return _lower_text_as_bytes
            case wit.Primitive(name):
                return _PRIMITIVES[name]
            case wit.BYTES:
                return _lower_bytes_as_string if self._is_adapted else _lower_bytes_as_list
            case wit.List(wit.Primitive(name)) if name in CODES:
                return self._numbers(name)
            case wit.List(element):
                return self._list(self.lower(element))
            case wit.Option(inner):
                return self._option(inner)
            case wit.Result(ok, err):
                return self._result(ok, err)
            case wit.Tuple(items):
                return self._tuple([self.lower(item) for item in items])
            case wit.Record(fields):
                return self._record(fields)
            case wit.Variant(cases):
                return self._variant(cases)
            case wit.Enum(cases):
                return self._enum(cases)
            case wit.Flags(names):
                return self._flags(names)
            case wit.Handle(resource, is_owned):
                return self._handle(resource, is_owned)
        raise Invalid(f"values of {type_} can't be converted")

    def _list(self, lower_element: Lower) -> Lower:
        def lower(value: Any, lender: Lender) -> bytes:
            _check_sequence(value)
            if len(value) > HEAVY_ELEMENTS and not lender.may_be_heavy:
                raise Heavy
            index = 0
            elements = []
            try:
                for item in value:
                    elements.append(lower_element(item, lender))
                    index += 1
            except Mismatch as mismatch:
                raise mismatch.within(f"[{index}]") from None
            return _pack_slice(_LIST, index, lender.address(b"".join(elements)))

        return lower

    def _numbers(self, name: str) -> Lower:
        """A list of numbers in a few bulk operations; whatever those refuse is found one by one."""
        one_by_one = self._list(_PRIMITIVES[name])
        code = CODES[name]
        template = bytes([Kind[name.upper()]]) + bytes(VALUE_SIZE - 1)
        width = Struct(f"<{code}").size
        places = slice(PAYLOAD // width, None, VALUE_SIZE // width)
        types = {float} if name[0] == "f" else {int}

        def lower(value: Any, lender: Lender) -> bytes:
            _check_sequence(value)
            size = len(value)
            if size < 8 or set(map(type, value)) != types:
                return one_by_one(value, lender)
            if size > HEAVY_BYTES and not lender.may_be_heavy:
                raise Heavy
            try:
                numbers = array.array(code, value)
            except OverflowError:
                return one_by_one(value, lender)
            elements = bytearray(template) * size
            memoryview(elements).cast(code)[places] = memoryview(numbers)
            return _pack_slice(_LIST, size, lender.address(elements))

        return lower

    def _option(self, inner: wit.Type) -> Lower:
        lower_some = self.lower(inner)
        is_wrapped = wit.can_be_nil(inner)

        def lower(value: Any, lender: Lender) -> bytes:
            if value is None:
                return _NONE
            if is_wrapped:
                if not isinstance(value, (list, tuple)) or len(value) != 1:
                    raise Mismatch(f"{shown(value)} must be nil or a list of one, for the option inside")
                value = value[0]
            return _pack_pointer(_OPTION, lender.address(lower_some(value, lender)))

        return lower

    def _tuple(self, lowers: list[Lower]) -> Lower:
        size = len(lowers)

        def lower(value: Any, lender: Lender) -> bytes:
            if not isinstance(value, (list, tuple)) or len(value) != size:
                raise Mismatch(f"{shown(value)} is not a tuple of {size}")
            items: list[bytes] = []
            try:
                for item, lower_item in zip(value, lowers, strict=True):
                    items.append(lower_item(item, lender))
            except Mismatch as mismatch:
                raise mismatch.within(f"[{len(items)}]") from None
            return _pack_slice(Kind.TUPLE, size, lender.address(b"".join(items)))

        return lower

    def _record(self, fields: tuple[tuple[str, wit.Type], ...]) -> Lower:
        names = [name for name, _ in fields]
        keys = [_name(name) for name in names]
        template = [part for key, _ in keys for part in (key, b"")]
        steps = [(name, 2 * n + 1, self.lower(type_)) for n, (name, type_) in enumerate(fields)]
        size = len(fields)

        def lower(value: Any, lender: Lender, _kept: list[tuple[bytes, bytes]] = keys) -> bytes:
            if not isinstance(value, dict) or len(value) != size:
                raise _field_mismatch(value, names)
            entries = template.copy()
            name = ""
            try:
                for name, at, lower_field in steps:
                    entries[at] = lower_field(value[name], lender)
            except KeyError:
                raise _field_mismatch(value, names) from None
            except Mismatch as mismatch:
                raise mismatch.within(f".{name}") from None
            data = b"".join(entries)
            lender.kept.append(data)
            return _pack_slice(_RECORD, size, id(data) + BYTES_OFFSET)

        return lower

    def _case(self, payload: wit.Type | None) -> Callable[[Any, Lender], int]:
        """Lowers what a case carries and gives its address, 0 for nothing."""
        if payload is None:

            def nothing(value: Any, _: Lender) -> int:
                if value is not None:
                    raise Mismatch(f"{shown(value)} must be nil: this case carries nothing")
                return 0

            return nothing
        lower_payload = self.lower(payload)
        return lambda value, lender: lender.address(lower_payload(value, lender))

    def _variant(self, cases: tuple[tuple[str, wit.Type | None], ...]) -> Lower:
        table = {name: (_name(name), self._case(payload)) for name, payload in cases}

        def lower(value: Any, lender: Lender) -> bytes:
            name, payload = _only_entry(value, table)
            (_, kept), lower_case = table[name]
            try:
                address = lower_case(payload, lender)
            except Mismatch as mismatch:
                raise mismatch.within(f".{name}") from None
            return _pack_variant(Kind.VARIANT, len(kept), bytes_address(kept), address)

        return lower

    def _result(self, ok: wit.Type | None, err: wit.Type | None) -> Lower:
        table = {"ok": self._case(ok), "err": self._case(err)}

        def lower(value: Any, lender: Lender) -> bytes:
            name, payload = _only_entry(value, table)
            try:
                return _pack_result(Kind.RESULT, name == "ok", table[name](payload, lender))
            except Mismatch as mismatch:
                raise mismatch.within(f".{name}") from None

        return lower

    def _enum(self, cases: tuple[str, ...]) -> Lower:
        kept = [case.encode() for case in cases]
        table = {
            case: _pack_slice(Kind.ENUM, len(data), bytes_address(data))
            for case, data in zip(cases, kept, strict=True)
        }

        def lower(value: Any, _: Lender, _kept: list[bytes] = kept) -> bytes:
            lowered = table.get(value) if isinstance(value, str) else None
            if lowered is None:
                raise Mismatch(f"{shown(value)} is not one of {', '.join(cases)}")
            return lowered

        return lower

    def _flags(self, names: tuple[str, ...]) -> Lower:
        table = {name: _name(name) for name in names}

        def lower(value: Any, lender: Lender) -> bytes:
            _check_sequence(value)
            entries = []
            for name in value:
                found = table.get(name) if isinstance(name, str) else None
                if found is None:
                    raise Mismatch(f"{shown(name)} is not one of {', '.join(names)}")
                entries.append(found[0])
            if len(set(value)) != len(value):
                raise Mismatch(f"{shown(value)} names a flag twice")
            return _pack_slice(Kind.FLAGS, len(entries), lender.address(b"".join(entries)))

        return lower

    def _handle(self, resource: str, is_owned: bool) -> Lower:
        number = self._resources.get(resource)
        if number is None or not is_owned:
            return _refuse_handle(resource)

        def lower(value: Any, lender: Lender) -> bytes:
            handle = lender.owner.give(number, value)
            lender.handles.append(handle)
            return _pack_pointer(Kind.RESOURCE, handle)

        return lower


def _refuse_handle(resource: str) -> Lower:
    def lower(_: Any, __: Lender) -> bytes:
        raise Mismatch(f"handles of the resource {resource} can't be passed to a component")

    return lower


def _name(text: str) -> tuple[bytes, bytes]:
    """A name as C reads it, and the bytes behind it, which the compiled closure keeps alive."""
    data = text.encode()
    return _pack_name(len(data), bytes_address(data)), data


def _only_entry(value: Any, cases: Mapping[str, Any]) -> tuple[str, Any]:
    if isinstance(value, dict) and len(value) == 1:
        ((name, payload),) = value.items()
        if name in cases:
            return name, payload
    raise Mismatch(f"{shown(value)} is not a map with one of {', '.join(cases)}")


def _field_mismatch(value: Any, names: list[str]) -> Mismatch:
    if not isinstance(value, dict):
        return Mismatch(f"{shown(value)} is not a map with {', '.join(names)}")
    missing = [name for name in names if name not in value]
    if missing:
        return Mismatch(f"the field {missing[0]} is missing")
    unknown = [name for name in value if name not in names]
    return Mismatch(f"there is no field {shown(unknown[0])}; the fields are {', '.join(names)}")
