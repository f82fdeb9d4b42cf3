"""The shim as a component, written around its core module for one guest.

The shim's core module (node/capabilities/http/shim) exports functions by the names of WASI's interfaces.
Here it gets exactly the interfaces that the guest imports, with the types that the guest's own binary gives
them: one core module serves every version of WASI 0.2, and wasmtime checks each signature when it compiles
the whole. A function that the shim lacks becomes a trap under its own name.

      memory  --->  core  <---  stubs
     (allocator,  (semantics)   (traps)
    destructors)      |
                      v
        lifted functions, exported as instances
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from lattice import wit
from node.engine.binary import Reader, sections
from node.engine.bridge import unversioned
from node.engine.canonical import CoreSignature, core_signature
from node.engine.carriage import is_carried
from node.engine.component_text import NAMED, Scope, definition, function_type, quote, used_resources
from node.engine.naming import borrowed_types, naming_component, plain_types

HOST_INTERFACE = "lattice:shim/host"
HOST_FUNCTION = wit.Function((("question", wit.STRING),), wit.STRING)

CONTROL = "lattice:shim/control"
_RESOURCE_OPERATIONS = {"new": "resource.new", "rep": "resource.rep", "drop": "resource.drop"}
_LIFT = "(memory $memory) (realloc $realloc) string-encoding=utf8"

_IMPORT_SECTION, _EXPORT_SECTION = 2, 7
_FUNCTION, _TABLE, _MEMORY, _GLOBAL = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShimCore:
    """The two halves of the shim, and what the core module asks for and offers."""

    module: bytes
    memory_text: str
    resources: Mapping[str, frozenset[str]]
    """By what the core module does with them (`new`, `rep`, `drop`): names like `wasi:http/types#fields`."""
    functions: frozenset[str]
    """`wasi:http/types#[method]fields.get` and so on."""
    inside: bytes
    """The core module as it goes into a guest's component: it keeps handles in memory.wat's table."""


def read_core(module: bytes, inside: bytes, memory_text: str) -> ShimCore:
    """Look at what the core module imports and exports."""
    resources: dict[str, set[str]] = {operation: set() for operation in _RESOURCE_OPERATIONS}
    functions: set[str] = set()
    for part in sections(memoryview(module)):
        reader = Reader(part.body, part.offset)
        if part.id == _IMPORT_SECTION:
            for _ in range(reader.u32()):
                origin, name = reader.name(), reader.name()
                _skip_import(reader)
                if origin in resources:
                    resources[origin].add(name)
        elif part.id == _EXPORT_SECTION:
            for _ in range(reader.u32()):
                name, kind = reader.name(), reader.byte()
                reader.u32()
                if kind == _FUNCTION:
                    functions.add(name)
    return ShimCore(
        module=module,
        memory_text=memory_text,
        resources={operation: frozenset(names) for operation, names in resources.items()},
        functions=frozenset(functions),
        inside=inside,
    )


def _skip_import(reader: Reader) -> None:
    """Pass over a description; the shim imports functions and its memory only."""
    kind = reader.byte()
    if kind == _FUNCTION:
        reader.u32()
    elif kind == _MEMORY:
        has_maximum = reader.byte() & 1
        for _ in range(1 + has_maximum):
            reader.u32()
    else:
        raise reader.malformed(f"the shim imports something of kind {kind}")


STAND_IN = "stand-in"
"""The one function of each interface that `types_text` writes."""


def types_text(symbol: str, interfaces: Mapping[str, wit.Interface]) -> str:
    """A component that exports the types of carried interfaces, and for all functions one that traps."""
    stand_in = {STAND_IN: wit.Function((), None)}
    imports = {name: replace(item, functions=stand_in) for name, item in interfaces.items()}
    return _Types(imports).text(symbol)


def shim_text(core: ShimCore, imports: Mapping[str, wit.Interface]) -> str:
    """The component with an empty component in place of its core module, which is to be put in."""
    return _Shim(core, imports).text()


class _Interfaces(ABC):
    """Writes a component that exports carried interfaces; whence their functions come is told below it."""

    # The mutable state is the text so far and the symbols of resource types, by their unversioned names.

    def __init__(self, imports: Mapping[str, wit.Interface]) -> None:
        self._interfaces = {name: item for name, item in imports.items() if is_carried(name)}
        self._scope = Scope("s")
        self._lines: list[str] = []
        self._types: dict[str, str] = {}
        self._exported: dict[str, str] = {}
        self._named: dict[wit.Type, tuple[str, str]] = {}

    def _write(self, line: str) -> None:
        self._lines.append(line)

    def _define_resources(self, names: Iterable[str], destructor: str = "") -> None:
        """Of equal versions one."""
        for name in sorted(names):
            symbol = self._types[name] = self._scope.symbol()
            self._write(f"(type {symbol} (resource (rep i32) {destructor}))")

    def _resource_names(self) -> set[str]:
        return {
            unversioned(f"{item.name}#{name}")
            for item in self._interfaces.values()
            for name in item.resources
        }

    @abstractmethod
    def _lift(self, interface: str, name: str, function: wit.Function, scope: Scope) -> str:
        """The symbol of an interface's function."""

    def _export(self, interface: wit.Interface) -> None:
        scope = Scope("l", resources=self._symbols(interface))
        lifted = [self._lift(interface.name, name, item, scope) for name, item in interface.functions.items()]
        naming = self._scope.symbol()
        borrowed = borrowed_types(interface)
        self._write(naming_component(naming, interface, list(scope.resources), borrowed))
        given = [
            f'(with "resource-{i}" (type {symbol}))' for i, symbol in enumerate(scope.resources.values())
        ]
        for index, type_ in enumerate(borrowed):
            scope.name_type(type_, self._exported_type(type_))
            given.append(f'(with "borrowed-{index}" (type {scope.types[type_]}))')
        for index, type_ in enumerate(plain_types(interface).values()):
            symbol = self._scope.symbol()
            self._write(f"(type {symbol} {definition(type_, scope)})")
            given.append(f'(with "type-{index}" (type {symbol}))')
        given += [f'(with "func-{i}" (func {symbol}))' for i, symbol in enumerate(lifted)]
        instance, exported = self._scope.symbol(), self._scope.symbol()
        self._write(f"(instance {instance} (instantiate {naming} {' '.join(given)}))")
        self._write(f"(export {exported} {quote(interface.name)} (instance {instance}))")
        self._exported[unversioned(interface.name)] = exported
        for name, type_ in plain_types(interface).items():
            if isinstance(type_, NAMED):
                self._named.setdefault(type_, (exported, name))

    def _exported_type(self, type_: wit.Type) -> str:
        """A symbol for a type that an interface exported before has named."""
        symbol = self._scope.symbol()
        if type_ in self._named:
            instance, name = self._named[type_]
            self._write(f"(alias export {instance} {quote(name)} (type {symbol}))")
        else:
            self._write(f"(type {symbol} {definition(type_, self._scope)})")
        return symbol

    def _symbols(self, interface: wit.Interface) -> dict[str, str]:
        """The resources that an interface defines or uses, by their qualified names."""
        own = [f"{interface.name}#{name}" for name in interface.resources]
        return {name: self._types[unversioned(name)] for name in (*own, *used_resources(interface))}


