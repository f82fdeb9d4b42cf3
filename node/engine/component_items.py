"""A component's own items, read from its sections and written again with other indexes.

Every item of a component takes the next index of its sort, and later items refer to it by that index. Here
items keep the indexes that they were read with; whoever writes them says what these have become. What lies
inside core modules, nested components and definitions of types stays as it is: none of it refers to what is
renumbered here. What can't be rewritten that way is refused with `Invalid`.

https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from lattice.errors import Invalid
from node.engine import binary
from node.engine.binary import Reader, Section, number

FUNC, TYPE, COMPONENT, INSTANCE, VALUE = "func", "type", "component", "instance", "value"
CORE_FUNC, CORE_TABLE, CORE_MEMORY, CORE_GLOBAL = "core func", "core table", "core memory", "core global"
CORE_TAG, CORE_TYPE, CORE_MODULE, CORE_INSTANCE = "core tag", "core type", "core module", "core instance"

_CORE_SORTS = {
    0x00: CORE_FUNC,
    0x01: CORE_TABLE,
    0x02: CORE_MEMORY,
    0x03: CORE_GLOBAL,
    0x04: CORE_TAG,
    0x10: CORE_TYPE,
    0x11: CORE_MODULE,
    0x12: CORE_INSTANCE,
}
_SORTS = {0x01: FUNC, 0x02: VALUE, 0x03: TYPE, 0x04: COMPONENT, 0x05: INSTANCE}
_SORT_BYTES = {sort: bytes([byte]) for byte, sort in _SORTS.items()}
_CORE_BYTES = {sort: bytes([byte]) for byte, sort in _CORE_SORTS.items()}

_CORE_INSTANCES, _CORE_TYPES, _INSTANCES, ALIASES, TYPES, _CANONS = 2, 3, 5, 6, 7, 8

UTF8, UTF16, LATIN1_UTF16, MEMORY, REALLOC, POST_RETURN = range(6)
_OPTION_SORTS = {MEMORY: CORE_MEMORY, REALLOC: CORE_FUNC, POST_RETURN: CORE_FUNC}

Renumber: TypeAlias = Callable[[str, int], int]
"""What an index of a sort has become."""
Named: TypeAlias = tuple[bytes, str, int]
"""A name as it is encoded, a sort and an index."""


@dataclass(frozen=True, slots=True)
class Options:
    """Of a lifted or lowered function, by their kinds; those without an index have 0."""

    values: tuple[tuple[int, int], ...]

    def get(self, kind: int) -> int | None:
        return next((index for found, index in self.values if found == kind), None)

    def encode(self, renumber: Renumber) -> bytes:
        parts = [number(len(self.values))]
        for kind, index in self.values:
            sort = _OPTION_SORTS.get(kind)
            parts.append(bytes([kind]) + (number(renumber(sort, index)) if sort else b""))
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Whole:
    """A section that is kept as it is: a core module, a nested component, definitions of types."""

    id: int
    body: bytes | memoryview
    sort: str
    count: int = 1

    @property
    def section(self) -> int:
        return self.id

    @property
    def defines(self) -> str:
        return self.sort


@dataclass(frozen=True, slots=True)
class CoreInstantiate:
    """An instance of a core module, with instances to import from, by name."""

    module: int
    arguments: tuple[tuple[str, int], ...]

    section: ClassVar[int] = _CORE_INSTANCES
    defines: ClassVar[str] = CORE_INSTANCE

    def encode(self, renumber: Renumber) -> bytes:
        given = [
            _name(name) + b"\x12" + number(renumber(CORE_INSTANCE, index)) for name, index in self.arguments
        ]
        return b"\x00" + number(renumber(CORE_MODULE, self.module)) + _vector(given)


@dataclass(frozen=True, slots=True)
class CoreExports:
    """A core instance made of what is there already."""

    exports: tuple[tuple[str, str, int], ...]

    section: ClassVar[int] = _CORE_INSTANCES
    defines: ClassVar[str] = CORE_INSTANCE

    def encode(self, renumber: Renumber) -> bytes:
        return b"\x01" + _vector(
            [
                _name(name) + _CORE_BYTES[sort] + number(renumber(sort, index))
                for name, sort, index in self.exports
            ]
        )


@dataclass(frozen=True, slots=True)
class Instantiate:
    """An instance of a component."""

    component: int
    arguments: tuple[Named, ...]

    section: ClassVar[int] = _INSTANCES
    defines: ClassVar[str] = INSTANCE

    def encode(self, renumber: Renumber) -> bytes:
        return b"\x00" + number(renumber(COMPONENT, self.component)) + _named(self.arguments, renumber)


@dataclass(frozen=True, slots=True)
class Exports:
    """An instance made of what is there already."""

    exports: tuple[Named, ...]

    section: ClassVar[int] = _INSTANCES
    defines: ClassVar[str] = INSTANCE

    def encode(self, renumber: Renumber) -> bytes:
        return b"\x01" + _named(self.exports, renumber)


@dataclass(frozen=True, slots=True)
class AliasExport:
    """Something that an instance exports."""

    sort: str
    instance: int
    name: str

    section: ClassVar[int] = ALIASES

    @property
    def defines(self) -> str:
        return self.sort

    def encode(self, renumber: Renumber) -> bytes:
        place = number(renumber(INSTANCE, self.instance))
        return _SORT_BYTES[self.sort] + b"\x00" + place + _name(self.name)


@dataclass(frozen=True, slots=True)
class AliasCoreExport:
    """Something that a core instance exports."""

    sort: str
    instance: int
    name: str

    section: ClassVar[int] = ALIASES

    @property
    def defines(self) -> str:
        return self.sort

    def encode(self, renumber: Renumber) -> bytes:
        place = number(renumber(CORE_INSTANCE, self.instance))
        return b"\x00" + _CORE_BYTES[self.sort] + b"\x01" + place + _name(self.name)


@dataclass(frozen=True, slots=True)
class Lift:
    """A core function as one of the component's."""

    function: int
    options: Options
    type: int

    section: ClassVar[int] = _CANONS
    defines: ClassVar[str] = FUNC

    def encode(self, renumber: Renumber) -> bytes:
        function = number(renumber(CORE_FUNC, self.function))
        return b"\x00\x00" + function + self.options.encode(renumber) + number(renumber(TYPE, self.type))


