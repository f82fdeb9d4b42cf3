"""The sections of WebAssembly binaries: read without trust, written, and put into one another.

A component is a header and a row of sections; core modules and other components lie inside it whole, each as
one section. Nothing here interprets code. Whatever the bytes, reading ends in a value or in `Invalid`: every
length is checked against what is left, nesting and counts are bounded, and each byte is looked at once per
level at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from lattice.errors import Invalid

MAGIC = b"\0asm"
MODULE_HEADER = MAGIC + b"\x01\x00\x00\x00"
COMPONENT_HEADER = MAGIC + b"\x0d\x00\x01\x00"
HEADER_SIZE = 8

# Section ids of a component
CUSTOM, CORE_MODULE, NESTED_COMPONENT, IMPORTS, EXPORTS = 0, 1, 4, 10, 11

MAX_DEPTH = 32
"""Components inside components; real ones have two or three levels."""
MAX_SECTIONS = 100_000
MAX_NAME_BYTES = 100_000
"""As wasmtime's own validator allows."""


class Kind(Enum):
    """What a file is, by its first bytes."""

    COMPONENT = "component"
    MODULE = "core module"
    OLD_COMPONENT = "component in an outdated encoding"
    NEW_WASM = "WebAssembly of an unknown version"
    TEXT_FORMAT = "WebAssembly text"
    TEXT = "text"
    ZEROS = "nothing but zeros"
    GZIP = "gzip archive"
    ZIP = "zip archive"
    NATIVE = "native or precompiled code"
    EMPTY = "empty"
    UNKNOWN = "unknown"


_CURES = {
    Kind.MODULE: "this is a core WebAssembly module, not a component: run it with `latticectl run` if it is "
    "a command; else make a component with `wasm-tools component new` (with the WASI adapter), or build for "
    "a target such as wasm32-wasip2",
    Kind.OLD_COMPONENT: "this component has an outdated encoding: build it again with current tools",
    Kind.NEW_WASM: "this is WebAssembly of an unknown version: build it as a WASI 0.2 component",
    Kind.TEXT_FORMAT: "this is WebAssembly text: convert it with `wasm-tools parse FILE -o FILE.wasm`",
    Kind.TEXT: "this is text, not a WebAssembly component: give the .wasm file that your build made",
    Kind.ZEROS: "the file holds nothing but zeros: copy or build it again",
    Kind.GZIP: "this is a gzip archive: unpack it first and give the .wasm file",
    Kind.ZIP: "this is a zip archive: unpack it first and give the .wasm file",
    Kind.NATIVE: "this is native or precompiled code, which is refused: give the .wasm component",
    Kind.EMPTY: "the file is empty: copy or build it again",
    Kind.UNKNOWN: "this is not a WebAssembly component: give the .wasm file that your build made",
}

_PREFIXES = (
    (COMPONENT_HEADER, Kind.COMPONENT),
    (MODULE_HEADER, Kind.MODULE),
    (b"\x1f\x8b", Kind.GZIP),
    (b"PK\x03\x04", Kind.ZIP),
    (b"\x7fELF", Kind.NATIVE),
)


@dataclass(frozen=True, slots=True)
class Section:
    """One section; `body` is a view into the binary, `offset` the body's place in the outermost file."""

    id: int
    body: memoryview
    offset: int


def identify(data: bytes) -> Kind:
    """What `data` is, as far as its beginning tells."""
    if not data:
        return Kind.EMPTY
    for prefix, kind in _PREFIXES:
        if data.startswith(prefix):
            return kind
    if data.startswith(MAGIC):
        return _unusual_wasm(data[:HEADER_SIZE])
    return _not_wasm(data[:256])


def _unusual_wasm(header: bytes) -> Kind:
    if len(header) < HEADER_SIZE:
        return Kind.UNKNOWN
    is_component = header[6:8] == b"\x01\x00"
    is_older = header[4:6] < COMPONENT_HEADER[4:6]
    return Kind.OLD_COMPONENT if is_component and is_older else Kind.NEW_WASM


def _not_wasm(start: bytes) -> Kind:
    if not start.strip(b"\0"):
        return Kind.ZEROS
    try:
        text = start.decode("utf-8", errors="strict" if len(start) < 256 else "ignore").lstrip(
            "\ufeff \t\r\n"
        )
    except UnicodeDecodeError:
        return Kind.UNKNOWN
    if text.startswith(("(component", "(module", "(;", ";;")):
        return Kind.TEXT_FORMAT
    return Kind.TEXT if all(char.isprintable() or char in "\t\r\n" for char in text) else Kind.UNKNOWN


def require_component(data: bytes) -> None:
    """Raise `Invalid`, saying what the file is and what to do, unless it begins as a component."""
    kind = identify(data)
    if kind is not Kind.COMPONENT:
        raise Invalid(_CURES[kind], details={"kind": kind.value})


