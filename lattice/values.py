"""Values of WIT types: checked against their type, and to and from their JSON form.

A value has one shape per type, in Python and in msgpack alike (docs/wire-format.md has the table). JSON
differs only where it must: bytes are `{"base64": ...}`, integers beyond 2^53 and the floats that JSON lacks
are strings. Reading JSON is lenient where a person types it: a case without payload may be written as its
bare name, and what is optional may be left out of a record or of arguments given by name.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from lattice import wit
from lattice.errors import Invalid
from lattice.names import did_you_mean
from lattice.value_readers import COMPILED_TYPES, MAX_SAFE_INTEGER, Convert, Mismatch, cut, reader
from lattice.value_readers import shown as shown

# Values


def check(type_: wit.Type, value: Any, field: str = "value") -> Any:
    """The value in the one shape of its type, or `Invalid` naming `field`, the path in it and the rule."""
    return _read(reader(type_, False), value, field)


def check_arguments(function: wit.Function, args: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
    """The arguments in order, given so or by name, each checked. Raises `Invalid`."""
    return _arguments(function, args, is_json=False)


def check_result(function: wit.Function, value: Any) -> Any:
    """The result checked; None where the function has none. Raises `Invalid`."""
    return _result(function, value, is_json=False)


# JSON


def from_json(type_: wit.Type, data: Any, field: str = "value") -> Any:
    """The value that parsed JSON stands for. Raises `Invalid`."""
    return _read(reader(type_, True), data, field)


def to_json(type_: wit.Type, value: Any, field: str = "value") -> Any:
    """What to write as JSON for a value, which is checked on the way. Raises `Invalid`."""
    return _writer(type_)(check(type_, value, field))


def arguments_from_json(function: wit.Function, data: Any) -> list[Any]:
    """The arguments in order from a JSON array, or from an object by name. Raises `Invalid`."""
    return _arguments(function, data, is_json=True)


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
        _read(reader(type_, is_json), value, f"argument '{name}'")
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
        return _read(reader(function.result, is_json), value, "result")
    if value is not None:
        raise Invalid(f"result: the function has none, got {shown(value)}")
    return None


def _read(read: Convert, data: Any, field: str) -> Any:
    try:
        return read(data)
    except Mismatch as mismatch:
        raise mismatch.invalid(field) from None


def _count(number: int) -> str:
    return "1 argument is" if number == 1 else f"{number or 'no'} arguments are"


def _signature(function: wit.Function) -> str:
    return cut(wit.function_text("it takes", function).removeprefix("it takes: func"))


# What somebody typed


def _typed(type_: wit.Type, text: str, field: str) -> Any:
    if isinstance(type_, wit.Option) and not wit.can_be_nil(type_.inner):
        return None if text.strip() == "null" else _typed(type_.inner, text, field)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        if _takes_word(type_):
            return text
        raise Invalid(
            f"{field}: {shown(text)} is not JSON for {cut(wit.type_text(type_))}: {error}"
        ) from None
    is_value = isinstance(data, str) or (isinstance(data, dict) and isinstance(type_, wit.Variant))
    return text if _takes_word(type_) and not is_value else data


def _takes_word(type_: wit.Type) -> bool:
    return type_ in (wit.STRING, wit.Primitive("char")) or isinstance(type_, wit.Enum | wit.Variant)


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
