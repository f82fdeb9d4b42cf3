"""Binds a component's imports to Python functions, once per component.

Names match as wasmtime's linker matches them: exactly, or by semver. What is missing is found here, before
anything runs.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lattice import wit
from lattice.errors import Denied
from node.engine import callbacks
from node.engine.compiled import CompiledComponent
from node.engine.converter import Converter
from node.engine.host import DropFunction, HostFunction, HostInterface
from node.engine.store import Store

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(-[^+]+)?(\+.*)?")
_resource_numbers = itertools.count(1)


def compatible_name(name: str) -> str:
    """What compatible versions of a name share: `wasi:io/poll@0.2.3` gives `wasi:io/poll@0.2`."""
    path, _, version = name.partition("@")
    match = _VERSION.fullmatch(version)
    if not match or match[4]:
        return name
    major, minor, patch = match[1], match[2], match[3]
    if major != "0":
        return f"{path}@{major}"
    return f"{path}@0.{minor}" if minor != "0" else f"{path}@0.0.{patch}"


@dataclass(frozen=True, slots=True, eq=False)
class BoundFunction:
    """A host function behind one import."""

    name: str
    function: HostFunction
    converter: Converter
    has_channels: bool = False

    def lift(self, address: int, store: Store) -> tuple[Any, ...]:
        """Called while the guest's fiber is on the stack: it only copies."""
        return self.converter.lift_arguments(address, store.owner.reader)


@dataclass(frozen=True, slots=True, eq=False)
class BoundResource:
    """A host's resource type: its number is what makes handles of it equal across interfaces."""

    name: str
    number: int
    drop: DropFunction


class Bindings:
    """All that one component imports, bound to the host; every instance of it shares this."""

    def __init__(self, engine: int, compiled: CompiledComponent, interfaces: Sequence[HostInterface]) -> None:
        """Raises `Denied` naming the imports that nothing provides."""
        self._compiled = compiled
        self._offers = _Offers(interfaces)
        self.resources: dict[int, BoundResource] = {}
        self._check()
        self._define_resources()
        self._linker = callbacks.Linker(engine)
        try:
            for interface in compiled.linked_type.imports.values():
                self._define(interface)
        except BaseException:
            self._linker.close()
            raise

    @property
    def linker(self) -> int:
        return self._linker.pointer

    def close(self) -> None:
        """Free the linker; no instance may be running or starting."""
        self._linker.close()

    def _check(self) -> None:
        missing = [
            line
            for interface in self._compiled.linked_type.imports.values()
            for line in self._offers.missing(interface)
        ]
        if missing:
            raise Denied(
                f"the component imports {'; '.join(missing)}: link it to a component or provider that does",
                details={"imports": missing},
            )

    def _define_resources(self) -> None:
        self._by_owner: dict[tuple[str, str], BoundResource] = {}
        for interface in self._compiled.linked_type.imports.values():
            offer = self._offers.find(interface.name)
            for name in interface.resources:
                assert offer
                key = (compatible_name(interface.name), name)
                if key not in self._by_owner:
                    number = next(_resource_numbers)
                    bound = BoundResource(f"{interface.name}#{name}", number, offer.resources[name])
                    self._by_owner[key] = self.resources[number] = bound

    def _resource(self, handle: str) -> BoundResource | None:
        interface, _, name = handle.rpartition("#")
        return self._by_owner.get((compatible_name(interface), name))

    def numbers(self, functions: Mapping[str, wit.Function]) -> dict[str, int]:
        """The numbers of the host's resource types that occur in these functions, by `interface#name`."""
        handles = {
            part.resource
            for function in functions.values()
            for type_ in wit.function_types(function)
            for part in wit.walk(type_)
            if isinstance(part, wit.Handle)
        }
        found = ((handle, self._resource(handle)) for handle in handles)
        return {handle: bound.number for handle, bound in found if bound}

    def _define(self, interface: wit.Interface) -> None:
        offer = self._offers.find(interface.name)
        assert offer or not interface.functions
        is_adapted = interface.name in self._compiled.adapted_imports
        numbers = self.numbers(interface.functions)
        functions: dict[str, callbacks.HostBinding] = {
            name: BoundFunction(
                f"{interface.name}#{name}",
                offer.functions[name] if offer else _unoffered,
                Converter(function, is_adapted=is_adapted and wit.carries_bytes(function), resources=numbers),
                # Of another type, its arguments are no texts, which the driver could not know.
                offer is not None and name in offer.channelled and _is_of_texts(function),
            )
            for name, function in interface.functions.items()
        }
        place = None if interface.name == wit.WORLD else interface.name
        self._linker.define(place, functions, self._types(interface))

    def _types(self, interface: wit.Interface) -> dict[str, tuple[int, Any]]:
        """The resource types that an interface names: its own, and those that it uses of others."""
        bound = {name: self._resource(f"{interface.name}#{name}") for name in interface.resources}
        for name, type_ in interface.types.items():
            if isinstance(type_, wit.Handle):
                bound[name] = self._resource(type_.resource)
        return {name: (resource.number, resource) for name, resource in bound.items() if resource}


def _is_of_texts(function: wit.Function) -> bool:
    return [type_ for _, type_ in function.params] == [wit.STRING] and function.result == wit.STRING


def _unoffered(*_: Any) -> None:
    raise AssertionError("an interface without functions has none to call")


class _Offers:
    """The host's interfaces by name; of several compatible versions the highest serves."""

    def __init__(self, interfaces: Sequence[HostInterface]) -> None:
        self._exact = {interface.name: interface for interface in interfaces}
        ordered = sorted(interfaces, key=lambda interface: _version_key(interface.name))
        self._compatible = {compatible_name(interface.name): interface for interface in ordered}

    def find(self, name: str) -> HostInterface | None:
        return self._exact.get(name) or self._compatible.get(compatible_name(name))

    def missing(self, interface: wit.Interface) -> list[str]:
        """What of an import is not offered, each as a line for people."""
        offer = self.find(interface.name)
        shown = "the world's" if interface.name == wit.WORLD else f"`{interface.name}`"
        if offer is None:
            is_empty = not interface.functions and not interface.resources
            return [] if is_empty else [f"{shown}, which nothing provides"]
        lines = [
            f"{shown} with `{wit.function_text(name, function)}`, which `{offer.name}` does not have"
            for name, function in interface.functions.items()
            if name not in offer.functions
        ]
        return lines + [
            f"{shown} with the resource `{name}`, which `{offer.name}` does not have"
            for name in interface.resources
            if name not in offer.resources
        ]


def _version_key(name: str) -> tuple[int, ...]:
    match = _VERSION.fullmatch(name.partition("@")[2])
    return tuple(int(match[index]) for index in (1, 2, 3)) if match else (0, 0, 0)
