"""Puts components into one another: an outer component is written as text, real binaries are put in last.

What a part needs is given to it by name, from another part or from the outer component's own imports, which
are written anew from the parts' descriptions. The outer component costs nothing at run time: instances of
components are resolved when it is compiled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import wasmtime

from lattice import wit
from lattice.errors import Invalid
from node.engine import binary
from node.engine.component_text import (
    NAMED,
    Scope,
    definition,
    function_type,
    instance_type,
    quote,
    resource_symbol,
    used_resources,
)
from node.engine.naming import borrowed_types, naming_component, plain_types


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A component and what it imports and exports."""

    binary: bytes
    type: wit.ComponentType


class Reference(NamedTuple):
    """Something in the outer component; as text, e.g. `(instance $x1)`."""

    sort: str
    symbol: str

    def __str__(self) -> str:
        return f"({self.sort} {self.symbol})"


class Composition:
    """An outer component under construction."""

    # The mutable state is the text so far, its symbols, and the binaries in the order of their placeholders.

    def __init__(self) -> None:
        self.scope = Scope("x")
        self._lines: list[str] = []
        self._binaries: list[bytes] = []
        self._provided: set[str] = set()
        self._named_types: dict[wit.Type, tuple[str, str]] = {}

    def write(self, line: str) -> None:
        """Add text as it is."""
        self._lines.append(line)

    def import_interface(self, interface: wit.Interface) -> dict[str, Reference]:
        """Import an interface from the host, or what the world itself imports: references by name."""
        self._refuse_provided(interface)
        if interface.name == wit.WORLD:
            return self._import_world(interface)
        symbol = self.scope.symbol()
        body = instance_type(interface, self.scope.resources, self._known_type)
        self.write(f"(import {quote(interface.name)} (instance {symbol}\n      {body}))")
        self._learn_resources(interface, symbol)
        for name, type_ in interface.types.items():
            if any(isinstance(part, NAMED) for part in wit.walk(type_)):
                self._named_types.setdefault(type_, (symbol, name))
        return {interface.name: Reference("instance", symbol)}

    def _known_type(self, type_: wit.Type) -> str | None:
        """A symbol for a type that an interface imported before has named."""
        known = self._named_types.get(type_)
        return None if known is None else self.alias(*known, "type")

    def _refuse_provided(self, interface: wit.Interface) -> None:
        used = {type_.resource for type_ in interface.types.values() if isinstance(type_, wit.Handle)}
        for resource in sorted(used & self._provided):
            raise Invalid(f"import `{interface.name}` needs `{resource}`, which another part provides")

    def _import_world(self, interface: wit.Interface) -> dict[str, Reference]:
        references = {}
        for name in interface.resources:
            symbol = self.scope.resources[f"{wit.WORLD}#{name}"] = self.scope.symbol()
            self.write(f"(import {quote(name)} (type {symbol} (sub resource)))")
            references[name] = Reference("type", symbol)
        for name, type_ in interface.types.items():
            references[name] = Reference("type", self._import_type(name, type_))
        for name, function in interface.functions.items():
            symbol = self.scope.symbol()
            self.write(f"(import {quote(name)} (func {symbol} {function_type(function, self.scope)}))")
            references[name] = Reference("func", symbol)
        return references

    def _import_type(self, name: str, type_: wit.Type) -> str:
        symbol = self.scope.symbol()
        if isinstance(type_, wit.Handle):
            self.write(f"(import {quote(name)} (type {symbol} (eq {self.scope.resources[type_.resource]})))")
            return symbol
        inner = self.define_type(type_)
        self.write(f"(import {quote(name)} (type {symbol} (eq {inner})))")
        self.scope.name_type(type_, symbol)
        return symbol

    def define_type(self, type_: wit.Type, scope: Scope | None = None) -> str:
        """Write the type out under a new symbol."""
        symbol = self.scope.symbol()
        self.write(f"(type {symbol} {definition(type_, scope or self.scope)})")
        return symbol

    def _learn_resources(self, interface: wit.Interface, instance: str) -> None:
        for name in interface.resources:
            symbol = self.scope.resources[f"{interface.name}#{name}"] = self.scope.symbol()
            self.write(f"(alias export {instance} {quote(name)} (type {symbol}))")

    def provide(self, interface: wit.Interface, instance: str, exported_as: str) -> Reference:
        """Take an interface of an instance of a part, as the importer describes it: a reference to it."""
        symbol = self.alias(instance, exported_as, "instance")
        self._learn_resources(interface, symbol)
        self._provided |= {f"{interface.name}#{name}" for name in interface.resources}
        return Reference("instance", symbol)

    def instantiate(self, component: bytes, arguments: Mapping[str, Reference]) -> str:
        """Put a component in and give it what it imports: the symbol of its instance."""
        self._binaries.append(component)
        placeholder = self.scope.symbol()
        self.write(f"(component {placeholder})")
        return self.instantiate_symbol(placeholder, arguments)

    def instantiate_symbol(self, component: str, arguments: Mapping[str, Reference]) -> str:
        """An instance of a component that is written as text."""
        symbol = self.scope.symbol()
        given = "".join(f"\n      (with {quote(name)} {reference})" for name, reference in arguments.items())
        self.write(f"(instance {symbol} (instantiate {component}{given}))")
        return symbol

    def named_instance(self, interface: wit.Interface, functions: Mapping[str, str]) -> str:
        """An instance of the interface made of these functions, by name, with all its types: its symbol."""
        own = (f"{interface.name}#{name}" for name in interface.resources)
        resources = [*own, *used_resources(interface)]
        borrowed = borrowed_types(interface)
        naming = self.scope.symbol()
        self.write(naming_component(naming, interface, resources, borrowed))
        arguments = {
            f"resource-{index}": Reference("type", resource_symbol(name, self.scope))
            for index, name in enumerate(resources)
        }
        for kind, types in (("borrowed", borrowed), ("type", plain_types(interface).values())):
            for index, type_ in enumerate(types):
                arguments[f"{kind}-{index}"] = Reference("type", self.define_type(type_))
        for index, name in enumerate(interface.functions):
            arguments[f"func-{index}"] = Reference("func", functions[name])
        return self.instantiate_symbol(naming, arguments)

    def alias(self, instance: str, name: str, sort: str) -> str:
        """A symbol for an export of an instance."""
        symbol = self.scope.symbol()
        self.write(f"(alias export {instance} {quote(name)} ({sort} {symbol}))")
        return symbol

    def export_interface(self, interface: wit.Interface, instance: str) -> None:
        """Export an interface of an instance of a part, or what belongs to its world, as it is."""
        if interface.name != wit.WORLD:
            symbol = self.alias(instance, interface.name, "instance")
            self.write(f"(export {quote(interface.name)} (instance {symbol}))")
            return
        for name in (*interface.resources, *interface.types):
            self.export_type(name, interface.types.get(name), self.alias(instance, name, "type"))
        for name, function in interface.functions.items():
            self.export_function(name, function, self.alias(instance, name, "func"))

    def export_type(self, name: str, type_: wit.Type | None, symbol: str) -> None:
        """Export a type from the outer world; functions exported later refer to it by that name."""
        exported = self.scope.symbol()
        self.write(f"(export {exported} {quote(name)} (type {symbol}))")
        if type_ is None:
            self.scope.resources[f"{wit.WORLD}#{name}"] = exported
        else:
            self.scope.name_type(type_, exported)

    def export_function(self, name: str, function: wit.Function, symbol: str) -> None:
        """Export a function from the outer world, whose types an import or an exported type names."""
        for part in (part for type_ in wit.function_types(function) for part in wit.walk(type_)):
            if part not in self.scope.types and (known := self._known_type(part)):
                self.scope.name_type(part, known)
        type_ = function_type(function, self.scope)
        self.write(f"(export {quote(name)} (func {symbol}) (func {type_}))")

    def encode(self) -> bytes:
        """The outer component as a binary; it is not validated."""
        text = "\n  ".join(["(component", *self._lines]) + ")"
        return binary.splice(bytes(wasmtime.wat2wasm(text)), self._binaries)


