"""Values of WIT types: checked against their type, and to and from their JSON form.

A value has one shape per type, in Python and in msgpack alike (docs/wire-format.md has the table). JSON
differs only where it must: bytes are `{"base64": ...}`, integers beyond 2^53 and the floats that JSON lacks
are strings. Reading JSON is lenient where a person types it: a case without payload may be written as its
bare name, and what is optional may be left out of a record or of arguments given by name.

A reader is compiled once per type: a function that returns the value in its one shape or raises `_Mismatch`,
which collects the path on its way out.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias

from lattice import wit
from lattice.errors import Invalid
from lattice.names import did_you_mean

MAX_SAFE_INTEGER = 2**53
"""What every JSON reader can take as a number; anything beyond is written as a string."""

SPECIAL_FLOATS: Mapping[str, float] = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

COMPILED_TYPES = 4096
"""Types whose readers and writers are remembered; types come from components, so the number is bounded."""

_INTEGER_TEXT = re.compile(r"-?[0-9]{1,20}")

Convert: TypeAlias = Callable[[Any], Any]


class _Mismatch(Exception):
    """A value breaks a rule; `steps` is the way to it, innermost first."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.steps: list[str] = []

    def invalid(self, field: str) -> Invalid:
        return Invalid(f"{field}{''.join(reversed(self.steps))}: {self.reason}")


# Values


def check(type_: wit.Type, value: Any, field: str = "value") -> Any:
    """The value in the one shape of its type, or `Invalid` naming `field`, the path in it and the rule."""
    return _read(_reader(type_, False), value, field)


