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

Functions without bytes go past the adapter. What passes through it may hold handles: the host's resource
types are the guest's, and the core functions hand handles on as numbers. Those that were lent are given back
before the guest goes on.

                host    string, latin1+utf16          list<u8>, utf8    guest
      export -> lift (adapted type) -> core function -> lower (original type) -> guest's export
      import <- lower (adapted type) <- core function <- lift (original type) <- guest's import
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from lattice import wit
from node.engine.borrows import borrowed_resources, release
from node.engine.canonical import CoreSignature, align, core_signature
from node.engine.component_text import Scope, function_type, quote, resource_symbol
from node.engine.compose import Composition, Reference
from node.engine.forwarding import MEMORY_FUNCTIONS, forwarding_module, memory_module, reset_function

ADAPTER_VERSION = 5
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


def plan(type_: wit.ComponentType, spared: frozenset[str] = frozenset()) -> AdapterPlan:
    """Adapt each interface that carries bytes; of the exports, not those with resources, and not WASI's.

    Of `spared` imports the component calls no function.
    """
    return AdapterPlan(
        type=type_,
        imports=frozenset(
            name for name, item in type_.imports.items() if _has_bytes(item) and name not in spared
        ),
        exports=frozenset(
            name for name, item in type_.exports.items() if _has_bytes(item) and _is_plain(item)
        ),
    )


def candidates(plan: AdapterPlan) -> list[AdapterPlan]:
    """The plan, then lesser ones to fall back to where it doesn't fit, the best first."""
    plain = frozenset(name for name in plan.imports if _is_plain(plan.type.imports[name]))
    found = [
        plan,
        replace(plan, imports=plain),
        replace(plan, exports=frozenset()),
        replace(plan, imports=plain, exports=frozenset()),
        replace(plan, imports=frozenset()),
    ]
    return [item for index, item in enumerate(found) if not item.is_empty and item not in found[:index]]


def _has_bytes(interface: wit.Interface) -> bool:
    return any(map(wit.contains_bytes, _types(interface)))


def _is_plain(interface: wit.Interface) -> bool:
    """Whether it is neither WASI's nor concerned with resources."""
    is_foreign = interface.name.startswith("wasi:") or bool(interface.resources)
    return not is_foreign and not any(map(wit.contains_handle, _types(interface)))


