"""The byte adapter: carries every `list<u8>` across the component's border as a latin-1 string.

A host converts a `list<u8>` value by value, but a string in one copy. In memory both are a pointer and a
length, and a string in the encoding `latin1+utf16` whose characters are all below 256 is its bytes. So an
outer component can lift what the guest's author calls `list<u8>` as a `string`: between a lift with the one
type and a lower with the other, its core functions only hand on their parameters, over one memory of the
adapter's. A real string crosses the same way, as the bytes of its UTF-8: towards the guest the encoding is
utf8, so the guest gets it in one piece, and is never asked to reallocate, which some guests refuse.

That memory is a bump allocator. Before the guest runs, an export's arguments have been copied out of it;
before the guest goes on, so have an import's results. What else must last, the place where a result is
written, has a fixed address, one for exports and one for imports, as neither nests in itself. So every
return resets it.

                host    string, latin1+utf16          list<u8>, utf8    guest
      export -> lift (adapted type) -> core function -> lower (original type) -> guest's export
      import <- lower (adapted type) <- core function <- lift (original type) <- guest's import
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from lattice import wit
from node.engine.canonical import CoreSignature, align, core_signature
from node.engine.component_text import Scope, definition, function_type, quote
from node.engine.compose import Composition, Reference
from node.engine.forwarding import MEMORY_FUNCTIONS, forwarding_module, memory_module, reset_function

ADAPTER_VERSION = 2
"""Part of the cache key: to be raised with every change of what is generated here."""

_IMPORT_AREA = 16
_OF_HOST = "(memory $memory) (realloc $realloc) string-encoding=latin1+utf16"
_OF_GUEST = "(memory $memory) (realloc $realloc) string-encoding=utf8"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterPlan:
    """Of a component's type, the interfaces that the adapter changes."""

    type: wit.ComponentType
    imports: frozenset[str] = field(default_factory=frozenset)
    exports: frozenset[str] = field(default_factory=frozenset)

    @property
    def is_empty(self) -> bool:
        return not self.imports and not self.exports


def plan(type_: wit.ComponentType) -> AdapterPlan:
    """Adapt each interface that carries bytes, has no resources, and is not WASI's."""
    return AdapterPlan(
        type=type_,
        imports=frozenset(name for name, item in type_.imports.items() if _is_adaptable(item)),
        exports=frozenset(name for name, item in type_.exports.items() if _is_adaptable(item)),
    )


def candidates(plan: AdapterPlan) -> list[AdapterPlan]:
    """The plan, then lesser ones to fall back to where it doesn't fit, the best first."""
    found = [plan, replace(plan, exports=frozenset()), replace(plan, imports=frozenset())]
    return [item for index, item in enumerate(found) if not item.is_empty and item not in found[:index]]


def _is_adaptable(interface: wit.Interface) -> bool:
    used = [part for item in interface.functions.values() for part in wit.function_types(item)]
    types = [*used, *interface.types.values()]
    is_foreign = interface.name.startswith("wasi:") or bool(interface.resources)
    has_bytes = any(map(wit.contains_bytes, types))
    return has_bytes and not is_foreign and not any(map(wit.contains_handle, types))


def adapted_type(type_: wit.Type) -> wit.Type:
    """The type as the host sees it: `string` for every `list<u8>`."""
    match type_:
        case wit.BYTES:
            return wit.STRING
        case wit.List(element):
            return wit.List(adapted_type(element))
        case wit.Option(inner):
            return wit.Option(adapted_type(inner))
        case wit.Result(ok, err):
            return wit.Result(_optional(ok), _optional(err))
        case wit.Tuple(items):
            return wit.Tuple(tuple(map(adapted_type, items)))
        case wit.Record(fields):
            return wit.Record(tuple((name, adapted_type(part)) for name, part in fields))
        case wit.Variant(cases):
            return wit.Variant(tuple((name, _optional(part)) for name, part in cases))
    return type_


def _optional(type_: wit.Type | None) -> wit.Type | None:
    return None if type_ is None else adapted_type(type_)


def _adapted_function(function: wit.Function) -> wit.Function:
    params = tuple((name, adapted_type(type_)) for name, type_ in function.params)
    return wit.Function(params, _optional(function.result))


