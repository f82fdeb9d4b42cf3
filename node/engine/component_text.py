"""Descriptions of WIT types as component text, from which outer components are made.

In this text a record, variant, enum or flags that crosses a border must have been exported or imported under
a name there; a scope knows which symbol stands for which type. Types are compared by structure, as the
component model does, except for resources.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from lattice import wit
from lattice.errors import Invalid

NAMED = (wit.Record, wit.Variant, wit.Enum, wit.Flags)
"""Types that may cross a border of a component under a name only."""

_PLAIN = re.compile(r"[A-Za-z0-9 _:/@.#+*<>=,\[\]-]*")


@dataclass(slots=True)
class Scope:
    """Symbols of a component or instance type under construction."""

    prefix: str
    types: dict[wit.Type, str] = field(default_factory=dict)
    resources: dict[str, str] = field(default_factory=dict)
    """By qualified name, e.g. `wasi:io/poll@0.2.0#pollable`."""
    _count: int = 0

    def symbol(self) -> str:
        """A symbol that nothing else in this scope has."""
        self._count += 1
        return f"${self.prefix}{self._count}"

    def name_type(self, type_: wit.Type, symbol: str) -> None:
        """Let `symbol` stand for the type from now on; primitives stand for themselves."""
        if not isinstance(type_, wit.Primitive | wit.Handle):
            self.types[type_] = symbol


def quote(name: str) -> str:
    """A name as a string of the text format, whatever characters it has."""
    if _PLAIN.fullmatch(name):
        return f'"{name}"'
    return '"' + "".join(f"\\{byte:02x}" for byte in name.encode()) + '"'


def value_type(type_: wit.Type, scope: Scope) -> str:
    """A reference to the type: the symbol it has, or else the type written out."""
    return scope.types.get(type_) or definition(type_, scope)


def definition(type_: wit.Type, scope: Scope) -> str:
    """The type written out; the types inside it by their symbols."""
    match type_:
        case wit.Primitive(name):
            return name
        case wit.List(element):
            return f"(list {value_type(element, scope)})"
        case wit.Option(inner):
            return f"(option {value_type(inner, scope)})"
        case wit.Result(ok, err):
            error = f"(error {value_type(err, scope)})" if err else ""
            return f"(result {_optional(ok, scope)} {error})"
        case wit.Tuple(items):
            return f"(tuple {' '.join(value_type(item, scope) for item in items)})"
        case wit.Record(fields):
            return f"(record {_named('field', fields, scope)})"
        case wit.Variant(cases):
            return f"(variant {_named('case', cases, scope)})"
        case wit.Enum(names):
            return f"(enum {' '.join(map(quote, names))})"
        case wit.Flags(names):
            return f"(flags {' '.join(map(quote, names))})"
        case wit.Handle(resource, is_owned):
            return f"({'own' if is_owned else 'borrow'} {resource_symbol(resource, scope)})"


def _optional(type_: wit.Type | None, scope: Scope) -> str:
    return "" if type_ is None else value_type(type_, scope)


def _named(keyword: str, parts: tuple[tuple[str, wit.Type | None], ...], scope: Scope) -> str:
    return " ".join(f"({keyword} {quote(name)} {_optional(part, scope)})" for name, part in parts)


def resource_symbol(name: str, scope: Scope) -> str:
    """The symbol of a resource type, by its qualified name."""
    symbol = scope.resources.get(name)
    if symbol is None:
        raise Invalid(f"resource `{name}` is not known where it is used")
    return symbol


def function_type(function: wit.Function, scope: Scope) -> str:
    """The parameters and the result, as they follow `func`."""
    params = " ".join(f"(param {quote(name)} {value_type(type_, scope)})" for name, type_ in function.params)
    result = f"(result {value_type(function.result, scope)})" if function.result else ""
    return f"{params} {result}".strip()


def instance_type(
    interface: wit.Interface, resources: Mapping[str, str], known_type: Callable[[wit.Type], str | None]
) -> str:
    """The body of an instance type.

    `resources` are the symbols of the scope around it, and `known_type` gives one there for a type that
    another interface names: an interface may use a type without naming the types inside it.
    """
    scope = Scope("t")
    lines = []
    own = {f"{interface.name}#{name}" for name in interface.resources}
    for name in interface.resources:
        symbol = scope.resources[f"{interface.name}#{name}"] = scope.symbol()
        lines.append(f"(export {quote(name)} (type {symbol} (sub resource)))")
    for used in used_resources(interface):
        symbol = scope.resources[used] = scope.symbol()
        lines.append(
            f"(alias outer 1 {resource_symbol(used, Scope('', resources=dict(resources)))} (type {symbol}))"
        )
    for name, type_ in interface.types.items():
        lines += _exported_type(name, type_, scope, known_type(type_), own)
    for name, function in interface.functions.items():
        lines.append(f"(export {quote(name)} (func {function_type(function, scope)}))")
    return "\n      ".join(lines)


def used_resources(interface: wit.Interface) -> list[str]:
    """Resources of other interfaces, by qualified name, in the order of their first use."""
    own = {f"{interface.name}#{name}" for name in interface.resources}
    types = list(interface.types.values())
    for function in interface.functions.values():
        types += wit.function_types(function)
    handles = (part for type_ in types for part in wit.walk(type_) if isinstance(part, wit.Handle))
    return list(dict.fromkeys(handle.resource for handle in handles if handle.resource not in own))


def _exported_type(
    name: str, type_: wit.Type, scope: Scope, known: str | None, own: Collection[str]
) -> list[str]:
    inner, outer = scope.symbol(), scope.symbol()
    if isinstance(type_, wit.Handle):  # a resource under another name, or one of another interface
        resource = scope.resources[type_.resource]
        if type_.resource not in own:  # functions of a resource must speak of it by the name it is defined by
            scope.resources[type_.resource] = outer
        return [f"(export {quote(name)} (type {outer} (eq {resource})))"]
    text = f"(type {inner} {definition(type_, scope)})"
    if known is not None:
        text = f"(alias outer 1 {known} (type {inner}))"
    scope.name_type(type_, outer)
    return [text, f"(export {quote(name)} (type {outer} (eq {inner})))"]
