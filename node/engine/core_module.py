"""A core module's own parts, read from its sections: what it imports, defines and exports, by sort and index.

Whatever the bytes, reading ends in a value or in `Invalid`. Function bodies are not looked into here; what is
newer than plain functions, tables of them, and memories of 32 bits is refused.

https://webassembly.github.io/spec/core/binary/modules.html
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lattice.errors import Invalid
from node.engine.binary import Reader, number, sections
from node.engine.component_items import CORE_FUNC, CORE_GLOBAL, CORE_MEMORY, CORE_TABLE
from node.engine.instructions import VALUE_TYPES

# Section ids
CUSTOM, TYPES, IMPORTS, FUNCTIONS, TABLES, MEMORIES, GLOBALS, EXPORTS, START, ELEMENTS = range(10)
CODE, DATA, DATA_COUNT = 10, 11, 12

SORTS = (CORE_FUNC, CORE_TABLE, CORE_MEMORY, CORE_GLOBAL)
"""By the byte that stands for them in imports and exports."""
_FUNCTION_TYPE = 0x60
_LIMITED, _END = 0x01, 0x0B
_I32_CONST, _I64_CONST, _F32_CONST, _F64_CONST = 0x41, 0x42, 0x43, 0x44
_GLOBAL_GET, _REF_NULL, _REF_FUNC = 0x23, 0xD0, 0xD2
_FUNCTION_NAMES = 1


@dataclass(frozen=True, slots=True)
class CoreImport:
    """`description` is the type, encoded; for a function the index of its type."""

    module: str
    name: str
    sort: str
    description: bytes


@dataclass(frozen=True, slots=True)
class Global:
    """Its type, encoded, and the code of its first value, with its end."""

    type: bytes
    value: bytes

    @property
    def is_mutable(self) -> bool:
        return self.type[1] == 1


@dataclass(frozen=True, slots=True)
class ElementSegment:
    """`items` are the indexes of functions, or code for each; active ones have a table and a place in it."""

    table: int | None
    place: bytes
    kind: bytes
    is_declarative: bool
    functions: tuple[int, ...] | None
    values: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class DataSegment:
    """Active ones have a memory and a place in it."""

    memory: int | None
    place: bytes
    data: memoryview


@dataclass(slots=True)
class CoreModule:
    """What a module consists of; imports come first in each sort's indexes."""

    types: list[bytes] = field(default_factory=list)
    imports: list[CoreImport] = field(default_factory=list)
    functions: list[int] = field(default_factory=list)
    """Of those that it defines, the indexes of their types."""
    tables: list[bytes] = field(default_factory=list)
    memories: list[bytes] = field(default_factory=list)
    globals: list[Global] = field(default_factory=list)
    exports: dict[str, tuple[str, int]] = field(default_factory=dict)
    start: int | None = None
    elements: list[ElementSegment] = field(default_factory=list)
    bodies: list[memoryview] = field(default_factory=list)
    data: list[DataSegment] = field(default_factory=list)
    has_data_count: bool = False
    names: dict[int, bytes] = field(default_factory=dict)
    """Of functions, for those who read a trace."""

    def imported(self, sort: str) -> list[CoreImport]:
        return [item for item in self.imports if item.sort == sort]

    @property
    def code_bytes(self) -> int:
        return sum(map(len, self.bodies))


def read_module(data: bytes | memoryview) -> CoreModule:
    """Raises `Invalid` for what is malformed, or has parts that are not known here."""
    module = CoreModule()
    for part in sections(memoryview(data)):
        reader = Reader(part.body, part.offset)
        if part.id == CUSTOM:
            _custom(reader, module)
        elif part.id in _READERS:
            _READERS[part.id](reader, module)
        else:
            raise Invalid(f"a core module has a section of kind {part.id}, which can't be rewritten")
    if len(module.bodies) != len(module.functions):
        raise Invalid("a core module is malformed: functions and their code are not as many")
    return module


def _types(reader: Reader, module: CoreModule) -> None:
    for _ in range(reader.u32()):
        if reader.byte() != _FUNCTION_TYPE:
            raise Invalid("a core module has types other than functions, which can't be rewritten")
        parts = [bytes([_FUNCTION_TYPE])]
        for _ in range(2):
            values = bytes(reader.take(reader.u32()))
            if values.strip(VALUE_TYPES):
                raise Invalid("a core module has functions of values that can't be rewritten")
            parts += [number(len(values)), values]
        module.types.append(b"".join(parts))


def _imports(reader: Reader, module: CoreModule) -> None:
    for _ in range(reader.u32()):
        origin, name, sort = reader.name(), reader.name(), _sort(reader)
        module.imports.append(CoreImport(origin, name, sort, _DESCRIPTIONS[sort](reader)))


def _functions(reader: Reader, module: CoreModule) -> None:
    module.functions += [reader.u32() for _ in range(reader.u32())]


def _tables(reader: Reader, module: CoreModule) -> None:
    module.tables += [_table_type(reader) for _ in range(reader.u32())]


def _memories(reader: Reader, module: CoreModule) -> None:
    module.memories += [_limits(reader) for _ in range(reader.u32())]