@dataclass(frozen=True, slots=True)
class Lower:
    """A function as core code can call it."""

    function: int
    options: Options

    section: ClassVar[int] = _CANONS
    defines: ClassVar[str] = CORE_FUNC

    def encode(self, renumber: Renumber) -> bytes:
        return b"\x01\x00" + number(renumber(FUNC, self.function)) + self.options.encode(renumber)


@dataclass(frozen=True, slots=True)
class OfResource:
    """A core function that makes a handle, drops one or looks behind it."""

    operation: int
    type: int

    section: ClassVar[int] = _CANONS
    defines: ClassVar[str] = CORE_FUNC

    def encode(self, renumber: Renumber) -> bytes:
        return bytes([self.operation]) + number(renumber(TYPE, self.type))


RESOURCE_NEW, RESOURCE_DROP, RESOURCE_REP = 2, 3, 4


@dataclass(frozen=True, slots=True)
class Import:
    """What the component is given. `description` is kept: it refers to types, which keep their indexes."""

    name: str
    encoded_name: bytes
    sort: str
    description: bytes

    section: ClassVar[int] = binary.IMPORTS

    @property
    def defines(self) -> str:
        return self.sort

    def encode(self, renumber: Renumber) -> bytes:
        return self.encoded_name + self.description


@dataclass(frozen=True, slots=True)
class Export:
    """What the component gives; it has an index of its own."""

    name: str
    encoded_name: bytes
    sort: str
    index: int
    description: bytes

    section: ClassVar[int] = binary.EXPORTS

    @property
    def defines(self) -> str:
        return self.sort

    def encode(self, renumber: Renumber) -> bytes:
        place = _SORT_BYTES[self.sort] + number(renumber(self.sort, self.index))
        return self.encoded_name + place + self.description


