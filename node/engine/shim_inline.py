"""Puts the shim inside a guest's own component: core module beside core module, nothing of the model between.

`node.engine.shim_compose` makes of guest and shim two components, between which wasmtime puts adapters and
tables of handles. A component that came from one build can be had cheaper: its core modules and how they are
wired stay as they are, but what it lowers of WASI becomes a core function of the shim's, through the bridge.
A sandbox then takes half the time to make, and bytes are copied at once.

      prefix    types of what is carried, allocator, handles, core of the shim, bridge
      guest     its items; imports that are carried are gone, and core functions of theirs are the bridge's
      suffix    the host's functions, the door: serve(text) = begin(text), the guest's handler, end()

In a mixed component (`node.engine.carriage`) all imports stay, for their types: only core functions change.

The prefix is written as text. The guest's items refer to each other by index, so all are written again with
new ones. Types keep theirs: that is why nothing before the guest's last item defines a type of the component.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import wasmtime

from lattice import wit
from lattice.errors import Invalid
from node.engine import binary, mixed_bridge
from node.engine import component_items as items
from node.engine.bridge import Crossing, bridge_module, crosses_as_it_is, type_number, unversioned
from node.engine.carriage import POLLABLE, Carriage
from node.engine.component_items import (
    AliasCoreExport,
    AliasExport,
    CoreExports,
    CoreInstantiate,
    Export,
    Exports,
    Import,
    Instantiate,
    Item,
    Lift,
    Lower,
    OfResource,
    Options,
    Output,
    Whole,
    extern_name,
    has_code,
    read_items,
)
from node.engine.component_text import quote
from node.engine.shim_text import (
    CONTROL,
    HOST_INTERFACE,
    STAND_IN,
    ShimCore,
    types_text,
)

_ASK_TYPE = b"\x40\x01\x08question\x73\x00\x73"
"""The type of `func(question: string) -> string`, as a component has it."""
_HOST_TYPE = b"\x42\x02\x01" + _ASK_TYPE + b"\x04\x00\x03ask\x01\x00"
"""An instance that exports a function `ask` of that type."""
_ASK_AND_WAIT = (
    (b"\x42\x07\x01" + _ASK_TYPE + b"\x04\x00\x03ask\x01\x00\x02\x03\x02\x01"),
    b"\x01\x68\x01\x01\x70\x02\x01\x40\x02\x08question\x73\x09pollables\x03\x00\x73\x04\x00\x04wait\x01\x04",
)
"""Around the index of the type `pollable`: as above, with
`wait: func(question: string, pollables: list<borrow<pollable>>) -> string` besides."""
_SERVE_TYPE = b"\x40\x01\x07request\x73\x00\x73"

_HANDLES = """(core module $handles-module
    (import "allocator" "handle-drop" (func $drop (param i32 i32)))
    {functions}
    ;; The host's functions come in last, when the component may import them.
    (type $ask (func (param i32 i32 i32)))
    (type $wait (func (param i32 i32 i32 i32 i32)))
    (table (export "host") 2 funcref)
    (func (export "ask") (param i32 i32 i32)
      (call_indirect (type $ask) (local.get 0) (local.get 1) (local.get 2) (i32.const 0)))
    (func (export "wait") (param i32 i32 i32 i32 i32)
      (call_indirect (type $wait) (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4)
        (i32.const 1))))"""

_DOOR = f"""(module
    (import "host" "ask" (func $ask (param i32 i32 i32)))
    (import "handles" "host" (table 2 funcref))
    (import "allocator" "memory" (memory 1))
    (import "core" "{CONTROL}#begin" (func $begin (param i32 i32) (result i32)))
    (import "core" "{CONTROL}#end" (func $end (result i32)))
    (import "guest" "handle" (func $handle (param i32 i32)))
    {{more}}
    (elem (i32.const 0) func $ask)
    (func (export "serve") (param i32 i32) (result i32)
      (local $pair i32)
      (local.set $pair (call $begin (local.get 0) (local.get 1)))
      (call $handle (i32.load (local.get $pair)) (i32.load offset=4 (local.get $pair)))
      {{after}}
      (call $end)))"""
_HOST_WAIT = """(import "host" "wait" (func $wait (param i32 i32 i32 i32 i32)))
    (elem (i32.const 1) func $wait)"""
_AFTER_HANDLE = '(import "guest" "after" (func $after))'


def inline(
    guest: bytes,
    carriage: Carriage,
    handler: str,
    core: ShimCore,
    door: tuple[str, str],
) -> bytes:
    """The guest's component with the shim in it, which exports `door`: an interface and its function.

    `handler` is the export that it replaces. Raises `Invalid` for what was put together of several components
    or is otherwise not as tools make it; whether the result is valid only the compiler can tell.
    """
    return _Inlining(read_items(guest), carriage, handler, core).encode(door)


@dataclass(slots=True)
class _Place:
    """Where the parts of the prefix are, by their names."""

    core_instances: dict[str, int] = field(default_factory=dict)
    interfaces: dict[str, int] = field(default_factory=dict)


class _Inlining:
    """Writes the component: prefix, guest, suffix."""

    # The mutable state is the output, what the guest's indexes have become, and the bridges made so far.

    def __init__(self, guest: list[Item], carriage: Carriage, handler: str, core: ShimCore) -> None:
        self._guest = guest
        self._carriage = carriage
        self._replaces = {} if carriage.is_mixed else carriage.carried
        self._handler = handler
        self._core = core
        if any(isinstance(item, Whole) and item.sort == items.COMPONENT and has_code(item) for item in guest):
            raise Invalid("it is composed of components that have code of their own")
        self._defined = _definitions(guest)
        self._crossings = self._find_crossings()
        self._output = Output()
        self._place = _Place()
        self._indexes: defaultdict[str, list[int]] = defaultdict(list)
        self._bridges: dict[tuple[int | None, int | None], int] = {}
        self._droppers: dict[str, int] = {}

    def encode(self, door: tuple[str, str]) -> bytes:
        self._write_prefix()
        for item in self._guest:
            self._write(item)
        self._write_suffix(*door)
        return self._output.encode()

    # What the guest takes of WASI

    def _find_crossings(self) -> dict[tuple[int | None, int | None], dict[str, Crossing]]:
        """The functions that it lowers, by the memory and the allocator that it lowers them with."""
        found: defaultdict[tuple[int | None, int | None], dict[str, Crossing]] = defaultdict(dict)
        for item in self._guest:
            crossing = self._crossing(item) if isinstance(item, Lower) else None
            if crossing is None or not isinstance(item, Lower):
                continue
            if not crosses_as_it_is(crossing.function) or crossing.name not in self._core.functions:
                found[_bridge_key(item.options)][crossing.name] = crossing
        return dict(found)

    def _crossing(self, item: Lower) -> Crossing | None:
        """What is lowered, if the shim carries it."""
        alias = self._defined[items.FUNC][item.function]
        if not isinstance(alias, AliasExport) or not (interface := self._interface(alias.instance)):
            return None
        function = interface.functions[alias.name]
        if not self._carriage.serves(interface.name, alias.name, function):
            return None
        if item.options.get(items.UTF16) is not None or item.options.get(items.LATIN1_UTF16) is not None:
            raise Invalid("its texts are not UTF-8")
        return Crossing(
            name=unversioned(f"{interface.name}#{alias.name}"),
            function=function,
            is_shared=self._carriage.is_shared(interface.name, alias.name, function),
        )

    def _interface(self, instance: int) -> wit.Interface | None:
        """The interface of an imported instance."""
        origin = self._defined[items.INSTANCE][instance]
        return self._carriage.find(origin.name) if isinstance(origin, Import) else None

    def _resource(self, type_: int) -> str | None:
        """The name of a resource type, if the shim carries it."""
        alias = self._defined[items.TYPE][type_]
        if not isinstance(alias, AliasExport) or not (interface := self._interface(alias.instance)):
            return None
        used = interface.types.get(alias.name)
        name = used.resource if isinstance(used, wit.Handle) else f"{interface.name}#{alias.name}"
        owner, _, resource = name.partition("#")
        found = self._carriage.carried.get(owner)
        return unversioned(name) if found and resource in found.resources else None

    # Prefix

    def _write_prefix(self) -> None:
        text = bytes(wasmtime.wat2wasm(self._prefix_text()))
        modules = iter((self._core.inside,))
        names = iter(("allocator", "handles", "env", "core"))
        for item in read_items(text):
            if (
                isinstance(item, Whole)
                and item.sort == items.CORE_MODULE
                and binary.is_empty(memoryview(item.body))
            ):
                item = Whole(binary.CORE_MODULE, next(modules), items.CORE_MODULE)
            index = self._output.add(item)
            if isinstance(item, CoreInstantiate | CoreExports):
                self._place.core_instances[next(names)] = index
            if isinstance(item, AliasExport) and item.sort == items.INSTANCE:
                self._place.interfaces[item.name] = index

    def _prefix_text(self) -> str:
        memory = self._core.memory_text
        if self._carriage.is_mixed:
            memory = mixed_bridge.mark_handles(memory)
        memory = memory[memory.index("(module") :].replace("(module", "(core module $allocator-module", 1)
        parts = {"memory": "$allocator", "host": "$handles", "env": "$env"}
        given = " ".join(f'(with "{name}" (instance {symbol}))' for name, symbol in parts.items())
        allocator = '(with "allocator" (instance $allocator))'
        types = []
        if self._replaces:
            types = [
                types_text("$types-component", self._replaces),
                "(instance $types (instantiate $types-component))",
                *(f'(alias export $types "{name}" (instance))' for name in self._replaces),
            ]
        return "\n  ".join(
            [
                "(component",
                *types,
                memory.rstrip(),
                "(core instance $allocator (instantiate $allocator-module))",
                self._handles_text(),
                f"(core instance $handles (instantiate $handles-module {allocator}))",
                '(core instance $env (export "memory" (memory $allocator "memory")))',
                "(core module $core-module)",
                f"(core instance $core (instantiate $core-module {given})))",
            ]
        )

    def _handles_text(self) -> str:
        """A function for each type of which the guest drops handles."""
        dropped = (self._resource(item.type) for item in self._guest if isinstance(item, OfResource))
        lines = [
            f"(func (export {quote(f'drop {name}')}) (param i32) "
            f"(call $drop (local.get 0) (i32.const {type_number(name)})))"
            for name in sorted({name for name in dropped if name})
        ]
        return _HANDLES.format(functions="\n    ".join(lines))

    # The guest

    def _renumber(self, sort: str, index: int) -> int:
        return index if sort in (items.TYPE, items.CORE_TYPE) else self._indexes[sort][index]

    def _write(self, item: Item) -> None:
        if isinstance(item, Import) and item.name in self._replaces:
            self._indexes[items.INSTANCE].append(self._place.interfaces[item.name])
            return
        if isinstance(item, Export) and item.name == self._handler:
            self._indexes[item.sort].append(self._renumber(item.sort, item.index))
            return
        replaced = self._replaced(item)
        index = self._output.add(item, self._renumber) if replaced is None else self._output.add(replaced)
        count = item.count if isinstance(item, Whole) else 1
        self._indexes[item.defines] += range(index, index + count)

    def _replaced(self, item: Item) -> Item | None:
        """What stands in an item's place when it has to do with what is carried."""
        match item:
            case AliasExport(items.FUNC, instance, _) if self._is_replaced(instance):
                return AliasExport(items.FUNC, self._renumber(items.INSTANCE, instance), STAND_IN)
            case Lower() if crossing := self._crossing(item):
                return AliasCoreExport(items.CORE_FUNC, self._provider(item, crossing), crossing.name)
            case OfResource(operation, type_) if resource := self._resource(type_):
                if operation != items.RESOURCE_DROP:
                    raise Invalid(f"it makes handles of `{resource}`, which is not its own")
                return AliasCoreExport(items.CORE_FUNC, self._dropper(resource), f"drop {resource}")
        return None

    def _is_replaced(self, instance: int) -> bool:
        interface = self._interface(instance)
        return interface is not None and interface.name in self._replaces

    def _dropper(self, resource: str) -> int:
        """The core instance that drops handles of a type; one that looks first where both sides have such."""
        if not self._carriage.is_mixed or not resource.startswith("wasi:io/"):
            return self._place.core_instances["handles"]
        if resource not in self._droppers:
            self._write_droppers(resource)
        return self._droppers[resource]

    def _write_droppers(self, needed: str) -> None:
        """One core instance for `needed` and all other types that the guest has named so far."""
        known = {name: type_ for name, type_ in self._shared_types().items() if name not in self._droppers}
        if needed not in known:
            raise Invalid(f"it drops handles of `{needed}` before it names that type")
        theirs = [
            (name, items.CORE_FUNC, self._output.add(OfResource(items.RESOURCE_DROP, type_)))
            for name, type_ in known.items()
        ]
        given = [("handles", self._place.core_instances["handles"])]
        given.append(("host", self._output.add(CoreExports(tuple(theirs)))))
        module = self._add_module(mixed_bridge.droppers_module(known))
        instance = self._output.add(CoreInstantiate(module, tuple(given)))
        self._droppers |= dict.fromkeys(known, instance)

    def _shared_types(self) -> dict[str, int]:
        """The first index of each type of `wasi:io` of which handles are dropped, among those written."""
        dropped = {self._resource(item.type) for item in self._guest if isinstance(item, OfResource)}
        found: dict[str, int] = {}
        for type_ in range(self._output.count(items.TYPE)):
            name = self._resource(type_)
            if name is not None and name in dropped and name.startswith("wasi:io/"):
                found.setdefault(name, type_)
        return found

    def _provider(self, item: Lower, crossing: Crossing) -> int:
        """The core instance that has a function: the shim's core, or a bridge to it, made when needed."""
        key = _bridge_key(item.options)
        if crossing.name not in self._crossings.get(key, {}):
            return self._place.core_instances["core"]
        if key not in self._bridges:
            self._bridges[key] = self._write_bridge(*key)
        return self._bridges[key]

    def _write_bridge(self, memory: int | None, realloc: int | None) -> int:
        crossings = list(self._crossings[memory, realloc].values())
        text = bridge_module(
            crossings,
            self._core.functions,
            has_memory=memory is not None,
            has_realloc=realloc is not None,
            flushes=self._carriage.has_sockets,
        )
        given = [(name, self._place.core_instances[name]) for name in ("allocator", "core")]
        if memory is not None:
            of_guest = [("memory", items.CORE_MEMORY, self._renumber(items.CORE_MEMORY, memory))]
            if realloc is not None:
                of_guest.append(("realloc", items.CORE_FUNC, self._renumber(items.CORE_FUNC, realloc)))
            given.append(("guest", self._output.add(CoreExports(tuple(of_guest)))))
        shared = [crossing.name for crossing in crossings if crossing.is_shared]
        if names := dict.fromkeys(name for item in shared for name in mixed_bridge.host_functions(item)):
            of_host = [(name, items.CORE_FUNC, self._lower_of_host(name, memory, realloc)) for name in names]
            given.append(("host", self._output.add(CoreExports(tuple(of_host)))))
        module = self._add_module(text)
        return self._output.add(CoreInstantiate(module, tuple(given)))

    def _lower_of_host(self, name: str, memory: int | None, realloc: int | None) -> int:
        """The host's function as the guest lowers it, or over the shim's memory."""
        inner = mixed_bridge.inner_name(name)
        instance, function = self._imported(inner or name)
        options = self._shim_options() if inner else self._guest_options(memory, realloc)
        alias = self._output.add(AliasExport(items.FUNC, instance, function))
        return self._output.add(Lower(alias, Options(options)))

    def _imported(self, name: str) -> tuple[int, str]:
        """A function that has been imported, by its unversioned name: its instance and its own name."""
        owner, _, function = name.partition("#")
        indexes = self._indexes[items.INSTANCE]
        for item, index in zip(self._defined[items.INSTANCE], indexes, strict=False):
            if not isinstance(item, Import) or unversioned(item.name) != owner:
                continue
            if function in self._carriage.functions(item.name):
                return index, function
        raise Invalid(f"it does not import `{name}`, which it needs between its streams and the host's")

    def _guest_options(self, memory: int | None, realloc: int | None) -> tuple[tuple[int, int], ...]:
        """With the guest's memory and allocator, by the indexes that it has for them."""
        options = []
        if memory is not None:
            options += [(items.UTF8, 0), (items.MEMORY, self._renumber(items.CORE_MEMORY, memory))]
        if realloc is not None:
            options.append((items.REALLOC, self._renumber(items.CORE_FUNC, realloc)))
        return tuple(options)

    def _shim_options(self) -> tuple[tuple[int, int], ...]:
        allocator = self._place.core_instances["allocator"]
        memory = self._output.add(AliasCoreExport(items.CORE_MEMORY, allocator, "memory"))
        realloc = self._output.add(AliasCoreExport(items.CORE_FUNC, allocator, "realloc"))
        return ((items.UTF8, 0), (items.MEMORY, memory), (items.REALLOC, realloc))

    def _add_module(self, text: str) -> int:
        module = bytes(wasmtime.wat2wasm(text))
        return self._output.add(Whole(binary.CORE_MODULE, module, items.CORE_MODULE))

    # Suffix

    def _write_suffix(self, interface: str, function: str) -> None:
        handle, after = self._handle()
        output, instances = self._output, self._place.core_instances
        forget = output.add(AliasCoreExport(items.CORE_FUNC, instances["core"], f"{CONTROL}#forget"))
        options = self._shim_options()
        of_host = self._lower_host(options)
        guest = [("handle", items.CORE_FUNC, handle)]
        guest += [("after", items.CORE_FUNC, after)] if after is not None else []
        of_guest = output.add(CoreExports(tuple(guest)))
        more, call = (_AFTER_HANDLE, "(call $after)") if after is not None else ("", "")
        more += _HOST_WAIT if self._carriage.has_polls else ""
        module = self._add_module(_DOOR.format(more=more, after=call))
        given = [(name, instances[name]) for name in ("handles", "allocator", "core")]
        door = output.add(CoreInstantiate(module, (*given, ("host", of_host), ("guest", of_guest))))
        serve = output.add(AliasCoreExport(items.CORE_FUNC, door, "serve"))
        type_ = output.add(_type(_SERVE_TYPE))
        lifted = output.add(Lift(serve, Options((*options, (items.POST_RETURN, forget))), type_))
        exported = output.add(Exports(((extern_name(function), items.FUNC, lifted),)))
        output.add(Export(interface, extern_name(interface), items.INSTANCE, exported, b"\x00"))

    def _lower_host(self, options: tuple[tuple[int, int], ...]) -> int:
        """A core instance of the host's own functions."""
        host = self._output.add(self._host_import())
        names = ("ask", "wait") if self._carriage.has_polls else ("ask",)
        lowered = []
        for name in names:
            function = self._output.add(AliasExport(items.FUNC, host, name))
            lowered.append((name, items.CORE_FUNC, self._output.add(Lower(function, Options(options)))))
        return self._output.add(CoreExports(tuple(lowered)))

    def _host_import(self) -> Import:
        encoded = _HOST_TYPE
        if self._carriage.has_polls:
            encoded = binary.number(self._pollable()).join(_ASK_AND_WAIT)
        type_ = self._output.add(_type(encoded))
        description = b"\x05" + binary.number(type_)
        return Import(HOST_INTERFACE, extern_name(HOST_INTERFACE), items.INSTANCE, description)

    def _pollable(self) -> int:
        """The first index of the type `pollable`."""
        for type_ in range(len(self._defined[items.TYPE])):
            if self._resource(type_) == POLLABLE:
                return type_
        raise Invalid("it polls but names no type `pollable`")

    def _handle(self) -> tuple[int, int | None]:
        """The core function that handles requests, and the one that is to be called after it, if any."""
        exported = next(
            (item for item in self._guest if isinstance(item, Export) and item.name == self._handler), None
        )
        instance = self._defined[items.INSTANCE][exported.index] if exported else None
        if isinstance(instance, Instantiate):
            given = [index for _, sort, index in instance.arguments if sort == items.FUNC]
        elif isinstance(instance, Exports):
            given = [index for _, sort, index in instance.exports if sort == items.FUNC]
        else:
            given = []
        lift = self._defined[items.FUNC][given[0]] if len(given) == 1 else None
        if not isinstance(lift, Lift):
            raise Invalid("its handler of requests is not a core function of its own")
        after = lift.options.get(items.POST_RETURN)
        return (
            self._renumber(items.CORE_FUNC, lift.function),
            None if after is None else self._renumber(items.CORE_FUNC, after),
        )


def _definitions(guest: list[Item]) -> Mapping[str, list[Item]]:
    """For each sort the items that define its indexes."""
    found: defaultdict[str, list[Item]] = defaultdict(list)
    for item in guest:
        found[item.defines] += [item] * (item.count if isinstance(item, Whole) else 1)
    return found


def _bridge_key(options: Options) -> tuple[int | None, int | None]:
    return options.get(items.MEMORY), options.get(items.REALLOC)


def _type(encoded: bytes) -> Whole:
    return Whole(items.TYPES, b"\x01" + encoded, items.TYPE)