def check_arguments(function: wit.Function, args: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
    """The arguments in order, given so or by name, each checked. Raises `Invalid`."""
    return _arguments(function, args, is_json=False)


def check_result(function: wit.Function, value: Any) -> Any:
    """The result checked; None where the function has none. Raises `Invalid`."""
    return _result(function, value, is_json=False)


# JSON


def from_json(type_: wit.Type, data: Any, field: str = "value") -> Any:
    """The value that parsed JSON stands for. Raises `Invalid`."""
    return _read(_reader(type_, True), data, field)


def to_json(type_: wit.Type, value: Any, field: str = "value") -> Any:
    """What to write as JSON for a value, which is checked on the way. Raises `Invalid`."""
    return _writer(type_)(check(type_, value, field))


def arguments_from_json(function: wit.Function, data: Any) -> list[Any]:
    """The arguments in order from a JSON array, or from an object by name. Raises `Invalid`."""
    return _arguments(function, data, is_json=True)


def arguments_to_json(function: wit.Function, args: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
    """The JSON array of the arguments. Raises `Invalid`."""
    checked = check_arguments(function, args)
    return [_writer(type_)(value) for (_, type_), value in zip(function.params, checked, strict=True)]


def result_from_json(function: wit.Function, data: Any) -> Any:
    """The result that parsed JSON stands for. Raises `Invalid`."""
    return _result(function, data, is_json=True)


def result_to_json(function: wit.Function, value: Any) -> Any:
    """What to write as JSON for the result of a function. Raises `Invalid`."""
    checked = check_result(function, value)
    return None if function.result is None else _writer(function.result)(checked)


def parse_argument(type_: wit.Type, text: str, field: str = "value") -> Any:
    """The value that somebody typed: JSON, or a bare word where a string, char, enum or case is wanted.

    Raises `Invalid`.
    """
    return from_json(type_, _typed(type_, text, field), field)


# Arguments and results


def _arguments(function: wit.Function, args: Any, *, is_json: bool) -> list[Any]:
    if isinstance(args, Mapping):
        args = _in_order(function, args, is_json)
    elif not isinstance(args, list | tuple):
        raise Invalid(f"arguments: expected a list in order or a map by name, got {shown(args)}")
    if len(args) != len(function.params):
        raise Invalid(f"{_count(len(function.params))} wanted, {len(args)} given: {_signature(function)}")
    return [
        _read(_reader(type_, is_json), value, f"argument '{name}'")
        for (name, type_), value in zip(function.params, args, strict=True)
    ]


def _in_order(function: wit.Function, args: Mapping[Any, Any], is_json: bool) -> list[Any]:
    types = dict(function.params)
    for name in args:
        if name not in types:
            hint = did_you_mean(str(name), types) or f": {_signature(function)}"
            raise Invalid(f"there is no argument {shown(name)}{hint}")
    for name, type_ in function.params:
        if name not in args and not (is_json and isinstance(type_, wit.Option)):
            raise Invalid(f"argument '{name}' is missing: {_signature(function)}")
    return [args.get(name) for name in types]


def _result(function: wit.Function, value: Any, *, is_json: bool) -> Any:
    if function.result is not None:
        return _read(_reader(function.result, is_json), value, "result")
    if value is not None:
        raise Invalid(f"result: the function has none, got {shown(value)}")
    return None


def _read(reader: Convert, data: Any, field: str) -> Any:
    try:
        return reader(data)
    except _Mismatch as mismatch:
        raise mismatch.invalid(field) from None


def _count(number: int) -> str:
    return "1 argument is" if number == 1 else f"{number or 'no'} arguments are"


def _signature(function: wit.Function) -> str:
    return _cut(wit.function_text("it takes", function).removeprefix("it takes: func"))


# What somebody typed


def _typed(type_: wit.Type, text: str, field: str) -> Any:
    if isinstance(type_, wit.Option) and not wit.can_be_nil(type_.inner):
        return None if text.strip() == "null" else _typed(type_.inner, text, field)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        if _takes_word(type_):
            return text
        raise Invalid(f"{field}: {shown(text)} is not JSON for {_named(type_)}: {error}") from None
    is_value = isinstance(data, str) or (isinstance(data, dict) and isinstance(type_, wit.Variant))
    return text if _takes_word(type_) and not is_value else data


def _takes_word(type_: wit.Type) -> bool:
    return type_ in (wit.STRING, wit.Primitive("char")) or isinstance(type_, wit.Enum | wit.Variant)


# Readers


@lru_cache(COMPILED_TYPES)
def _reader(type_: wit.Type, is_json: bool) -> Convert:
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
            return _list_reader(_reader(element, is_json))
        case wit.Option(inner):
            return _option_reader(_reader(inner, is_json), wit.can_be_nil(inner))
        case wit.Result(ok, err):
            return _variant_reader((("ok", ok), ("err", err)), is_json, "result")
        case wit.Tuple(items):
            return _tuple_reader([_reader(item, is_json) for item in items])
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
    raise _Mismatch("a resource handle can't leave the instance that owns it")


def _read_bool(data: Any) -> bool:
    if data is True or data is False:
        return bool(data)
    raise _Mismatch(f"expected a bool, got {shown(data)}")


def _read_string(data: Any) -> str:
    if not isinstance(data, str):
        raise _Mismatch(f"expected a string, got {shown(data)}")
    if not data.isascii():
        try:
            data.encode()
        except UnicodeEncodeError:
            raise _Mismatch("a string must be Unicode text; this one has half of a surrogate pair") from None
    return data


def _read_char(data: Any) -> str:
    if isinstance(data, str) and len(data) == 1 and not "\ud800" <= data <= "\udfff":
        return data
    raise _Mismatch(f"expected a char (a string of one code point), got {shown(data)}")


def _integer_reader(name: str, is_json: bool) -> Convert:
    low, high = wit.INTEGER_RANGES[name]

    def read(data: Any) -> int:
        if type(data) is int and low <= data <= high:
            return data
        number = _json_integer(data) if is_json else data
        if not isinstance(number, int) or isinstance(number, bool):
            raise _Mismatch(f"expected a {name}, got {shown(data)}")
        if not low <= number <= high:
            raise _Mismatch(f"{shown(number)} is out of range for {name} ({low} to {high})")
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
            raise _Mismatch(f"expected a {name}, got {shown(data)}")
        try:
            number = float(data)
            if name == "f32":
                struct.pack("<f", number)
        except OverflowError:
            raise _Mismatch(f"{shown(data)} is out of range for {name}") from None
        return number

    return read


def _read_bytes(data: Any) -> bytes:
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    if not isinstance(data, list | tuple):
        raise _Mismatch(f"expected list<u8> as bytes, got {shown(data)}")
    try:
        if all(type(item) is int for item in data):
            return bytes(data)
    except ValueError:
        pass
    raise _Mismatch("expected list<u8>: every item must be an integer from 0 to 255")


def _read_json_bytes(data: Any) -> bytes:
    if isinstance(data, list):
        return _read_bytes(data)
    if not isinstance(data, dict) or data.keys() != {"base64"} or not isinstance(data["base64"], str):
        raise _Mismatch(f'expected list<u8> as {{"base64": "..."}} or an array, got {shown(data)}')
    try:
        return base64.b64decode(data["base64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise _Mismatch(f"not base64: {error}") from None


def _list_reader(read_element: Convert) -> Convert:
    def read(data: Any) -> list[Any]:
        if not isinstance(data, list | tuple):
            raise _Mismatch(f"expected a list, got {shown(data)}")
        items: list[Any] = []
        try:
            for item in data:
                items.append(read_element(item))  # noqa: PERF401 - its length is the index of what is wrong
        except _Mismatch as mismatch:
            mismatch.steps.append(f"[{len(items)}]")
            raise
        return items

    return read


def _tuple_reader(readers: list[Convert]) -> Convert:
    def read(data: Any) -> list[Any]:
        if not isinstance(data, list | tuple) or len(data) != len(readers):
            raise _Mismatch(f"expected a tuple of {len(readers)}, got {shown(data)}")
        items: list[Any] = []
        try:
            for reader, item in zip(readers, data, strict=True):
                items.append(reader(item))
        except _Mismatch as mismatch:
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
            raise _Mismatch(f"expected nil or a list of one (an option of an option), got {shown(data)}")
        return [read_inner(data[0])]

    return read


def _record_reader(fields: tuple[tuple[str, wit.Type], ...], is_json: bool) -> Convert:
    readers = [(name, _reader(type_, is_json)) for name, type_ in fields]
    names = frozenset(name for name, _ in fields)
    optional = frozenset(name for name, type_ in fields if is_json and isinstance(type_, wit.Option))

    def read(data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise _Mismatch(f"expected a record (a map), got {shown(data)}")
        if data.keys() != names:
            _check_names(data, names, optional)
        name, values = "", {}
        try:
            for name, read_field in readers:
                values[name] = read_field(data.get(name))
        except _Mismatch as mismatch:
            mismatch.steps.append(f".{name}")
            raise
        return values

    return read


def _check_names(data: dict[Any, Any], names: frozenset[str], optional: frozenset[str]) -> None:
    for name in data:
        if name not in names:
            hint = did_you_mean(str(name), names)
            raise _Mismatch(f"the record has no field {shown(name)}{hint}")
    missing = sorted(names - data.keys() - optional)
    if missing:
        raise _Mismatch(f"field '{missing[0]}' is missing")


def _variant_reader(cases: tuple[tuple[str, wit.Type | None], ...], is_json: bool, kind: str) -> Convert:
    readers = {name: None if type_ is None else _reader(type_, is_json) for name, type_ in cases}

    def read(data: Any) -> dict[str, Any]:
        if is_json and isinstance(data, str) and readers.get(data, data) is None:
            return {data: None}
        if not isinstance(data, dict) or len(data) != 1:
            raise _Mismatch(f"expected a {kind} (a map of one case to its payload), got {shown(data)}")
        ((case, payload),) = data.items()
        if case not in readers:
            raise _Mismatch(_no_case(case, readers, kind))
        try:
            return {case: _payload(readers[case], payload)}
        except _Mismatch as mismatch:
            mismatch.steps.append(f".{case}")
            raise

    return read


def _payload(reader: Convert | None, payload: Any) -> Any:
    if reader is not None:
        return reader(payload)
    if payload is None:
        return None
    raise _Mismatch(f"this case has no payload: expected nil, got {shown(payload)}")


def _enum_reader(cases: tuple[str, ...]) -> Convert:
    known = frozenset(cases)

    def read(data: Any) -> str:
        if not isinstance(data, str):
            raise _Mismatch(f"expected the name of a case, got {shown(data)}")
        if data not in known:
            raise _Mismatch(_no_case(data, cases, "enum"))
        return data

    return read


def _flags_reader(names: tuple[str, ...]) -> Convert:
    def read(data: Any) -> list[str]:
        if not isinstance(data, list | tuple) or not all(isinstance(name, str) for name in data):
            raise _Mismatch(f"expected a list of the names of flags, got {shown(data)}")
        for name in data:
            if name not in names:
                raise _Mismatch(_no_case(name, names, "set of flags"))
        if len(set(data)) != len(data):
            raise _Mismatch("a flag is named twice")
        return [name for name in names if name in data]

    return read


def _no_case(case: Any, cases: Mapping[str, Any] | tuple[str, ...], kind: str) -> str:
    hint = did_you_mean(str(case), cases) if isinstance(case, str) else ""
    return f"the {kind} has no case {shown(case)}{hint or _cut(': it has ' + ', '.join(cases))}"


# Writers of JSON; the value was checked


@lru_cache(COMPILED_TYPES)
def _writer(type_: wit.Type) -> Convert:
    if type_ == wit.BYTES:
        return _bytes_to_json
    match type_:
        case wit.Primitive("u64" | "s64"):
            return _integer_to_json
        case wit.Primitive("f32" | "f64"):
            return _float_to_json
        case wit.List(element):
            write = _writer(element)
            return lambda value: [write(item) for item in value]
        case wit.Option(inner):
            return _option_writer(_writer(inner), wit.can_be_nil(inner))
        case wit.Result(ok, err):
            return _variant_writer((("ok", ok), ("err", err)))
        case wit.Variant(cases):
            return _variant_writer(cases)
        case wit.Tuple(items):
            writers = [_writer(item) for item in items]
            return lambda value: [write(item) for write, item in zip(writers, value, strict=True)]
        case wit.Record(fields):
            by_name = {name: _writer(part) for name, part in fields}
            return lambda value: {name: write(value[name]) for name, write in by_name.items()}
    return _unchanged


def _unchanged(value: Any) -> Any:
    return value


def _bytes_to_json(value: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode("ascii")}


def _integer_to_json(value: int) -> int | str:
    return value if abs(value) <= MAX_SAFE_INTEGER else str(value)


def _float_to_json(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _option_writer(write: Convert, is_wrapped: bool) -> Convert:
    if is_wrapped:
        return lambda value: None if value is None else [write(value[0])]
    return lambda value: None if value is None else write(value)


def _variant_writer(cases: tuple[tuple[str, wit.Type | None], ...]) -> Convert:
    writers = {name: _unchanged if type_ is None else _writer(type_) for name, type_ in cases}
    return lambda value: {case: writers[case](payload) for case, payload in value.items()}


# Messages


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


def _named(type_: wit.Type) -> str:
    return _cut(wit.type_text(type_))


def _cut(text: str) -> str:
    return text if len(text) <= 160 else text[:160] + "…"
