"""A component without its code: same imports, exports and types, but compiled in milliseconds.

Every function body becomes `unreachable`, data segments and custom sections go. What is left still validates,
so the compiler can be asked for the signatures of an 18 MB component without compiling 18 MB.
"""

from __future__ import annotations

from node.engine.binary import (
    CORE_MODULE,
    CUSTOM,
    HEADER_SIZE,
    MAX_DEPTH,
    NESTED_COMPONENT,
    Reader,
    Section,
    number,
    section,
    sections,
)

# Section ids of a core module
_CODE, _DATA, _DATA_COUNT = 10, 11, 12

_UNREACHABLE_BODY = b"\x03\x00\x00\x0b"
"""Size 3, no locals, `unreachable`, `end`."""
_SMALLEST_BODY = 3
"""Bytes of the smallest body: its size, no locals, `end`."""


def skeleton(component: bytes) -> bytes:
    """The component with its code and data left out; raises `Invalid` when its sections can't be read."""
    return _component(memoryview(component), 0, MAX_DEPTH)


def _component(data: memoryview, offset: int, depth: int) -> bytes:
    parts = [bytes(data[:HEADER_SIZE])]
    for part in sections(data, offset):
        if part.id == NESTED_COMPONENT:
            parts.append(section(part.id, _nested(part, depth)))
        elif part.id == CORE_MODULE:
            parts.append(section(part.id, _module(part)))
        elif part.id != CUSTOM:
            parts.append(section(part.id, part.body))
    return b"".join(parts)


def _nested(part: Section, depth: int) -> bytes:
    if depth == 0:
        raise Reader(part.body, part.offset).malformed(f"components are nested more than {MAX_DEPTH} deep")
    return _component(part.body, part.offset, depth - 1)


def _module(module: Section) -> bytes:
    parts = [bytes(module.body[:HEADER_SIZE])]
    for part in sections(module.body, module.offset):
        if part.id == _CODE:
            parts.append(section(_CODE, _code(part)))
        elif part.id not in (CUSTOM, _DATA, _DATA_COUNT):
            parts.append(section(part.id, part.body))
    return b"".join(parts)


def _code(part: Section) -> bytes:
    reader = Reader(part.body, part.offset)
    count = reader.u32()
    if count > len(part.body) // _SMALLEST_BODY:
        raise reader.malformed(f"{count} functions are announced, more than fit")
    return number(count) + _UNREACHABLE_BODY * count
