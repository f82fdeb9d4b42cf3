"""Readers of values: a function per WIT type that returns a value in its one shape, or says where it breaks.

A reader is compiled once per type, in two kinds: for values as they are in Python and msgpack, and for parsed
JSON, which is read more leniently. `lattice.values` has the rules and is what others use.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias

from lattice import wit
from lattice.errors import Invalid
from lattice.names import did_you_mean

MAX_SAFE_INTEGER = 2**53
"""What every JSON reader can take as a number; anything beyond is written as a string."""

SPECIAL_FLOATS: Mapping[str, float] = {
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "-Infinity": float("-inf"),
}

COMPILED_TYPES = 4096
"""Types whose readers are remembered; types come from components, so the number is bounded."""

_INTEGER_TEXT = re.compile(r"-?[0-9]{1,20}")

Convert: TypeAlias = Callable[[Any], Any]


class Mismatch(Exception):
    """A value breaks a rule; `steps` is the way to it, innermost first."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.steps: list[str] = []

    def invalid(self, field: str) -> Invalid:
        return Invalid(f"{field}{''.join(reversed(self.steps))}: {self.reason}")


@lru_cache(COMPILED_TYPES)
def reader(type_: wit.Type, is_json: bool) -> Convert:
    """The function that reads values of the type; it raises `Mismatch`."""
    if type_ == wit.BYTES:
        return _read_json_bytes if is_json else _read_bytes
    match type_:
        case wit.Primitive("bool"):
            return _read_bool
        case wit.Primitive("string"):
            return _read_string
        case wit.Primitive("char"):
            return _read_char
        case wit.Primitive("f32" | "f64" as name):
            return _float_reader(name, is_json)
        case wit.Primitive(name):
            return _integer_reader(name, is_json)
        case wit.List(element):
            return _list_reader(reader(element, is_json))
        case wit.Option(inner):
            return _option_reader(reader(inner, is_json), wit.can_be_nil(inner))
        case wit.Result(ok, err):
            return _variant_reader((("ok", ok), ("err", err)), is_json, "result")
        case wit.Tuple(items):
            return _tuple_reader([reader(item, is_json) for item in items])
        case wit.Record(fields):
            return _record_reader(fields, is_json)
        case wit.Variant(cases):
            return _variant_reader(cases, is_json, "variant")
        case wit.Enum(cases):
            return _enum_reader(cases)
        case wit.Flags(names):
            return _flags_reader(names)
    return _read_handle


def _read_handle(data: Any) -> NoReturn:
    raise Mismatch("a resource handle can't leave the instance that owns it")


def _read_bool(data: Any) -> bool:
    if data is True or data is False:
        return bool(data)
    raise Mismatch(f"expected a bool, got {shown(data)}")


def _read_string(data: Any) -> str:
    if not isinstance(data, str):
        raise Mismatch(f"expected a string, got {shown(data)}")
    if not data.isascii():
        try:
            data.encode()
        except UnicodeEncodeError:
            raise Mismatch("a string must be Unicode text; this one has half of a surrogate pair") from None
    return data


def _read_char(data: Any) -> str:
    if isinstance(data, str) and len(data) == 1 and not "\ud800" <= data <= "\udfff":
        return data
    raise Mismatch(f"expected a char (a string of one code point), got {shown(data)}")


def _integer_reader(name: str, is_json: bool) -> Convert:
    low, high = wit.INTEGER_RANGES[name]

    def read(data: Any) -> int:
        if type(data) is int and low <= data <= high:
            return data
        number = _json_integer(data) if is_json else data
        if not isinstance(number, int) or isinstance(number, bool):
            raise Mismatch(f"expected a {name}, got {shown(data)}")
        if not low <= number <= high:
            raise Mismatch(f"{shown(number)} is out of range for {name} ({low} to {high})")
        return int(number)

    return read


def _json_integer(data: Any) -> Any:
    if isinstance(data, str) and _INTEGER_TEXT.fullmatch(data):
        return int(data)
    if isinstance(data, float) and data.is_integer() and abs(data) <= MAX_SAFE_INTEGER:
        return int(data)  # JavaScript and others write 3.0 for 3
    return data


def _float_reader(name: str, is_json: bool) -> Convert:
    def read(data: Any) -> float:
        if is_json and isinstance(data, str):
            data = SPECIAL_FLOATS.get(data, data)
        if isinstance(data, bool) or not isinstance(data, int | float):
            raise Mismatch(f"expected a {name}, got {shown(data)}")
        try:
            number = float(data)
            if name == "f32":
                struct.pack("<f", number)
        except OverflowError:
            raise Mismatch(f"{shown(data)} is out of range for {name}") from None
        return number

    return read


def _read_bytes(data: Any) -> bytes:
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    if not isinstance(data, list | tuple):
        raise Mismatch(f"expected list<u8> as bytes, got {shown(data)}")
    try:
        if all(type(item) is int for item in data):
            return bytes(data)
    except ValueError:
        pass
    raise Mismatch("expected list<u8>: every item must be an integer from 0 to 255")


