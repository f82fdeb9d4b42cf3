"""An echo component for any WIT type, and strategies for types and their values.

The component passes a `list<T>` on to a host function and gives back what that answers. A list crosses the
core code as two numbers whatever T is, so the same few instructions serve every type.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from lattice import wit

CORE = """
  (core module $memory
    (memory (export "memory") 4 1000)
    (global $next (mut i32) (i32.const 1024))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
      ;; align the next free address, take it, and grow when it lies beyond the memory
      (local.set $at (i32.and (i32.add (global.get $next) (i32.sub (local.get 2) (i32.const 1)))
                              (i32.sub (i32.const 0) (local.get 2))))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
        (then (if (i32.eq (i32.const -1) (memory.grow (i32.add (i32.const 1)
                  (i32.div_u (local.get 3) (i32.const 65536))))) (then unreachable))))
      (memory.copy (local.get $at) (local.get 0)
        (select (local.get 1) (local.get 3) (i32.lt_u (local.get 1) (local.get 3))))
      (local.get $at)))
  (core instance $memory (instantiate $memory))
  (core func $host (canon lower (func $host-echo) (memory (core memory $memory "memory"))
    (realloc (core func $memory "realloc")) ENCODING))
  (core module $main
    (import "host" "echo" (func $echo (param i32 i32 i32)))
    (func (export "echo") (param i32 i32) (result i32)
      (call $echo (local.get 0) (local.get 1) (i32.const 16)) (i32.const 16)))
  (core instance $main (instantiate $main (with "host" (instance (export "echo" (func $host))))))