Item: TypeAlias = (
    Whole
    | CoreInstantiate
    | CoreExports
    | Instantiate
    | Exports
    | AliasExport
    | AliasCoreExport
    | Lift
    | Lower
    | OfResource
    | Import
    | Export
)


# Reading


def read_items(component: bytes) -> list[Item]:
    """The items in order; raises `Invalid` for what is malformed, or can't be rewritten."""
    items: list[Item] = []
    for part in binary.sections(memoryview(component)):
        items += read_section(part)
    return items


def read_section(part: Section) -> Iterable[Item]:
    """The items of one section of a component; raises as `read_items` does."""
    return _SECTIONS.get(part.id, _refuse)(part)


def _refuse(part: Section) -> list[Item]:
    raise Invalid(f"it has a section of kind {part.id}, which can't be rewritten")


def _custom(part: Section) -> list[Item]:
    return []  # names of items, which get other indexes


def _core_module(part: Section) -> list[Item]:
    return [Whole(part.id, part.body, CORE_MODULE)]


def _nested(part: Section) -> list[Item]:
    return [Whole(part.id, part.body, COMPONENT)]


def _whole(sort: str) -> Callable[[Section], list[Item]]:
    def read(part: Section) -> list[Item]:
        return [Whole(part.id, part.body, sort, Reader(part.body, part.offset).u32())]

    return read


def _each(read: Callable[[Reader], Item]) -> Callable[[Section], Iterator[Item]]:
    def items(part: Section) -> Iterator[Item]:
        reader = Reader(part.body, part.offset)
        for _ in range(reader.u32()):
            yield read(reader)

    return items


def _core_instance(reader: Reader) -> Item:
    if reader.byte() == 0x00:
        module = reader.u32()
        return CoreInstantiate(module, tuple(_core_argument(reader) for _ in range(reader.u32())))
    exports = ((reader.name(), _core_sort(reader), reader.u32()) for _ in range(reader.u32()))
    return CoreExports(tuple(exports))


def _core_argument(reader: Reader) -> tuple[str, int]:
    name = reader.name()
    reader.byte()  # instances only
    return name, reader.u32()


def _instance(reader: Reader) -> Item:
    if reader.byte() == 0x00:
        component = reader.u32()
        arguments = ((_name(reader.name()), *_index(reader)) for _ in range(reader.u32()))
        return Instantiate(component, tuple(arguments))
    return Exports(tuple((_extern_name(reader)[1], *_index(reader)) for _ in range(reader.u32())))


def _alias(reader: Reader) -> Item:
    sort = _sort(reader)
    kind = reader.byte()
    if kind == 0x02:
        raise Invalid("it refers to itself from outside")
    index, name = reader.u32(), reader.name()
    return AliasExport(sort, index, name) if kind == 0x00 else AliasCoreExport(sort, index, name)


def _canon(reader: Reader) -> Item:
    kind = reader.byte()
    if kind == 0x00:
        reader.byte()
        return Lift(reader.u32(), _options(reader), reader.u32())
    if kind == 0x01:
        reader.byte()
        return Lower(reader.u32(), _options(reader))
    if kind in (RESOURCE_NEW, RESOURCE_DROP, RESOURCE_REP):
        return OfResource(kind, reader.u32())
    raise Invalid(f"it uses a built-in function of kind {kind}, which can't be rewritten")


def _options(reader: Reader) -> Options:
    values = []
    for _ in range(reader.u32()):
        kind = reader.byte()
        if kind > POST_RETURN:
            raise Invalid(f"one of its functions has an option of kind {kind}, which can't be rewritten")
        values.append((kind, reader.u32() if kind in _OPTION_SORTS else 0))
    return Options(tuple(values))


def _import(reader: Reader) -> Item:
    name, encoded = _extern_name(reader)
    sort, description = _description(reader)
    return Import(name, encoded, sort, description)


def _export(reader: Reader) -> Item:
    name, encoded = _extern_name(reader)
    sort, index = _index(reader)
    description = b"\x00" if reader.byte() == 0x00 else b"\x01" + _description(reader)[1]
    return Export(name, encoded, sort, index, description)


