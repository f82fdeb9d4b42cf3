"""Cutting what a guest prints into whole lines, in bounded memory."""

from __future__ import annotations

LINE_BYTES = 8192
"""A longer line is handed on in pieces of this size: a guest may never end a line."""


class LineBuffer:
    """Holds the line that has begun; never more than `LINE_BYTES`."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """What can be handed on: all lines that `data` ends as one block, then pieces of an overlong one.

        A block has no line end at its own end. Lines share a block so that a flood of empty ones costs a
        few log entries and not thousands.
        """
        whole, newline, rest = (self._rest + data).rpartition(b"\n")
        blocks = [whole] if newline else []
        while len(rest) >= LINE_BYTES:
            blocks.append(rest[:LINE_BYTES])
            rest = rest[LINE_BYTES:]
        self._rest = rest
        return blocks

    def drain(self) -> bytes:
        """The line that has begun, for when nothing more will come."""
        rest, self._rest = self._rest, b""
        return rest