def _types(interface: wit.Interface) -> list[wit.Type]:
    used = [part for item in interface.functions.values() for part in wit.function_types(item)]
    return [*used, *interface.types.values()]


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
        lifted = self._exported(guest, forwarded)
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
        imported: dict[str, dict[str, Reference]] = {}
        crossings: dict[str, dict[str, _Crossing]] = {}
        for name, interface in self._plan.type.imports.items():
            if name in self._plan.imports:
                imported[name] = self._imported(interface)
                crossings[name] = _crossings(interface, imported[name])
            else:
                arguments |= self._outer.import_interface(interface)
        lifted = self._forward("imports", _IMPORT_AREA, crossings, _OF_HOST, _OF_GUEST)
        for name, items in imported.items():
            functions = {item: Reference("func", symbol) for item, symbol in lifted[name].items()}
            arguments |= self._instance_for_guest(self._plan.type.imports[name], {**items, **functions})
        return arguments

    def _imported(self, interface: wit.Interface) -> dict[str, Reference]:
        """Import an interface as the host sees it: its functions; of the world the guest's types too."""
        references = self._outer.import_interface(adapted_interface(interface))
        if interface.name != wit.WORLD:
            instance = references[interface.name].symbol
            return {
                name: Reference("func", self._outer.alias(instance, name, "func"))
                for name in interface.functions
            }
        for name, type_ in interface.types.items():
            if wit.contains_bytes(type_):
                references[name] = Reference("type", self._outer.define_type(type_))
        return references

    def _exported(self, guest: str, interfaces: Mapping[str, wit.Interface]) -> dict[str, dict[str, str]]:
        """The functions of the guest's exports as the host sees them."""
        symbols: dict[str, dict[str, str]] = {}
        crossings = {}
        for name, interface in interfaces.items():
            instance = guest if name == wit.WORLD else self._outer.alias(guest, name, "instance")
            symbols[name] = {item: self._outer.alias(instance, item, "func") for item in interface.functions}
            crossings[name] = {
                item: _Crossing(symbol=symbols[name][item], lowered=type_, lifted=_adapted_function(type_))
                for item, type_ in interface.functions.items()
                if wit.carries_bytes(type_)
            }
        lifted = self._forward("exports", self._export_area(), crossings, _OF_GUEST, _OF_HOST)
        return {name: {**symbols[name], **lifted[name]} for name in interfaces}

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
        borrowed = tuple(
            dict.fromkeys(name for item in crossings for name in borrowed_resources(item.lifted))
        )
        drops = {name: f"$drop-{index}" for index, name in enumerate(borrowed)}
        releases = [release(item.lifted, drops) for item in crossings]
        self._outer.write(forwarding_module(f"${side}-module", signatures, area, releases, len(drops)))
        given = f'(with "lowered" {_core_instance(lowered)})'
        if drops:
            given += f' (with "drop" {_core_instance([self._drop(name) for name in drops])})'
            given += ' (with "memory" (instance (export "memory" (memory $memory))))'
        self._outer.write(f"(core instance ${side} (instantiate ${side}-module {given}))")
        lifted = iter([self._lift(f'${side} "{i}"', item, lift_options) for i, item in enumerate(crossings)])
        return {name: {item: next(lifted) for item in functions} for name, functions in interfaces.items()}

    def _drop(self, resource: str) -> str:
        symbol = self._outer.scope.symbol()
        known = resource_symbol(resource, self._outer.scope)
        self._outer.write(f"(core func {symbol} (canon resource.drop {known}))")
        return symbol

    def _lower(self, crossing: _Crossing, options: str) -> str:
        symbol = self._outer.scope.symbol()
        self._outer.write(f"(core func {symbol} (canon lower (func {crossing.symbol}) {options}))")
        return symbol

    def _lift(self, core_function: str, crossing: _Crossing, options: str) -> str:
        symbol = self._outer.scope.symbol()
        reset = f"(post-return ${reset_function(core_signature(crossing.lifted))})"
        type_ = function_type(crossing.lifted, Scope("unnamed", resources=self._outer.scope.resources))
        lift = f"(canon lift (core func {core_function}) {options} {reset})"
        self._outer.write(f"(func {symbol} {type_} {lift})")
        return symbol

    def _instance_for_guest(
        self, interface: wit.Interface, items: Mapping[str, Reference]
    ) -> dict[str, Reference]:
        """What the guest imports: an instance, or for the world each function and type by itself."""
        if interface.name == wit.WORLD:
            return dict(items)
        functions = {name: items[name].symbol for name in interface.functions}
        return {interface.name: Reference("instance", self._outer.named_instance(interface, functions))}

    def _export(self, interface: wit.Interface, functions: Mapping[str, str]) -> None:
        if interface.name == wit.WORLD:
            for name, type_ in interface.types.items():
                self._outer.export_type(name, type_, self._outer.define_type(type_))
            for name, function in interface.functions.items():
                self._outer.export_function(name, function, functions[name])
            return
        instance = self._outer.named_instance(interface, functions)
        self._outer.write(f"(export {quote(interface.name)} (instance {instance}))")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Crossing:
    """A function on its way through the adapter."""

    symbol: str
    """The component function that is lowered, of the guest's or of the host's."""
    lowered: wit.Function
    lifted: wit.Function


def _crossings(interface: wit.Interface, imported: Mapping[str, Reference]) -> dict[str, _Crossing]:
    return {
        name: _Crossing(symbol=imported[name].symbol, lowered=_adapted_function(item), lifted=item)
        for name, item in interface.functions.items()
        if wit.carries_bytes(item)
    }


def _core_instance(functions: Iterable[str]) -> str:
    exports = " ".join(f'(export "{index}" (func {symbol}))' for index, symbol in enumerate(functions))
    return f"(instance {exports})"


def _signatures(interfaces: Mapping[str, wit.Interface], names: Iterable[str]) -> list[CoreSignature]:
    """A string and a byte list look the same to core code, so either type will do."""
    return [
        core_signature(item)
        for name in names
        for item in interfaces[name].functions.values()
        if wit.carries_bytes(item)
    ]
