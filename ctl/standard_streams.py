"""The program's own standard streams, read and written without blocking the event loop or the program's end.

Each has a thread of its own that Python does not wait for: nobody can call a read of a terminal back.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from lattice.frames import MAX_CHUNK_BYTES
from lattice.sources import Source

T = TypeVar("T")


class _Thread:
    """Runs blocking calls one after the other; what was cancelled meanwhile has no reader."""

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def run(self, function: Callable[[], T]) -> T:
        loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

        def work() -> None:
            try:
                result, error = function(), None
            except OSError as caught:
                result, error = None, caught
            try:
                loop.call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:
                return  # the loop has ended

        self._work.put(work)
        found: T = await future
        return found

    def _run(self) -> None:
        while True:
            self._work.get()()


def _settle(future: asyncio.Future[Any], result: Any, error: OSError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class StandardInput(Source):
    """A `ByteReceiver` of what the program is given; nothing is read before somebody receives."""

    def __init__(self, descriptor: int = 0) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._thread: _Thread | None = None

    async def _pull(self) -> bytes:
        self._thread = self._thread or _Thread("stdin")
        try:
            return await self._thread.run(lambda: os.read(self._descriptor, MAX_CHUNK_BYTES))
        except OSError:
            return b""  # closed, or a terminal that is another program's now


class StandardOutput:
    """Writes bytes to a descriptor; raises what the system says, `BrokenPipeError` when nobody reads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._thread = _Thread(f"output {descriptor}")

    async def write(self, data: bytes) -> None:
        """Write all of it."""
        await self._thread.run(lambda: self._write(memoryview(data)))

    def _write(self, rest: memoryview) -> None:
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