def adapted_interface(interface: wit.Interface) -> wit.Interface:
    """The interface as the host sees it."""
    return replace(
        interface,
        functions={name: _adapted_function(item) for name, item in interface.functions.items()},
        types={name: adapted_type(item) for name, item in interface.types.items()},
    )


def adapt(component: bytes, plan: AdapterPlan) -> bytes:
    """The component inside its adapter; imports and exports that the plan doesn't name pass through."""
    return _Adapter(component, plan).encode()


class _Adapter:
    """Writes the outer component: imports, import side, guest, export side, exports."""

    def __init__(self, component: bytes, plan: AdapterPlan) -> None:
        self._component = component
        self._plan = plan
        self._outer = Composition()

    def encode(self) -> bytes:
        self._write_memory()
        guest = self._outer.instantiate(self._component, self._arguments())
        exports = self._plan.type.exports
        forwarded = {name: item for name, item in exports.items() if name in self._plan.exports}
        crossings = self._exported(guest, forwarded)
        lifted = self._forward("exports", self._export_area(), crossings, _OF_GUEST, _OF_HOST)
        for name, interface in exports.items():
            if name in forwarded:
                self._export(adapted_interface(interface), lifted[name])
            else:
                self._outer.export_interface(interface, guest)
        return self._outer.encode()

    def _write_memory(self) -> None:
        exports = _signatures(self._plan.type.exports, self._plan.exports)
        end = self._export_area() + max((item.area_bytes for item in exports), default=0)
        self._outer.write(memory_module("$memory-module", end))
        self._outer.write("(core instance $memory-instance (instantiate $memory-module))")
        self._outer.write('(alias core export $memory-instance "memory" (core memory $memory))')
        for name in MEMORY_FUNCTIONS:
            self._outer.write(f'(alias core export $memory-instance "{name}" (core func ${name}))')

    def _export_area(self) -> int:
        imports = _signatures(self._plan.type.imports, self._plan.imports)
        return align(_IMPORT_AREA + max((item.area_bytes for item in imports), default=0), 16)

    def _arguments(self) -> dict[str, Reference]:
        """Import everything from the host: what the guest is given, by name."""
        arguments: dict[str, Reference] = {}
        forwarded: dict[str, dict[str, _Crossing]] = {}
        for name, interface in self._plan.type.imports.items():
            if name in self._plan.imports:
                forwarded[name] = self._imported(interface)
            else:
                arguments |= self._outer.import_interface(interface)
        lifted = self._forward("imports", _IMPORT_AREA, forwarded, _OF_HOST, _OF_GUEST)
        for name, functions in lifted.items():
            arguments |= self._instance_for_guest(self._plan.type.imports[name], functions)
        return arguments

    def _imported(self, interface: wit.Interface) -> dict[str, _Crossing]:
        adapted = adapted_interface(interface)
        references = self._outer.import_interface(adapted)
        return {
            name: _Crossing(
                symbol=self._outer.function_of(interface, name, references),
                lowered=adapted.functions[name],
                lifted=item,
            )
            for name, item in interface.functions.items()
        }

    def _exported(
        self, guest: str, interfaces: Mapping[str, wit.Interface]
    ) -> dict[str, dict[str, _Crossing]]:
        crossings = {}
        for name, interface in interfaces.items():
            instance = guest if name == wit.WORLD else self._outer.alias(guest, name, "instance")
            crossings[name] = {
                function: _Crossing(
                    symbol=self._outer.alias(instance, function, "func"),
                    lowered=item,
                    lifted=_adapted_function(item),
                )
                for function, item in interface.functions.items()
            }
        return crossings

    def _forward(
        self,
        side: str,
        area: int,
        interfaces: Mapping[str, Mapping[str, _Crossing]],
        lower_options: str,
        lift_options: str,
    ) -> dict[str, dict[str, str]]:
        """Lower each function, hand it through core code, lift it again: the lifted functions' symbols."""
        crossings = [item for functions in interfaces.values() for item in functions.values()]
        if not crossings:
            return {name: {} for name in interfaces}
        lowered = [self._lower(item, lower_options) for item in crossings]
        signatures = [core_signature(item.lowered) for item in crossings]
        self._outer.write(forwarding_module(f"${side}-module", signatures, area))
        given = " ".join(f'(export "{index}" (func {symbol}))' for index, symbol in enumerate(lowered))
        instance = f'(instantiate ${side}-module (with "lowered" (instance {given})))'
        self._outer.write(f"(core instance ${side} {instance})")
        lifted = iter([self._lift(f'${side} "{i}"', item, lift_options) for i, item in enumerate(crossings)])
        return {name: {item: next(lifted) for item in functions} for name, functions in interfaces.items()}

    def _lower(self, crossing: _Crossing, options: str) -> str:
        symbol = self._outer.scope.symbol()
        self._outer.write(f"(core func {symbol} (canon lower (func {crossing.symbol}) {options}))")
        return symbol

    def _lift(self, core_function: str, crossing: _Crossing, options: str) -> str:
        symbol = self._outer.scope.symbol()
        reset = f"(post-return ${reset_function(core_signature(crossing.lifted))})"
        type_ = function_type(crossing.lifted, Scope("unnamed"))
        lift = f"(canon lift (core func {core_function}) {options} {reset})"
        self._outer.write(f"(func {symbol} {type_} {lift})")
        return symbol

    def _instance_for_guest(
        self, interface: wit.Interface, functions: Mapping[str, str]
    ) -> dict[str, Reference]:
        """What the guest imports: an instance, or for the world each function and type by itself."""
        items = {
            name: Reference("type", self._outer.define_type(item)) for name, item in interface.types.items()
        }
        items |= {name: Reference("func", symbol) for name, symbol in functions.items()}
        if interface.name == wit.WORLD:
            return items
        symbol = self._outer.scope.symbol()
        exports = " ".join(f"(export {quote(name)} {item})" for name, item in items.items())
        self._outer.write(f"(instance {symbol} {exports})")
        return {interface.name: Reference("instance", symbol)}

    def _export(self, interface: wit.Interface, functions: Mapping[str, str]) -> None:
        if interface.name == wit.WORLD:
            for name, type_ in interface.types.items():
                self._outer.export_type(name, type_, self._outer.define_type(type_))
            for name, function in interface.functions.items():
                self._outer.export_function(name, function, functions[name])
            return
        naming = self._outer.scope.symbol()
        self._outer.write(_naming_component(naming, interface))
        arguments = {f"func-{name}": Reference("func", symbol) for name, symbol in functions.items()}
        for name, type_ in interface.types.items():
            arguments[f"type-{name}"] = Reference("type", self._outer.define_type(type_))
        instance = self._outer.instantiate_symbol(naming, arguments)
        self._outer.write(f"(export {quote(interface.name)} (instance {instance}))")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Crossing:
    """A function on its way through the adapter."""

    symbol: str
    """The component function that is lowered, of the guest's or of the host's."""
    lowered: wit.Function
    lifted: wit.Function