def plug(guest: Part, plugs: Sequence[Part]) -> bytes:
    """Give the guest what the plugs export; all other imports and the guest's exports pass through.

    Interfaces match when their names do and their versions are compatible. Raises `Invalid` when an import
    that stays outside needs a resource that a plug provides.
    """
    outer = Composition()
    available = {compatible_name(name) for part in plugs for name in part.type.exports}
    outside = {
        name: item for name, item in guest.type.imports.items() if compatible_name(name) not in available
    }
    wanted = _union([*(part.type.imports for part in plugs), outside])
    passed: dict[str, Reference] = {}
    providers: dict[str, tuple[str, str]] = {}
    for part in plugs:
        _import_all(outer, part.type.imports, wanted, passed)
        instance = outer.instantiate(part.binary, _arguments(part.type.imports, passed))
        providers |= {compatible_name(name): (instance, name) for name in part.type.exports}
    for name, interface in guest.type.imports.items():
        if name not in outside:
            passed[name] = outer.provide(interface, *providers[compatible_name(name)])
    _import_all(outer, outside, wanted, passed)
    instance = outer.instantiate(guest.binary, _arguments(guest.type.imports, passed))
    for interface in guest.type.exports.values():
        outer.export_interface(interface, instance)
    return outer.encode()


def _union(imports: Sequence[Mapping[str, wit.Interface]]) -> dict[str, wit.Interface]:
    """Each interface with all that any part imports of it."""
    union: dict[str, wit.Interface] = {}
    for name, interface in (item for group in imports for item in group.items()):
        known = union.get(name, interface)
        union[name] = replace(
            interface,
            functions={**known.functions, **interface.functions},
            types={**known.types, **interface.types},
            resources=tuple(dict.fromkeys((*known.resources, *interface.resources))),
        )
    return union


def _import_all(
    outer: Composition,
    imports: Mapping[str, wit.Interface],
    wanted: Mapping[str, wit.Interface],
    passed: dict[str, Reference],
) -> None:
    """Import from the host what has not been imported yet; `passed` gathers references by name."""
    for name in imports:
        if not all(item in passed for item in _argument_names(wanted[name])):
            passed |= outer.import_interface(wanted[name])


def _arguments(imports: Mapping[str, wit.Interface], passed: Mapping[str, Reference]) -> dict[str, Reference]:
    return {name: passed[name] for interface in imports.values() for name in _argument_names(interface)}


def _argument_names(interface: wit.Interface) -> tuple[str, ...]:
    """The names under which an import is given to a component: the world's own ones are given one by one."""
    if interface.name != wit.WORLD:
        return (interface.name,)
    return (*interface.resources, *interface.types, *interface.functions)


def compatible_name(interface: str) -> str:
    """The name with what must be equal of its version: the linker's rule for semantic versions."""
    name, at, version = interface.partition("@")
    if not at or "-" in version or "+" in version:
        return interface
    major, minor, patch = (*version.split("."), "", "")[:3]
    if major != "0":
        return f"{name}@{major}"
    return f"{name}@0.{minor}" if minor != "0" else f"{name}@0.0.{patch}"