class _Types(_Interfaces):
    """Writes the types only."""

    def text(self, symbol: str) -> str:
        self._define_resources(self._resource_names())
        self._write('(core module $traps (func (export "trap") unreachable))')
        self._write("(core instance $trap (instantiate $traps))")
        self._write('(func $stand-in (canon lift (core func $trap "trap")))')
        for interface in self._interfaces.values():
            self._export(interface)
        return "\n    ".join([f"(component {symbol}", *self._lines]) + ")"

    def _lift(self, interface: str, name: str, function: wit.Function, scope: Scope) -> str:
        return "$stand-in"


class _Shim(_Interfaces):
    """Writes the text: host, memory, resources, core module, stubs, interfaces."""

    def __init__(self, core: ShimCore, imports: Mapping[str, wit.Interface]) -> None:
        super().__init__(imports)
        self._core = core

    def text(self) -> str:
        self._write_host()
        self._write_memory()
        self._write_resources()
        self._write_core()
        self._write_stubs()
        for interface in self._interfaces.values():
            self._export(interface)
        self._export_control()
        return "\n  ".join(["(component", *self._lines]) + ")"

    def _write_host(self) -> None:
        ask = f'(export "ask" (func {function_type(HOST_FUNCTION, Scope("h"))}))'
        self._write(f"(import {quote(HOST_INTERFACE)} (instance $host {ask}))")
        self._write('(alias export $host "ask" (func $ask))')

    def _write_memory(self) -> None:
        text = self._core.memory_text
        self._write(
            text[text.index("(module") :].replace("(module", "(core module $memory-module", 1).rstrip()
        )
        self._write("(core instance $allocator (instantiate $memory-module))")
        self._write('(alias core export $allocator "memory" (core memory $memory))')
        for name in ("realloc", "done", "done-i32", "dropped"):
            self._write(f'(alias core export $allocator "{name}" (core func ${name}))')

    def _write_resources(self) -> None:
        """Every resource that the core module knows or the guest does."""
        names = self._resource_names().union(*self._core.resources.values())
        self._define_resources(names, "(dtor (core func $dropped))")

    def _write_core(self) -> None:
        given = [
            '(with "env" (instance (export "memory" (memory $memory))))',
            '(with "memory" (instance $allocator))',
        ]
        self._write(f"(core func $host-ask (canon lower (func $ask) {_LIFT}))")
        given.append('(with "host" (instance (export "ask" (func $host-ask))))')
        for operation, names in self._core.resources.items():
            exports = [self._resource_operation(operation, name) for name in sorted(names)]
            given.append(f'(with "{operation}" (instance {" ".join(exports)}))')
        self._write("(core module $core-module)")
        self._write(f"(core instance $core (instantiate $core-module {' '.join(given)}))")

    def _resource_operation(self, operation: str, name: str) -> str:
        symbol = self._scope.symbol()
        canon = _RESOURCE_OPERATIONS[operation]
        self._write(f"(core func {symbol} (canon {canon} {self._types[name]}))")
        return f"(export {quote(name)} (func {symbol}))"

    def _write_stubs(self) -> None:
        functions = {
            unversioned(f"{item.name}#{name}"): core_signature(function)
            for item in self._interfaces.values()
            for name, function in item.functions.items()
        }
        missing = [(name, item) for name, item in functions.items() if name not in self._core.functions]
        if not missing:
            return  # an instance less to make for every request
        stubs = "\n    ".join(_stub(name, signature) for name, signature in missing)
        self._write(f"(core module $stubs-module\n    {stubs})")
        self._write("(core instance $stubs (instantiate $stubs-module))")

    def _lift(self, interface: str, name: str, function: wit.Function, scope: Scope) -> str:
        symbol = self._scope.symbol()
        core_name = unversioned(f"{interface}#{name}")
        origin = "$core" if core_name in self._core.functions else "$stubs"
        options = f"{_LIFT} {_post_return(function)}" if _has_lists(function) else "(memory $memory)"
        type_ = function_type(function, scope)
        self._write(f"(func {symbol} {type_} (canon lift (core func {origin} {quote(core_name)}) {options}))")
        return symbol

    def _export_control(self) -> None:
        types = self._exported["wasi:http/types"]
        self._write(f'(alias export {types} "incoming-request" (type $request))')
        self._write(f'(alias export {types} "response-outparam" (type $outparam))')
        begin = '(param "request" string) (result (tuple (own $request) (own $outparam)))'
        self._write(f'(func $begin {begin} (canon lift (core func $core "{CONTROL}#begin") {_LIFT}))')
        forget = f'(post-return (core func $core "{CONTROL}#forget"))'
        self._write(
            f'(func $end (result string) (canon lift (core func $core "{CONTROL}#end") {_LIFT} {forget}))'
        )
        self._write('(export "begin" (func $begin))')
        self._write('(export "end" (func $end))')


def _stub(name: str, signature: CoreSignature) -> str:
    params = f"(param {' '.join(signature.params)})" if signature.params else ""
    result = "i32" if signature.area_bytes else signature.result
    shown = f"(result {result})" if result else ""
    return f"(func (export {quote(name)}) {params} {shown} unreachable)"


def _has_lists(function: wit.Function) -> bool:
    parts = (part for type_ in wit.function_types(function) for part in wit.walk(type_))
    return any(isinstance(part, wit.List) or part == wit.STRING for part in parts)


def _post_return(function: wit.Function) -> str:
    signature = core_signature(function)
    result = "i32" if signature.area_bytes else signature.result
    return {None: "(post-return $done)", "i32": "(post-return $done-i32)"}.get(result, "")
