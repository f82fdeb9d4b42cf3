"""Bytes that wait between two who don't keep step: one adds, the other takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from lattice.pouring import Lender


class ByteStore(Protocol):
    """Bytes that wait for who takes them: in a channel, or in Python."""

    @property
    def size(self) -> int:
        """How many wait."""

    def add(self, data: bytes) -> None: ...

    def take(self, most: int) -> bytes:
        """So many, or fewer; none only if there are none."""

    def clear(self) -> None:
        """Drop what waits."""

    def await_data(self, wake: Callable[[], None]) -> bool:
        """Have `wake` called, maybe for nothing, when the guest has added some: true if some are here."""

    def await_room(self, wake: Callable[[], None]) -> bool:
        """Have `wake` called, maybe for nothing, when the guest has taken some: true if there is room."""

    def close(self) -> None:
        """The guest is to ask Python from now on."""

    def borrow_from(self, lender: Lender | None) -> None:
        """Who has the socket that the bytes come from, or go to."""

    def borrow(self) -> None:
        """Ask for the socket, if the guest could use it now."""


class Chunks:
    """A `ByteStore` in Python. Whoever adds and takes wakes the others by himself."""

    __slots__ = ("_chunks", "_joined", "_position", "size")

    def __init__(self, joined: int = 0) -> None:
        """Chunks are joined up to `joined` bytes."""
        self._joined = joined
        self._chunks: deque[bytes] = deque()
        self._position = 0
        self.size = 0

    def add(self, data: bytes) -> None:
        if self._chunks and len(self._chunks[-1]) + len(data) <= self._joined:
            self._chunks[-1] += data
        else:
            self._chunks.append(data)
        self.size += len(data)

    def take(self, most: int) -> bytes:
        if not self._chunks:
            return b""
        first = self._chunks[0]
        part = first[self._position : self._position + most]
        self._position += len(part)
        if self._position == len(first):
            self._chunks.popleft()
            self._position = 0
        self.size -= len(part)
        return part

    def clear(self) -> None:
        self._chunks.clear()
        self._position = self.size = 0

    def await_data(self, wake: Callable[[], None]) -> bool:
        return False

    def await_room(self, wake: Callable[[], None]) -> bool:
        return False

    def close(self) -> None:
        return None

    def borrow_from(self, lender: Lender | None) -> None:
        return None

    def borrow(self) -> None:
        return None