def require_module(data: bytes) -> None:
    """Raise `Invalid`, saying what the file is and what to do, unless it begins as a core module."""
    kind = identify(data)
    if kind is not Kind.MODULE:
        raise Invalid(
            _CURES.get(kind, "this is a component, not a core module"), details={"kind": kind.value}
        )


class Reader:
    """Reads numbers, names and blocks from a view; every read is checked against the end."""

    # The mutable state of a reader is its position.

    def __init__(self, data: memoryview, offset: int = 0) -> None:
        self._data = data
        self._offset = offset
        self.position = 0

    @property
    def is_done(self) -> bool:
        return self.position >= len(self._data)

    @property
    def offset(self) -> int:
        """Where the next byte lies in the outermost file."""
        return self._offset + self.position

    def byte(self) -> int:
        if self.is_done:
            raise self._truncated("a byte", 1)
        value = self._data[self.position]
        self.position += 1
        return value

    def u32(self) -> int:
        """An unsigned LEB128 number of at most five bytes."""
        value = 0
        for shift in range(0, 35, 7):
            part = self.byte()
            value |= (part & 0x7F) << shift
            if part < 0x80:
                if value > 0xFFFFFFFF:
                    break
                return value
        raise self.malformed("a number is longer than 32 bits")

    def take(self, size: int, what: str = "a block") -> memoryview:
        if size > len(self._data) - self.position:
            raise self._truncated(what, size)
        block = self._data[self.position : self.position + size]
        self.position += size
        return block

    def name(self) -> str:
        size = self.u32()
        if size > MAX_NAME_BYTES:
            raise self.malformed(f"a name of {size} bytes is longer than {MAX_NAME_BYTES}")
        try:
            return bytes(self.take(size, "a name")).decode("utf-8")
        except UnicodeDecodeError:
            raise self.malformed("a name is not UTF-8") from None

    def malformed(self, what: str) -> Invalid:
        return Invalid(f"the component is malformed at byte {self.offset}: {what}; build or copy it again")

    def _truncated(self, what: str, size: int) -> Invalid:
        left = len(self._data) - self.position
        return Invalid(
            f"the component is truncated or malformed at byte {self.offset}: {what} of {size} bytes is "
            f"announced but {left} are left; build or copy it again"
        )


def sections(data: memoryview, offset: int = 0) -> Iterator[Section]:
    """The sections of a module or component (header included in `data`), in order."""
    reader = Reader(data, offset)
    reader.take(HEADER_SIZE, "the header")
    for _ in range(MAX_SECTIONS):
        if reader.is_done:
            return
        section_id = reader.byte()
        size = reader.u32()
        start = reader.offset
        yield Section(section_id, reader.take(size, f"section {section_id}"), start)
    raise reader.malformed(f"it has more than {MAX_SECTIONS} sections")


def number(value: int) -> bytes:
    """`value` as an unsigned LEB128 number."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        if not value:
            return bytes([*out, low])
        out.append(low | 0x80)


def section(section_id: int, body: bytes | memoryview) -> bytes:
    """A section, header included."""
    return b"".join((bytes([section_id]), number(len(body)), body))


def splice(outer: bytes, binaries: Sequence[bytes]) -> bytes:
    """Fill the empty nested components of `outer`, in order, with real ones.

    The outer component is encoded with `(component $name)` as placeholders, because text can't hold binaries.
    """
    waiting = list(reversed(binaries))
    parts = [outer[:HEADER_SIZE]]
    for part in sections(memoryview(outer)):
        body: bytes | memoryview = part.body
        if waiting and part.id == NESTED_COMPONENT and is_empty(part.body, part.offset):
            body = waiting.pop()
        parts.append(section(part.id, body))
    if waiting:
        raise ValueError(f"{len(waiting)} binaries have no placeholder")
    return b"".join(parts)


def is_empty(data: memoryview, offset: int = 0) -> bool:
    """Whether a module or component holds nothing; a custom section may give its name."""
    return all(part.id == CUSTOM for part in sections(data, offset))


def import_names(data: bytes) -> list[str]:
    """The names that a component imports, without validating or compiling it.

    Stops at the first import of a sort that is not known here: what follows is for the compiler to judge.
    """
    names: list[str] = []
    for part in sections(memoryview(data)):
        if part.id == IMPORTS and not _read_imports(Reader(part.body, part.offset), names):
            break
    return names


def _read_imports(reader: Reader, names: list[str]) -> bool:
    for _ in range(reader.u32()):
        kind = reader.byte()
        if kind > 1:
            return False
        names.append(reader.name())
        if not _skip_description(reader):
            return False
    return True


def _skip_description(reader: Reader) -> bool:
    """Pass over an `externdesc`; False when its sort is unknown."""
    match reader.byte():
        case 0x00:  # core module, core sort byte before the index
            reader.byte()
        case 0x01 | 0x04 | 0x05:  # function, component, instance
            pass
        case 0x03:  # type: a bound, and for equality the index
            if reader.byte() == 0x01:
                return True
        case _:
            return False
    reader.u32()
    return True
