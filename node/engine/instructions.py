"""Code of core modules, written again with other indexes.

Code is a row of instructions, each a byte and what belongs to it. Most refer to nothing that gets another
index: a pattern passes over runs of them. What is not known here is refused with `Invalid`.

https://webassembly.github.io/spec/core/binary/instructions.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lattice.errors import Invalid
from node.engine.binary import number

_LEB = rb"[\x80-\xff]{0,9}+[\x00-\x7f]"
VALUE_TYPES = b"\x6f\x70\x7b\x7c\x7d\x7e\x7f"
"""Those that are one byte and name no type of the module."""
_PLAIN = rb"|".join(
    (
        rb"[\x00\x01\x05\x0b\x0f\x1a\x1b\x45-\xc4\xd1]",  # nothing follows
        rb"[\x20-\x22\x41\x42\x0c\x0d]" + _LEB,  # locals, constants, branches
        rb"[\x02-\x04][\x40\x6f\x70\x7b-\x7f]",  # blocks with a type that is written out
        rb"\x43.{4}",
        rb"\x44.{8}",
        rb"\xfc[\x00-\x07]",
        rb"\xd0[\x6f\x70]",
    )
)
_ACCESS = rb"[\x28-\x3e][\x00-\x3f]" + _LEB
"""To memory 0."""
_RUN = re.compile(rb"(?>" + _PLAIN + rb")*+", re.DOTALL)
_RUN_WITH_ACCESSES = re.compile(rb"(?>" + _PLAIN + rb"|" + _ACCESS + rb")*+", re.DOTALL)

_OTHER_MEMORY = 0x40
"""A bit of an access's alignment: the number of the memory follows."""
_VECTOR_LANES = range(0x15, 0x23)
_VECTOR_PLAIN = (range(0x0E, 0x15), range(0x23, 0x54), range(0x5E, 0x114))
_VECTOR_ACCESS = (*range(0x00, 0x0C), 0x5C, 0x5D)
_VECTOR_LANE_ACCESS = range(0x54, 0x5C)


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexes:
    """What the indexes of a module have become."""

    types: Sequence[int] = ()
    functions: Sequence[int] = ()
    tables: Sequence[int] = ()
    memories: Sequence[int] = ()
    globals: Sequence[int] = ()
    elements: Sequence[int] = ()
    data: Sequence[int] = ()


def rewrite(code: bytes, indexes: Indexes) -> bytes:
    """Instructions with other indexes; raises `Invalid` for those not known here, and what is malformed."""
    try:
        return _Rewriting(code, indexes).all()
    except IndexError:
        raise Invalid("its code refers to what is not there") from None


def rewrite_body(body: bytes, indexes: Indexes) -> bytes:
    """The same for a function: its locals, then its instructions."""
    reader = _Rewriting(body, indexes)
    for _ in range(reader.leb()):
        reader.leb()
        if reader.byte() not in VALUE_TYPES:
            raise Invalid("a function has locals of a type that can't be rewritten")
    return body[: reader.position] + rewrite(body[reader.position :], indexes)


