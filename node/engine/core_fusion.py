"""Several core modules made one: it has all that they have, and imports what none of them exports.

Each instance costs time when a sandbox is made, and so does each function that one imports of another. In one
module, imports become plain calls. Its indexes begin with what comes from outside; each module's own follow.
The module with the most code has memory 0, so that its accesses stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lattice.errors import Invalid
from node.engine import core_module as core
from node.engine.binary import MODULE_HEADER, Reader, number, section
from node.engine.component_items import CORE_FUNC, CORE_GLOBAL, CORE_MEMORY, CORE_TABLE
from node.engine.core_module import CoreModule, DataSegment, ElementSegment
from node.engine.instructions import Indexes, rewrite, rewrite_body

_GLOBAL_GET, _REF_FUNC = 0x23, 0xD2
_FUNCTION_NAMES = 1
_START_TYPE = b"\x60\x00\x00"


@dataclass(frozen=True, slots=True)
class Inner:
    """What another of the modules exports."""

    module: int
    name: str


@dataclass(frozen=True, slots=True)
class Outer:
    """What comes from outside, by its number; the fused module imports it under that from ``."""

    number: int


Origin = Inner | Outer
Origins = Mapping[tuple[str, str], Origin]
"""Where a module's imports come from, by module and name."""


def fuse(
    modules: Sequence[CoreModule],
    origins: Sequence[Origins],
    exported: Collection[Inner],
) -> bytes:
    """The one module, with the `exported` under `export_name`.

    Modules may import only of those before them. Raises `Invalid` for what can't be rewritten.
    """
    return _Fusion(modules, origins).encode(exported)


def export_name(item: Inner) -> str:
    """Of what a module exports, in the fused one."""
    return f"{item.module} {item.name}"