def _read_json_bytes(data: Any) -> bytes:
    if isinstance(data, list):
        return _read_bytes(data)
    if not isinstance(data, dict) or data.keys() != {"base64"} or not isinstance(data["base64"], str):
        raise Mismatch(f'expected list<u8> as {{"base64": "..."}} or an array, got {shown(data)}')
    try:
        return base64.b64decode(data["base64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise Mismatch(f"not base64: {error}") from None


def _list_reader(read_element: Convert) -> Convert:
    def read(data: Any) -> list[Any]:
        if not isinstance(data, list | tuple):
            raise Mismatch(f"expected a list, got {shown(data)}")
        items: list[Any] = []
        try:
            for item in data:
                items.append(read_element(item))  # noqa: PERF401 - its length is the index of what is wrong
        except Mismatch as mismatch:
            mismatch.steps.append(f"[{len(items)}]")
            raise
        return items

    return read


def _tuple_reader(readers: list[Convert]) -> Convert:
    def read(data: Any) -> list[Any]:
        if not isinstance(data, list | tuple) or len(data) != len(readers):
            raise Mismatch(f"expected a tuple of {len(readers)}, got {shown(data)}")
        items: list[Any] = []
        try:
            for read_item, item in zip(readers, data, strict=True):
                items.append(read_item(item))
        except Mismatch as mismatch:
            mismatch.steps.append(f"[{len(items)}]")
            raise
        return items

    return read


def _option_reader(read_inner: Convert, is_wrapped: bool) -> Convert:
    def read(data: Any) -> Any:
        if data is None:
            return None
        if not is_wrapped:
            return read_inner(data)
        if not isinstance(data, list | tuple) or len(data) != 1:
            raise Mismatch(f"expected nil or a list of one (an option of an option), got {shown(data)}")
        return [read_inner(data[0])]

    return read


def _record_reader(fields: tuple[tuple[str, wit.Type], ...], is_json: bool) -> Convert:
    readers = [(name, reader(type_, is_json)) for name, type_ in fields]
    names = frozenset(name for name, _ in fields)
    optional = frozenset(name for name, type_ in fields if is_json and isinstance(type_, wit.Option))

    def read(data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise Mismatch(f"expected a record (a map), got {shown(data)}")
        if data.keys() != names:
            _check_names(data, names, optional)
        name, values = "", {}
        try:
            for name, read_field in readers:
                values[name] = read_field(data.get(name))
        except Mismatch as mismatch:
            mismatch.steps.append(f".{name}")
            raise
        return values

    return read


def _check_names(data: dict[Any, Any], names: frozenset[str], optional: frozenset[str]) -> None:
    for name in data:
        if name not in names:
            hint = did_you_mean(str(name), names)
            raise Mismatch(f"the record has no field {shown(name)}{hint}")
    missing = sorted(names - data.keys() - optional)
    if missing:
        raise Mismatch(f"field '{missing[0]}' is missing")


def _variant_reader(cases: tuple[tuple[str, wit.Type | None], ...], is_json: bool, kind: str) -> Convert:
    readers = {name: None if type_ is None else reader(type_, is_json) for name, type_ in cases}

    def read(data: Any) -> dict[str, Any]:
        if is_json and isinstance(data, str) and readers.get(data, data) is None:
            return {data: None}
        if not isinstance(data, dict) or len(data) != 1:
            raise Mismatch(f"expected a {kind} (a map of one case to its payload), got {shown(data)}")
        ((case, payload),) = data.items()
        if case not in readers:
            raise Mismatch(_no_case(case, readers, kind))
        try:
            return {case: _payload(readers[case], payload)}
        except Mismatch as mismatch:
            mismatch.steps.append(f".{case}")
            raise

    return read


def _payload(read_payload: Convert | None, payload: Any) -> Any:
    if read_payload is not None:
        return read_payload(payload)
    if payload is None:
        return None
    raise Mismatch(f"this case has no payload: expected nil, got {shown(payload)}")


def _enum_reader(cases: tuple[str, ...]) -> Convert:
    known = frozenset(cases)

    def read(data: Any) -> str:
        if not isinstance(data, str):
            raise Mismatch(f"expected the name of a case, got {shown(data)}")
        if data not in known:
            raise Mismatch(_no_case(data, cases, "enum"))
        return data

    return read


def _flags_reader(names: tuple[str, ...]) -> Convert:
    def read(data: Any) -> list[str]:
        if not isinstance(data, list | tuple) or not all(isinstance(name, str) for name in data):
            raise Mismatch(f"expected a list of the names of flags, got {shown(data)}")
        for name in data:
            if name not in names:
                raise Mismatch(_no_case(name, names, "set of flags"))
        if len(set(data)) != len(data):
            raise Mismatch("a flag is named twice")
        return [name for name in names if name in data]

    return read


def _no_case(case: Any, cases: Mapping[str, Any] | tuple[str, ...], kind: str) -> str:
    hint = did_you_mean(str(case), cases) if isinstance(case, str) else ""
    return f"the {kind} has no case {shown(case)}{hint or cut(': it has ' + ', '.join(cases))}"


def shown(value: Any) -> str:
    """The value as it may stand in a message: short, and safe for values of any size and depth."""
    match value:
        case None:
            return "nil"
        case str():
            return repr(value) if len(value) <= 40 else f"{value[:40]!r}… ({len(value)} characters)"
        case bytes() | bytearray() | memoryview():
            return f"{len(value)} bytes"
        case list() | tuple():
            return f"a list of {len(value)}"
        case dict():
            return f"a map of {len(value)}"
        case int() if abs(value) >= 2**128:
            return f"an integer of {value.bit_length()} bits"
        case bool() | int() | float():
            return repr(value)
    return f"a {type(value).__name__}"


def cut(text: str) -> str:
    """The text as it may stand in a message."""
    return text if len(text) <= 160 else text[:160] + "…"