class _Rewriting:
    """One pass over some code. The mutable state is the position, and what is written so far."""

    def __init__(self, code: bytes, indexes: Indexes) -> None:
        self.position = 0
        self._code = code
        self._indexes = indexes
        self._out: list[bytes] = []
        is_same = len(indexes.memories) > 0 and indexes.memories[0] == 0
        self._run = _RUN_WITH_ACCESSES if is_same else _RUN

    def all(self) -> bytes:
        code, out, size = self._code, self._out, len(self._code)
        while True:
            start = self.position
            end = self.position = self._run.match(code, start).end()  # type: ignore[union-attr]  # it may be empty
            out.append(code[start:end])
            if end == size:
                return b"".join(out)
            operation = self.byte()
            write = _OPERATIONS.get(operation)
            if write is None:
                raise Invalid(f"it has instructions of kind {operation:#x}, which can't be rewritten")
            out.append(write(self, operation))

    # Reading

    def byte(self) -> int:
        if self.position >= len(self._code):
            raise Invalid("its code is malformed: it ends within an instruction")
        value = self._code[self.position]
        self.position += 1
        return value

    def leb(self) -> int:
        """A number without sign, of 64 bits at the most."""
        value = 0
        for shift in range(0, 70, 7):
            part = self.byte()
            value |= (part & 0x7F) << shift
            if part < 0x80:
                return value
        raise Invalid("its code is malformed: a number is too long")

    def _since(self, start: int) -> bytes:
        return self._code[start : self.position]

    # Writing: each is called behind an instruction's first byte

    def call(self, operation: int) -> bytes:
        return bytes([operation]) + number(self._indexes.functions[self.leb()])

    def call_indirect(self, operation: int) -> bytes:
        type_ = number(self._indexes.types[self.leb()])
        return bytes([operation]) + type_ + number(self._indexes.tables[self.leb()])

    def of_global(self, operation: int) -> bytes:
        return bytes([operation]) + number(self._indexes.globals[self.leb()])

    def of_table(self, operation: int) -> bytes:
        return bytes([operation]) + number(self._indexes.tables[self.leb()])

    def block(self, operation: int) -> bytes:
        """Whose type is one of the module's: a number with a sign."""
        index = self.leb()
        if self._code[self.position - 1] & 0x40:
            raise Invalid("a block has a type that can't be rewritten")
        return bytes([operation]) + _signed(self._indexes.types[index])

    def branch_table(self, operation: int) -> bytes:
        start = self.position - 1
        for _ in range(self.leb() + 1):
            self.leb()
        return self._since(start)

    def typed_select(self, operation: int) -> bytes:
        start = self.position - 1
        for _ in range(self.leb()):
            if self.byte() not in VALUE_TYPES:
                raise Invalid("it selects among values of a type that can't be rewritten")
        return self._since(start)

    def access(self, operation: int) -> bytes:
        return bytes([operation]) + self._place()

    def _place(self) -> bytes:
        """Alignment, memory and offset."""
        alignment = self.leb()
        memory = self.leb() if alignment & _OTHER_MEMORY else 0
        alignment &= ~_OTHER_MEMORY
        offset = number(self.leb())
        memory = self._indexes.memories[memory]
        if memory == 0:
            return number(alignment) + offset
        return number(alignment | _OTHER_MEMORY) + number(memory) + offset

    def of_memory(self, operation: int) -> bytes:
        return bytes([operation]) + number(self._indexes.memories[self.leb()])

    def bulk(self, operation: int) -> bytes:
        kind = self.leb()
        sorts = _BULK.get(kind)
        if sorts is None:
            raise Invalid(f"it has instructions of kind {operation:#x} {kind:#x}, which can't be rewritten")
        indexes = [getattr(self._indexes, sort)[self.leb()] for sort in sorts]
        return bytes([operation]) + number(kind) + b"".join(map(number, indexes))

    def vector(self, operation: int) -> bytes:
        kind = self.leb()
        head = bytes([operation]) + number(kind)
        if kind in _VECTOR_ACCESS:
            return head + self._place()
        if kind in _VECTOR_LANE_ACCESS:
            return head + self._place() + bytes([self.byte()])
        size = 16 if kind in (0x0C, 0x0D) else 1 if kind in _VECTOR_LANES else 0
        if not size and not any(kind in kinds for kinds in _VECTOR_PLAIN):
            raise Invalid(f"it has instructions of kind {operation:#x} {kind:#x}, which can't be rewritten")
        return head + bytes(self.byte() for _ in range(size))


_BULK: Mapping[int, tuple[str, ...]] = {
    0x08: ("data", "memories"),
    0x09: ("data",),
    0x0A: ("memories", "memories"),
    0x0B: ("memories",),
    0x0C: ("elements", "tables"),
    0x0D: ("elements",),
    0x0E: ("tables", "tables"),
    0x0F: ("tables",),
    0x10: ("tables",),
    0x11: ("tables",),
}
"""What the indexes behind an instruction refer to."""

_OPERATIONS: Mapping[int, Callable[[_Rewriting, int], bytes]] = {
    **dict.fromkeys((0x02, 0x03, 0x04), _Rewriting.block),
    0x0E: _Rewriting.branch_table,
    **dict.fromkeys((0x10, 0x12, 0xD2), _Rewriting.call),
    **dict.fromkeys((0x11, 0x13), _Rewriting.call_indirect),
    0x1C: _Rewriting.typed_select,
    **dict.fromkeys((0x23, 0x24), _Rewriting.of_global),
    **dict.fromkeys((0x25, 0x26), _Rewriting.of_table),
    **dict.fromkeys(range(0x28, 0x3F), _Rewriting.access),
    **dict.fromkeys((0x3F, 0x40), _Rewriting.of_memory),
    0xFC: _Rewriting.bulk,
    0xFD: _Rewriting.vector,
}


def _signed(value: int) -> bytes:
    """A LEB128 number with a sign, which is positive."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        if not value and not low & 0x40:
            return bytes([*out, low])
        out.append(low | 0x80)
