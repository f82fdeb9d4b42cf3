"""A component that does nothing but give names, in an outer component that is written as text.

An exported function may only use types that are exported too, a method only a resource that is called as its
own name says, and only a component's imports and exports make names.
"""

from __future__ import annotations

from collections.abc import Sequence

from lattice import wit
from node.engine.component_text import NAMED, Scope, definition, function_type, quote


def plain_types(interface: wit.Interface) -> dict[str, wit.Type]:
    """The types that it names, without those that are resources."""
    return {name: item for name, item in interface.types.items() if not isinstance(item, wit.Handle)}


def borrowed_types(interface: wit.Interface) -> list[wit.Type]:
    """Types that must have a name and that another interface gives one, the innermost first."""
    types = list(interface.types.values())
    for function in interface.functions.values():
        types += wit.function_types(function)
    own = set(plain_types(interface).values())
    parts = [part for type_ in types for part in reversed(wit.walk(type_)) if isinstance(part, NAMED)]
    return [part for part in dict.fromkeys(parts) if part not in own]


def naming_component(
    symbol: str, interface: wit.Interface, resources: Sequence[str], borrowed: Sequence[wit.Type]
) -> str:
    """Hands its imports on as exports, under the names that the interface gives its types.

    What it imports is numbered: `resource-N` of `resources`, `borrowed-N`, `type-N` of the interface's plain
    types, `func-N` of its functions.
    """
    imported, exported = Scope("i"), Scope("e")
    imports, exports = [], []
    for index, name in enumerate(resources):
        inner = imported.resources[name] = exported.resources[name] = imported.symbol()
        imports.append(f'(import "resource-{index}" (type {inner} (sub resource)))')
    for name in interface.resources:
        qualified = f"{interface.name}#{name}"
        exports.append(_exported_resource(name, qualified, exported))
    for index, type_ in enumerate(borrowed):
        inner, outer = imported.symbol(), imported.symbol()
        imports.append(f"(type {inner} {definition(type_, imported)})")
        imports.append(f'(import "borrowed-{index}" (type {outer} (eq {inner})))')
        imported.name_type(type_, outer)
        exported.name_type(type_, outer)
    named = {f"{interface.name}#{name}" for name in interface.resources}
    for name, type_ in interface.types.items():
        if isinstance(type_, wit.Handle):
            line = _exported_resource(name, type_.resource, exported, is_other_name=type_.resource in named)
            exports.append(line)
            named.add(type_.resource)
    for index, (name, type_) in enumerate(plain_types(interface).items()):
        inner, outer = imported.symbol(), imported.symbol()
        imports.append(f"(type {inner} {definition(type_, imported)})")
        imports.append(f'(import "type-{index}" (type {outer} (eq {inner})))')
        imported.name_type(type_, outer)
        inner, outer = exported.symbol(), exported.symbol()
        exports.append(f"(type {inner} {definition(type_, exported)})")
        exports.append(f"(export {outer} {quote(name)} (type {inner}))")
        exported.name_type(type_, outer)
    for index, (name, function) in enumerate(interface.functions.items()):
        func = imported.symbol()
        imports.append(f'(import "func-{index}" (func {func} {function_type(function, imported)}))')
        exports.append(f"(export {quote(name)} (func {func}) (func {function_type(function, exported)}))")
    body = "\n    ".join(imports + exports)
    return f"(component {symbol}\n    {body})"


def _exported_resource(name: str, qualified: str, scope: Scope, *, is_other_name: bool = False) -> str:
    """Functions refer to a resource by the first name that it gets, which their own names begin with."""
    outer = scope.symbol()
    line = f"(export {outer} {quote(name)} (type {scope.resources[qualified]}))"
    if not is_other_name:
        scope.resources[qualified] = outer
    return line