def _description(reader: Reader) -> tuple[str, bytes]:
    sort = _sort(reader)
    if sort not in _SORT_BYTES or sort == VALUE:
        raise Invalid(f"it imports or exports a {sort}")
    head = _SORT_BYTES[sort]
    if sort == TYPE:
        bound = reader.byte()
        return sort, head + (b"\x00" + number(reader.u32()) if bound == 0x00 else b"\x01")
    return sort, head + number(reader.u32())


def _extern_name(reader: Reader) -> tuple[str, bytes]:
    kind = reader.byte()
    if kind > 1:
        raise Invalid("a name has options, which can't be rewritten")
    name = reader.name()
    return name, bytes([kind]) + _name(name)


def _index(reader: Reader) -> tuple[str, int]:
    sort = _sort(reader)
    if sort not in _SORT_BYTES:
        raise Invalid(f"it hands on a {sort}")
    return sort, reader.u32()


def _sort(reader: Reader) -> str:
    byte = reader.byte()
    if byte == 0x00:
        return _core_sort(reader)
    if byte not in _SORTS:
        raise reader.malformed(f"{byte} is no sort of item")
    return _SORTS[byte]


def _core_sort(reader: Reader) -> str:
    byte = reader.byte()
    if byte not in _CORE_SORTS:
        raise reader.malformed(f"{byte} is no sort of core item")
    return _CORE_SORTS[byte]


_SECTIONS: dict[int, Callable[[Section], list[Item] | Iterator[Item]]] = {
    binary.CUSTOM: _custom,
    binary.CORE_MODULE: _core_module,
    _CORE_INSTANCES: _each(_core_instance),
    _CORE_TYPES: _whole(CORE_TYPE),
    binary.NESTED_COMPONENT: _nested,
    _INSTANCES: _each(_instance),
    ALIASES: _each(_alias),
    TYPES: _whole(TYPE),
    _CANONS: _each(_canon),
    binary.IMPORTS: _each(_import),
    binary.EXPORTS: _each(_export),
}


def has_code(component: Whole) -> bool:
    """Whether a nested component is more than names: it may run, and look at core modules around it."""
    code = (binary.CORE_MODULE, _CORE_INSTANCES, _CANONS, binary.NESTED_COMPONENT)
    return any(part.id in code for part in binary.sections(memoryview(component.body)))


# Writing


class Output:
    """A component under construction, item by item."""

    # The mutable state is the sections so far, the last of them open, and how many there are of each sort.

    def __init__(self) -> None:
        self._sections: list[tuple[int, list[bytes]]] = []
        self._parts: list[bytes] = []
        self._counts: Counter[str] = Counter()

    def add(self, item: Item, renumber: Renumber = lambda sort, index: index) -> int:
        """Write an item; gives the index that it takes, or the first of several."""
        if isinstance(item, Whole):
            self._close()
            self._parts.append(binary.section(item.id, item.body))
        else:
            self._append(item.section, item.encode(renumber))
        index = self._counts[item.defines]
        self._counts[item.defines] += item.count if isinstance(item, Whole) else 1
        return index

    def count(self, sort: str) -> int:
        """How many there are of a sort so far."""
        return self._counts[sort]

    def _append(self, section: int, data: bytes) -> None:
        if not self._sections or self._sections[-1][0] != section:
            self._close()
            self._sections.append((section, []))
        self._sections[-1][1].append(data)

    def _close(self) -> None:
        while self._sections:
            section, items = self._sections.pop()
            self._parts.append(binary.section(section, _vector(items)))

    def encode(self) -> bytes:
        self._close()
        return b"".join((binary.COMPONENT_HEADER, *self._parts))


def _vector(items: list[bytes]) -> bytes:
    return number(len(items)) + b"".join(items)


def _name(name: str) -> bytes:
    data = name.encode()
    return number(len(data)) + data


def extern_name(name: str) -> bytes:
    """The name of an import or an export, encoded."""
    return b"\x00" + _name(name)


def _named(items: tuple[Named, ...], renumber: Renumber) -> bytes:
    return _vector([name + _SORT_BYTES[sort] + number(renumber(sort, index)) for name, sort, index in items])
