"""Calls of one function that the maker's thread makes one after the other (driver/batch.c).

They are for calls that wait in numbers. Beside the event loop they take nothing from it, and no sandbox is
made on one core and called on another.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from node.engine import driver
from node.engine.capi import VALUE_SIZE, bytes_address, new_bytes
from node.engine.driver import Maker

MIN_PAUSE, MAX_PAUSE = 8, 1024
"""Calls that are begun one by one after batches that calls to the host have ended early."""
MOST_NANOSECONDS = 2_000_000
"""After so long no further call of a batch begins: one that takes much longer has a call that does."""


class Yield:
    """Whether batches of a function are worth their while: after two that were poor they are tried less."""

    __slots__ = ("_left", "_pause", "_was_poor")

    def __init__(self) -> None:
        self._was_poor = False
        self._pause = MIN_PAUSE
        self._left = 0

    def is_good(self) -> bool:
        """Whether to try a batch now, when there could be one."""
        if self._left:
            self._left -= 1
            return False
        return True

    def note(self, *, was_good: bool) -> None:
        """What came of a batch: no call has kept those behind it from beginning, or one has."""
        if was_good:
            self._pause = max(MIN_PAUSE, self._pause // 2)
        elif self._was_poor:
            self._left = self._pause
            self._pause = min(MAX_PAUSE, self._pause * 2)
        self._was_poor = not was_good


@dataclass(frozen=True, slots=True, eq=False)
class _Running:
    """What must be kept until a batch is over, and who is told then."""

    batch: driver.Batch
    before: driver.Batch | None
    arguments: bytes
    results: bytes
    on_end: Callable[[driver.Batch, bytes], None]


class Batches:
    """Belongs to an event loop. The mutable state is the batches that are not over, in order."""

    def __init__(self, maker: Maker, loop: asyncio.AbstractEventLoop) -> None:
        self._maker = maker
        self._loop = loop
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._running: deque[_Running] = deque()
        loop.add_reader(self._bell, self._on_bell)

    def begin(
        self,
        batch: driver.Batch,
        arguments: bytes,
        calls: int,
        on_end: Callable[[driver.Batch, bytes], None],
        *,
        before: driver.Batch | None = None,
    ) -> bool:
        """Have the maker make so many calls, whose lowered arguments lie one after the other, if it can.

        `on_end` gets the results of those that are over in the same form. It is told on the event loop, also
        if nobody waits any more. None begins if one of the batch `before` has not.
        """
        results = new_bytes(calls * VALUE_SIZE)
        batch.calls, batch.bell, batch.most_nanoseconds = calls, self._bell, MOST_NANOSECONDS
        batch.arguments, batch.results = bytes_address(arguments), bytes_address(results)
        batch.before = None if before is None else ctypes.addressof(before)
        self._running.append(_Running(batch, before, arguments, results, on_end))
        if self._maker.driver.begin_batch(self._maker.address, ctypes.addressof(batch)):
            return True
        self._running.pop()
        return False

    def _on_bell(self) -> None:
        os.eventfd_read(self._bell)
        running = self._running
        while running and running[0].batch.is_over:
            ended = running.popleft()
            try:
                ended.on_end(ended.batch, ended.results)
            except Exception as error:  # the others that are over would not be heard of
                told = {"message": "the end of a batch of calls failed", "exception": error}
                self._loop.call_exception_handler(told)

    def close(self) -> None:
        """None may be running."""
        self._loop.remove_reader(self._bell)
        os.close(self._bell)