def _globals(reader: Reader, module: CoreModule) -> None:
    module.globals += [Global(_global_type(reader), constant(reader)) for _ in range(reader.u32())]


def _exports(reader: Reader, module: CoreModule) -> None:
    for _ in range(reader.u32()):
        name, sort = reader.name(), _sort(reader)
        module.exports[name] = (sort, reader.u32())


def _start(reader: Reader, module: CoreModule) -> None:
    module.start = reader.u32()


def _elements(reader: Reader, module: CoreModule) -> None:
    module.elements += [_element(reader) for _ in range(reader.u32())]


def _element(reader: Reader) -> ElementSegment:
    """Its first number has a bit for each: not active, a table or declarative, code instead of indexes."""
    flags = reader.u32()
    if flags > 7:
        raise reader.malformed(f"{flags} is no kind of element segment")
    is_active, has_more, has_code = not flags & 1, bool(flags & 2), bool(flags & 4)
    table = (reader.u32() if has_more else 0) if is_active else None
    place = constant(reader) if is_active else b""
    kind = bytes([reader.byte()]) if flags & 3 else (b"\x70" if has_code else b"\x00")
    if kind not in (b"\x70", b"\x6f") if has_code else kind != b"\x00":
        raise Invalid("a core module has elements of a type that can't be rewritten")
    count = reader.u32()
    functions = None if has_code else tuple(reader.u32() for _ in range(count))
    values = tuple(constant(reader) for _ in range(count)) if has_code else ()
    return ElementSegment(table, place, kind, not is_active and has_more, functions, values)


def _code(reader: Reader, module: CoreModule) -> None:
    module.bodies += [reader.take(reader.u32()) for _ in range(reader.u32())]


def _data(reader: Reader, module: CoreModule) -> None:
    for _ in range(reader.u32()):
        flags = reader.u32()
        if flags > 2:
            raise reader.malformed(f"{flags} is no kind of data segment")
        memory = None if flags == 1 else reader.u32() if flags == 2 else 0
        place = b"" if memory is None else constant(reader)
        module.data.append(DataSegment(memory, place, reader.take(reader.u32())))


def _data_count(reader: Reader, module: CoreModule) -> None:
    module.has_data_count = True


def _custom(reader: Reader, module: CoreModule) -> None:
    """Names of functions, where they can be read."""
    if reader.name() != "name":
        return
    while not reader.is_done:
        kind, part = reader.byte(), Reader(reader.take(reader.u32()))
        if kind == _FUNCTION_NAMES:
            for _ in range(part.u32()):
                index = part.u32()
                module.names[index] = bytes(part.take(part.u32()))


def _sort(reader: Reader) -> str:
    kind = reader.byte()
    if kind >= len(SORTS):
        raise Invalid(f"a core module imports or exports something of kind {kind}, which can't be rewritten")
    return SORTS[kind]


def _limits(reader: Reader) -> bytes:
    """Without the kinds that are shared, have 64 bits, or pages of their own size."""
    flags = reader.byte()
    if flags > _LIMITED:
        raise Invalid("a core module has a memory or table of a kind that can't be rewritten")
    return bytes([flags]) + b"".join(number(reader.u32()) for _ in range(1 + flags))


def _table_type(reader: Reader) -> bytes:
    kind = reader.byte()
    if kind not in (0x6F, 0x70):
        raise Invalid("a core module has a table of a type that can't be rewritten")
    return bytes([kind]) + _limits(reader)


def _global_type(reader: Reader) -> bytes:
    type_ = bytes(reader.take(2))
    if type_[0] not in VALUE_TYPES or type_[1] > 1:
        raise Invalid("a core module has a global of a type that can't be rewritten")
    return type_


def constant(reader: Reader) -> bytes:
    """Code for one constant, with its end."""
    operation = reader.byte()
    if operation in (_F32_CONST, _F64_CONST):
        rest = bytes(reader.take(4 if operation == _F32_CONST else 8))
    elif operation in (_I32_CONST, _I64_CONST, _GLOBAL_GET, _REF_NULL, _REF_FUNC):
        rest = _leb(reader)
    else:
        raise Invalid("a core module has a constant that can't be rewritten")
    if reader.byte() != _END:
        raise Invalid("a core module has a constant that is computed, which can't be rewritten")
    return bytes([operation]) + rest + bytes([_END])


def _leb(reader: Reader) -> bytes:
    out = bytearray()
    while not out or out[-1] & 0x80:
        out.append(reader.byte())
    return bytes(out)


_DESCRIPTIONS: dict[str, Callable[[Reader], bytes]] = {
    CORE_FUNC: lambda reader: number(reader.u32()),
    CORE_TABLE: _table_type,
    CORE_MEMORY: _limits,
    CORE_GLOBAL: _global_type,
}

_READERS: dict[int, Callable[[Reader, CoreModule], None]] = {
    TYPES: _types,
    IMPORTS: _imports,
    FUNCTIONS: _functions,
    TABLES: _tables,
    MEMORIES: _memories,
    GLOBALS: _globals,
    EXPORTS: _exports,
    START: _start,
    ELEMENTS: _elements,
    CODE: _code,
    DATA: _data,
    DATA_COUNT: _data_count,
}
