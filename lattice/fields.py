"""Decoding of frozen dataclasses from plain maps, by their annotations.

One place decides what all values on the wire and in the store have in common: fields that this version does
not know are ignored (a newer peer may send them), fields that are missing get their defaults (an older peer
did not send them), and a value of the wrong type raises `Invalid` that names the field and the type it should
have. Ranges and other rules are each class's own, in `__post_init__`.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, TypeVar, get_args, get_origin, get_type_hints

from lattice.errors import Invalid
from lattice.names import did_you_mean

Decoder = Callable[[Any, str], Any]
"""Takes the plain value and the path of its field; returns the value or raises `Invalid`."""

V = TypeVar("V", int, float)

_SCALARS: Mapping[type, str] = {str: "a string", int: "an integer", bool: "true or false", bytes: "bytes"}


class Value:
    """Base of values that cross a border as plain maps."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """The value as maps, lists and scalars only, with every field."""
        return {name: _plain(getattr(self, name)) for name in _names(type(self))}

    @classmethod
    def from_dict(cls, data: Any, path: str = "") -> Self:
        """The inverse of `to_dict`; raises `Invalid` that names the field, below `path` if given."""
        if not isinstance(data, Mapping):
            raise Invalid(f"{path or cls.__name__} must be a map, not {_kind(data)}")
        values: dict[str, Any] = {}
        for name, decode, is_required in _decoders(cls):
            field = f"{path}.{name}" if path else name
            if name in data:
                values[name] = decode(data[name], field)
            elif is_required:
                raise Invalid(f"{field} is missing from {cls.__name__}")
        return cls(**values)


def refuse_unknown(cls: type[Value], data: Mapping[str, Any], what: str) -> None:
    """Raise `Invalid` for a key that `cls` does not have: for what people type, not for peers' messages."""
    known = _names(cls)
    for key in data:
        if key not in known:
            raise Invalid(f"{what} has no field {key!r}{did_you_mean(str(key), known)}")


def check_range(value: V, low: V, high: V, field: str) -> V:
    """Return `value`, or raise `Invalid` that names the field and the range."""
    if low <= value <= high:
        return value
    raise Invalid(f"{field} is {value}, which is out of range: use {low} to {high}")


def check_unique(names: Iterable[Any], field: str) -> None:
    """Raise `Invalid` if a name occurs twice."""
    seen = set()
    for name in names:
        if name in seen:
            raise Invalid(f"{field} has {name!r} twice: remove one")
        seen.add(name)


_names_of: dict[type[Value], tuple[str, ...]] = {}
_decoders_of: dict[type[Value], tuple[tuple[str, Decoder, bool], ...]] = {}


def _names(cls: type[Value]) -> tuple[str, ...]:
    if cls not in _names_of:
        _names_of[cls] = tuple(field.name for field in dataclasses.fields(cls))  # type: ignore[arg-type]
    return _names_of[cls]


def _decoders(cls: type[Value]) -> tuple[tuple[str, Decoder, bool], ...]:
    if cls not in _decoders_of:
        _decoders_of[cls] = _make_decoders(cls)
    return _decoders_of[cls]


def _make_decoders(cls: type[Value]) -> tuple[tuple[str, Decoder, bool], ...]:
    hints = get_type_hints(cls)
    return tuple(
        (
            field.name,
            _decoder(hints[field.name]),
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
    )


def _decoder(hint: Any) -> Decoder:
    if hint is Any:
        return lambda data, field: data
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _optional(_decoder(inner))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _list_of(_decoder(arguments[0]), tuple)
    if origin is tuple:
        return _record_of(tuple(_decoder(argument) for argument in arguments))
    if origin is frozenset:
        return _list_of(_decoder(arguments[0]), frozenset)
    if origin is not None and issubclass(origin, Mapping):
        return _map_of(_decoder(arguments[1]))
    if issubclass(hint, Value):
        return lambda data, field: hint.from_dict(data, field)
    if issubclass(hint, enum.Enum):
        return _enum(hint)
    return _float if hint is float else _scalar(hint)


def _scalar(kind: type) -> Decoder:
    def decode(data: Any, field: str) -> Any:
        if type(data) is not kind:
            raise Invalid(f"{field} must be {_SCALARS[kind]}, not {_kind(data)}")
        return data

    return decode


def _float(data: Any, field: str) -> float:
    if type(data) not in (int, float) or data != data:
        raise Invalid(f"{field} must be a number, not {_kind(data)}")
    return float(data)


def _enum(kind: type[enum.Enum]) -> Decoder:
    def decode(data: Any, field: str) -> Any:
        try:
            return kind(data)
        except ValueError:
            allowed = ", ".join(str(member.value) for member in kind)
            raise Invalid(f"{field} is {data!r}: use one of {allowed}") from None

    return decode


def _optional(inner: Decoder) -> Decoder:
    return lambda data, field: None if data is None else inner(data, field)


def _list_of(inner: Decoder, make: Callable[[Iterable[Any]], Any]) -> Decoder:
    def decode(data: Any, field: str) -> Any:
        if not isinstance(data, (list, tuple)):
            raise Invalid(f"{field} must be a list, not {_kind(data)}")
        return make(inner(item, f"{field}[{index}]") for index, item in enumerate(data))

    return decode


def _record_of(parts: tuple[Decoder, ...]) -> Decoder:
    def decode(data: Any, field: str) -> Any:
        if not isinstance(data, (list, tuple)) or len(data) != len(parts):
            raise Invalid(f"{field} must be a list of {len(parts)}, not {_kind(data)}")
        return tuple(
            part(item, f"{field}[{index}]")
            for index, (part, item) in enumerate(zip(parts, data, strict=True))
        )

    return decode


def _map_of(inner: Decoder) -> Decoder:
    def decode(data: Any, field: str) -> Any:
        if not isinstance(data, Mapping):
            raise Invalid(f"{field} must be a map, not {_kind(data)}")
        key = _scalar(str)
        return {
            key(name, f"a key of {field}"): inner(value, f"{field}.{name}") for name, value in data.items()
        }

    return decode


def _plain(value: Any) -> Any:
    if isinstance(value, Value):
        return value.to_dict()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value


def _kind(data: Any) -> str:
    if data is None:
        return "nothing"
    return f"{type(data).__name__} {data!r}"[:60]
