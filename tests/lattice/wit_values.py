"""Hypothesis strategies: random WIT types, and random values of a type in their one shape."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import strategies as st

from lattice import wit

words = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
primitives = st.sampled_from([wit.Primitive(name) for name in wit.PRIMITIVES])


def _names(minimum: int = 1) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(words, min_size=minimum, max_size=4, unique=True).map(tuple)


def _named(types: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[tuple[str, Any], ...]]:
    # The names come first: Hypothesis writes out what has to be drawn again, and such types are long.
    return _names().flatmap(lambda names: st.tuples(*(st.tuples(st.just(name), types) for name in names)))


def _containers(inner: st.SearchStrategy[wit.Type]) -> st.SearchStrategy[wit.Type]:
    optional = st.none() | inner
    return st.one_of(
        inner.map(wit.List),
        inner.map(wit.Option),
        st.builds(wit.Result, optional, optional),
        st.lists(inner, min_size=1, max_size=4).map(lambda items: wit.Tuple(tuple(items))),
        _named(inner).map(wit.Record),
        _named(optional).map(wit.Variant),
        _names().map(wit.Enum),
        _names().map(wit.Flags),
    )


types: st.SearchStrategy[wit.Type] = st.recursive(primitives | st.just(wit.BYTES), _containers, max_leaves=8)


def values(type_: wit.Type | None) -> st.SearchStrategy[Any]:
    """Values of the type, as the engine returns them."""
    if type_ == wit.BYTES:
        return st.binary(max_size=20)
    match type_:
        case None:
            return st.none()
        case wit.Primitive(name):
            return _primitive(name)
        case wit.List(element):
            return st.lists(values(element), max_size=4)
        case wit.Option(inner):
            wrapped = values(inner).map(lambda value: [value]) if wit.can_be_nil(inner) else values(inner)
            return st.none() | wrapped
        case wit.Result(ok, err):
            return _case("ok", ok) | _case("err", err)
        case wit.Tuple(items):
            return st.tuples(*[values(item) for item in items]).map(list)
        case wit.Record(fields):
            return st.fixed_dictionaries({name: values(part) for name, part in fields})
        case wit.Variant(cases):
            return st.one_of([_case(name, part) for name, part in cases])
        case wit.Enum(cases):
            return st.sampled_from(cases)
        case wit.Flags(names):
            return st.sets(st.sampled_from(names)).map(
                lambda chosen: [name for name in names if name in chosen]
            )
    raise AssertionError(type_)


def _case(name: str, type_: wit.Type | None) -> st.SearchStrategy[Any]:
    return values(type_).map(lambda payload: {name: payload})


def _primitive(name: str) -> st.SearchStrategy[Any]:
    if name in wit.INTEGER_RANGES:
        low, high = wit.INTEGER_RANGES[name]
        return st.integers(low, high) | st.sampled_from([low, high])
    simple: dict[str, st.SearchStrategy[Any]] = {
        "bool": st.booleans(),
        "f32": st.floats(width=32),
        "f64": st.floats(),
        "char": st.characters(exclude_categories=["Cs"]),
        "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    }
    return simple[name]


def bits(value: Any) -> Any:
    """The value with floats as their bits, so that NaN equals NaN and -0.0 differs from 0.0."""
    match value:
        case float():
            return ("nan",) if value != value else struct.pack("<d", value)
        case list():
            return [bits(item) for item in value]
        case dict():
            return {name: bits(item) for name, item in value.items()}
    return (type(value).__name__, value)


def typed_values() -> st.SearchStrategy[tuple[wit.Type, Any]]:
    """A type and a value of it."""
    return types.flatmap(lambda type_: st.tuples(st.just(type_), values(type_)))


json_data: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.just("ok"), inner, max_size=3),
    max_leaves=8,
)