"""

LIFT = '(canon lift (core func $main "echo") (memory (core memory $memory "memory")) \
(realloc (core func $memory "realloc")) ENCODING)'


def echo_wat(type_: wit.Type) -> str:
    """A component that imports `demo:echo/host` and exports `echo`, both from `list<T>` to `list<T>`."""
    writer = _Writer()
    name = writer.reference(type_)
    aliases = "\n".join(f'(alias export $host "{name[1:]}" (type {name}))' for name in writer.named)
    return f"""(component
  (import "demo:echo/host" (instance $host
    {" ".join(writer.definitions)}
    (export "echo" (func (param "a" (list {name})) (result (list {name}))))))
  {aliases}
  (alias export $host "echo" (func $host-echo))
  {CORE.replace("ENCODING", "")}
  (func (export "echo") (param "a" (list {name})) (result (list {name})) {LIFT.replace("ENCODING", "")}))"""


def string_echo_wat() -> str:
    """The same for one string in the encoding that carries bytes, as an adapter would have it."""
    encoding = "string-encoding=latin1+utf16"
    return f"""(component
  (import "demo:echo/host" (instance $host (export "echo" (func (param "a" string) (result string)))))
  (alias export $host "echo" (func $host-echo))
  {CORE.replace("ENCODING", encoding)}
  (func (export "echo") (param "a" string) (result string) {LIFT.replace("ENCODING", encoding)}))"""


class _Writer:
    """Writes types as component text; records, variants, enums and flags must have names of their own."""

    def __init__(self) -> None:
        self.definitions: list[str] = []
        self.named: list[str] = []

    def reference(self, type_: wit.Type) -> str:
        match type_:
            case wit.Primitive(name):
                return name
            case wit.List(element):
                return f"(list {self.reference(element)})"
            case wit.Option(inner):
                return f"(option {self.reference(inner)})"
            case wit.Tuple(items):
                return f"(tuple {' '.join(self.reference(item) for item in items)})"
            case wit.Result(ok, err):
                parts = [self.reference(ok)] if ok else []
                parts += [f"(error {self.reference(err)})"] if err else []
                return f"(result {' '.join(parts)})"
        return self._name(self._definition(type_))

    def _name(self, definition: str) -> str:
        name = f"$t{len(self.named)}"
        self.named.append(name)
        self.definitions.append(f"(type {name}d {definition})")
        self.definitions.append(f'(export "{name[1:]}" (type {name} (eq {name}d)))')
        return name

    def _definition(self, type_: wit.Type) -> str:
        match type_:
            case wit.Record(fields):
                parts = (f'(field "{name}" {self.reference(part)})' for name, part in fields)
                return f"(record {' '.join(parts)})"
            case wit.Variant(cases):
                parts = (f'(case "{name}"{self._payload(part)})' for name, part in cases)
                return f"(variant {' '.join(parts)})"
            case wit.Enum(cases):
                return f"(enum {' '.join(map(_quoted, cases))})"
            case wit.Flags(names):
                return f"(flags {' '.join(map(_quoted, names))})"
        raise AssertionError(type_)

    def _payload(self, type_: wit.Type | None) -> str:
        return f" {self.reference(type_)}" if type_ else ""


def _quoted(text: str) -> str:
    return f'"{text}"'


# Strategies

_LABELS = ("a", "bee", "c-three", "d", "e5")


def _labels(least: int = 1) -> st.SearchStrategy[tuple[str, ...]]:
    return st.integers(least, len(_LABELS)).map(lambda size: _LABELS[:size])


def _compound(inner: st.SearchStrategy[wit.Type]) -> st.SearchStrategy[wit.Type]:
    optional = st.none() | inner
    fields = st.lists(inner, min_size=1, max_size=4)
    cases = st.lists(optional, min_size=1, max_size=4)
    return st.one_of(
        st.builds(wit.List, inner),
        st.builds(wit.Option, inner),
        st.builds(wit.Result, optional, optional),
        st.builds(wit.Tuple, fields.map(tuple)),
        fields.map(lambda types: wit.Record(tuple(zip(_LABELS, types, strict=False)))),
        cases.map(lambda types: wit.Variant(tuple(zip(_LABELS, types, strict=False)))),
    )


def types(*more: wit.Type) -> st.SearchStrategy[wit.Type]:
    """WIT types, nested a few levels; `more` leaves may occur in them."""
    leaf = st.one_of(
        *map(st.just, more),
        st.sampled_from(wit.PRIMITIVES).map(wit.Primitive),
        _labels().map(wit.Enum),
        _labels().map(wit.Flags),
    )
    return st.recursive(leaf, _compound, max_leaves=6)


def values(type_: wit.Type) -> st.SearchStrategy[Any]:
    """Python values of a WIT type."""
    match type_:
        case wit.Primitive(name):
            return _PRIMITIVE_VALUES[name]
        case wit.BYTES:
            return st.binary(max_size=100)
        case wit.List(element):
            return st.lists(values(element), max_size=12)
        case wit.Option(inner):
            some = values(inner).map(lambda value: [value]) if wit.can_be_nil(inner) else values(inner)
            return st.none() | some
        case wit.Result(ok, err):
            return _case_values((("ok", ok), ("err", err)))
        case wit.Tuple(items):
            return st.tuples(*map(values, items)).map(list)
        case wit.Record(fields):
            return st.fixed_dictionaries({name: values(part) for name, part in fields})
        case wit.Variant(cases):
            return _case_values(cases)
        case wit.Enum(cases):
            return st.sampled_from(cases)
        case wit.Handle():
            return st.builds(object)
        case wit.Flags(names):
            return st.sets(st.sampled_from(names)).map(lambda chosen: [n for n in names if n in chosen])
    raise AssertionError(type_)


def _case_values(cases: tuple[tuple[str, wit.Type | None], ...]) -> st.SearchStrategy[Any]:
    return st.one_of([_case_value(name, part) for name, part in cases])


def _case_value(name: str, part: wit.Type | None) -> st.SearchStrategy[Any]:
    payload: st.SearchStrategy[Any] = values(part) if part else st.none()
    return payload.map(lambda value: {name: value})


_TEXT = st.characters(exclude_categories=["Cs"])

_PRIMITIVE_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "f32": st.floats(width=32),
    "f64": st.floats(),
    "char": _TEXT,
    "string": st.text(_TEXT, max_size=20),
    **{name: st.integers(low, high) for name, (low, high) in wit.INTEGER_RANGES.items()},
}


def is_same(one: Any, other: Any) -> bool:
    """Equality in which NaN equals NaN, and True is not 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other or (one != one and other != other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)