class _Fusion:
    """The mutable state is what the fused module has so far, and what the modules' indexes have become."""

    def __init__(self, modules: Sequence[CoreModule], origins: Sequence[Origins]) -> None:
        self._modules = modules
        self._origins = origins
        self._types: dict[bytes, int] = {}
        self._outer: dict[int, core.CoreImport] = {}
        self._outer_places: dict[int, int] = {}
        self._place_outer()
        self._counts = {sort: self._count_outer(sort) for sort in core.SORTS}
        self._definitions = {sort: self._place_definitions(sort) for sort in core.SORTS}
        self._maps: list[dict[str, list[int]]] = []
        for index in range(len(modules)):
            self._maps.append({sort: self._map(index, sort) for sort in core.SORTS})
        self._extra_bodies: list[tuple[int, bytes]] = []
        self._check_starts()

    # Indexes

    def _place_outer(self) -> None:
        """Types that imports have, and the number of each import within its sort."""
        counts: dict[str, int] = dict.fromkeys(core.SORTS, 0)
        for module, origins in zip(self._modules, self._origins, strict=True):
            for item in module.imports:
                origin = origins[item.module, item.name]
                if not isinstance(origin, Outer) or origin.number in self._outer:
                    continue
                description = item.description
                if item.sort == CORE_FUNC:
                    description = number(self._type(module.types[Reader(memoryview(description)).u32()]))
                self._outer[origin.number] = core.CoreImport("", str(origin.number), item.sort, description)
                self._outer_places[origin.number] = counts[item.sort]
                counts[item.sort] += 1

    def _count_outer(self, sort: str) -> int:
        return sum(item.sort == sort for item in self._outer.values())

    def _type(self, encoded: bytes) -> int:
        return self._types.setdefault(encoded, len(self._types))

    def _order(self, sort: str) -> list[int]:
        """In which the modules' own items of a sort follow each other."""
        indexes = range(len(self._modules))
        if sort == CORE_MEMORY:
            return sorted(indexes, key=lambda index: -self._modules[index].code_bytes)
        return list(indexes)

    def _place_definitions(self, sort: str) -> dict[int, int]:
        """Where those of each module begin."""
        places: dict[int, int] = {}
        for index in self._order(sort):
            places[index] = self._counts[sort]
            self._counts[sort] += len(_defined(self._modules[index], sort))
        return places

    def _map(self, index: int, sort: str) -> list[int]:
        module = self._modules[index]
        given = [self._resolve(index, item) for item in module.imported(sort)]
        first = self._definitions[sort][index]
        return given + list(range(first, first + len(_defined(module, sort))))

    def _resolve(self, index: int, item: core.CoreImport) -> int:
        origin = self._origins[index][item.module, item.name]
        if isinstance(origin, Outer):
            if self._outer[origin.number].sort != item.sort:
                raise Invalid(f"a core module imports `{item.name}` as what it is not")
            return self._outer_places[origin.number]
        return self._exported(origin, item.sort)

    def _exported(self, item: Inner, sort: str | None = None) -> int:
        found, index = self._modules[item.module].exports.get(item.name, ("", 0))
        if not found or (sort is not None and found != sort):
            raise Invalid(f"a core module imports `{item.name}`, which is not there or of another sort")
        if index >= len(self._maps[item.module][found]):
            raise Invalid("a core module exports what it does not have")
        return self._maps[item.module][found][index]

    def _indexes(self, index: int) -> Indexes:
        module, maps = self._modules[index], self._maps[index]
        before = self._modules[:index]
        elements = sum(len(other.elements) for other in before)
        data = sum(len(other.data) for other in before)
        return Indexes(
            types=[self._type(encoded) for encoded in module.types],
            functions=maps[CORE_FUNC],
            tables=maps[CORE_TABLE],
            memories=maps[CORE_MEMORY],
            globals=maps[CORE_GLOBAL],
            elements=range(elements, elements + len(module.elements)),
            data=range(data, data + len(module.data)),
        )

    # Starts

    def _check_starts(self) -> None:
        """All segments are in place before the first start: refuse what a start could notice by that."""
        for index, module in enumerate(self._modules):
            if module.start is None:
                continue
            seen = {(sort, at) for sort in (CORE_TABLE, CORE_MEMORY) for at in self._maps[index][sort]}
            if any(seen & self._filled(later) for later in range(index + 1, len(self._modules))):
                raise Invalid("a core module starts before another fills a memory or a table of its")

    def _filled(self, index: int) -> set[tuple[str, int]]:
        """Tables and memories that have something put into them when a module is instantiated."""
        module, maps = self._modules[index], self._maps[index]
        tables = (segment.table for segment in module.elements)
        memories = (segment.memory for segment in module.data)
        return {(CORE_TABLE, maps[CORE_TABLE][at]) for at in tables if at is not None} | {
            (CORE_MEMORY, maps[CORE_MEMORY][at]) for at in memories if at is not None
        }

    def _add_function(self, type_: bytes, body: bytes) -> int:
        self._extra_bodies.append((self._type(type_), body))
        return self._counts[CORE_FUNC] + len(self._extra_bodies) - 1

    # Writing

    def encode(self, exported: Collection[Inner]) -> bytes:
        indexes = [self._indexes(index) for index in range(len(self._modules))]
        bodies = [
            rewrite_body(bytes(body), of)
            for module, of in zip(self._modules, indexes, strict=True)
            for body in module.bodies
        ]
        start = self._start()
        parts = (
            (core.TYPES, list(self._types)),
            (core.IMPORTS, [_encode_import(item) for item in self._outer.values()]),
            (core.FUNCTIONS, self._function_types(indexes)),
            (core.TABLES, [table for module in self._modules for table in module.tables]),
            (core.MEMORIES, self._memories()),
            (core.GLOBALS, [item.type + item.value for item in self._globals()]),
            (core.EXPORTS, [self._export(item) for item in exported]),
        )
        code = [number(len(body)) + body for body in (*bodies, *(body for _, body in self._extra_bodies))]
        data = [_encode_data(*part) for part in self._data(indexes)]
        has_count = any(module.has_data_count for module in self._modules)
        return b"".join(
            [
                MODULE_HEADER,
                *(section(kind, _vector(items)) for kind, items in parts if items),
                b"" if start is None else section(core.START, number(start)),
                section(core.ELEMENTS, _vector(list(self._elements(indexes)))),
                section(core.DATA_COUNT, number(len(data))) if has_count else b"",
                section(core.CODE, _vector(code)),
                section(core.DATA, _vector(data)) if data or has_count else b"",
                section(core.CUSTOM, _text(b"name") + self._names()),
            ]
        )

    def _start(self) -> int | None:
        """What the modules start with, in their order."""
        starts = [
            self._maps[index][CORE_FUNC][module.start]
            for index, module in enumerate(self._modules)
            if module.start is not None
        ]
        if len(starts) < 2:
            return starts[0] if starts else None
        body = b"\x00" + b"".join(b"\x10" + number(function) for function in starts) + b"\x0b"
        return self._add_function(_START_TYPE, body)

    def _function_types(self, indexes: Sequence[Indexes]) -> list[bytes]:
        own = (
            of.types[type_]
            for module, of in zip(self._modules, indexes, strict=True)
            for type_ in module.functions
        )
        return [number(type_) for type_ in (*own, *(type_ for type_, _ in self._extra_bodies))]

    def _memories(self) -> list[bytes]:
        return [limits for index in self._order(CORE_MEMORY) for limits in self._modules[index].memories]

    def _globals(self) -> list[core.Global]:
        return [
            core.Global(item.type, self._constant(index, item.value))
            for index, module in enumerate(self._modules)
            for item in module.globals
        ]

    def _constant(self, index: int, code: bytes) -> bytes:
        """Code for a constant. What another module's global has is written out."""
        operation = code[0]
        if operation == _GLOBAL_GET:
            return self._value(index, Reader(memoryview(code[1:-1])).u32())
        if operation == _REF_FUNC:
            return rewrite(code, Indexes(functions=self._maps[index][CORE_FUNC]))
        return code

    def _value(self, index: int, place: int) -> bytes:
        given = self._modules[index].imported(CORE_GLOBAL)
        if place >= len(given):
            raise Invalid("a core module has a constant that refers to one of its own globals")
        origin = self._origins[index][given[place].module, given[place].name]
        if isinstance(origin, Outer):
            return b"\x23" + number(self._outer_places[origin.number]) + b"\x0b"
        of = self._modules[origin.module]
        place = of.exports[origin.name][1]
        before = len(of.imported(CORE_GLOBAL))
        if place < before:
            return self._value(origin.module, place)
        if of.globals[place - before].is_mutable:
            raise Invalid("a core module has a constant that refers to a variable")
        return self._constant(origin.module, of.globals[place - before].value)

    def _elements(self, indexes: Sequence[Indexes]) -> Iterator[bytes]:
        for index, (module, of) in enumerate(zip(self._modules, indexes, strict=True)):
            for segment in module.elements:
                yield self._element(index, segment, of)

    def _element(self, index: int, segment: ElementSegment, of: Indexes) -> bytes:
        has_code = segment.functions is None
        if segment.table is None:
            head = number(1 | segment.is_declarative << 1 | has_code << 2)
        else:
            head = number(2 | has_code << 2) + number(of.tables[segment.table])
            head += self._constant(index, segment.place)
        if segment.functions is not None:
            items = [number(of.functions[function]) for function in segment.functions]
        else:
            items = [self._constant(index, value) for value in segment.values]
        return head + segment.kind + _vector(items)

    def _data(self, indexes: Sequence[Indexes]) -> Iterator[tuple[DataSegment, int | None, bytes]]:
        for index, (module, of) in enumerate(zip(self._modules, indexes, strict=True)):
            for segment in module.data:
                memory = None if segment.memory is None else of.memories[segment.memory]
                place = self._constant(index, segment.place) if segment.place else b""
                yield segment, memory, place

    def _export(self, item: Inner) -> bytes:
        kind = core.SORTS.index(self._modules[item.module].exports[item.name][0])
        return _text(export_name(item).encode()) + bytes([kind]) + number(self._exported(item))

    def _names(self) -> bytes:
        names: dict[int, bytes] = {}
        for module, maps in zip(self._modules, self._maps, strict=True):
            functions = maps[CORE_FUNC]
            for index, name in module.names.items():
                if len(module.imported(CORE_FUNC)) <= index < len(functions):
                    names[functions[index]] = name
        lines = [number(index) + _text(name) for index, name in sorted(names.items())]
        part = _vector(lines)
        return bytes([_FUNCTION_NAMES]) + number(len(part)) + part


def _defined(module: CoreModule, sort: str) -> Sequence[object]:
    """What a module defines of a sort."""
    lists: dict[str, Sequence[object]] = {
        CORE_FUNC: module.functions,
        CORE_TABLE: module.tables,
        CORE_MEMORY: module.memories,
        CORE_GLOBAL: module.globals,
    }
    return lists[sort]


def _encode_import(item: core.CoreImport) -> bytes:
    kind = bytes([core.SORTS.index(item.sort)])
    return _text(item.module.encode()) + _text(item.name.encode()) + kind + item.description


def _encode_data(segment: DataSegment, memory: int | None, place: bytes) -> bytes:
    head = number(1) if memory is None else number(2) + number(memory) + place
    return head + _text(segment.data)


def _text(data: bytes | memoryview) -> bytes:
    return number(len(data)) + bytes(data)


def _vector(items: Sequence[bytes]) -> bytes:
    return number(len(items)) + b"".join(items)