def _signatures(interfaces: Mapping[str, wit.Interface], names: Iterable[str]) -> list[CoreSignature]:
    """A string and a byte list look the same to core code, so either type will do."""
    return [core_signature(item) for name in names for item in interfaces[name].functions.values()]


def _naming_component(symbol: str, interface: wit.Interface) -> str:
    """A component that hands its imports on as exports, under the names that the interface gives its types.

    An exported function may only use types that are exported too, and only a component's exports make names.
    """
    imported, exported = Scope("i"), Scope("e")
    imports, exports = [], []
    for name, type_ in interface.types.items():
        inner, outer = imported.symbol(), imported.symbol()
        imports.append(f"(type {inner} {definition(type_, imported)})")
        imports.append(f"(import {quote(f'type-{name}')} (type {outer} (eq {inner})))")
        imported.name_type(type_, outer)
        inner, outer = exported.symbol(), exported.symbol()
        exports.append(f"(type {inner} {definition(type_, exported)})")
        exports.append(f"(export {outer} {quote(name)} (type {inner}))")
        exported.name_type(type_, outer)
    for name, function in interface.functions.items():
        func = imported.symbol()
        imports.append(f"(import {quote(f'func-{name}')} (func {func} {function_type(function, imported)}))")
        exports.append(f"(export {quote(name)} (func {func}) (func {function_type(function, exported)}))")
    body = "\n    ".join(imports + exports)
    return f"(component {symbol}\n    {body})"
