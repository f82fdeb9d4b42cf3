"""The threads on which files are worked with, a few at a time for each component."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import anyio

from node.engine.workers import outlast

FILE_THREADS = 4
"""So many file operations of one component run side by side; a disk that hangs holds up few others."""

ALL_THREADS = 32
"""So many run for all components of the process."""

T = TypeVar("T")

_executor = ThreadPoolExecutor(ALL_THREADS, thread_name_prefix="files")


class FileThreads:
    """The share of one component."""

    def __init__(self, threads: int = FILE_THREADS) -> None:
        self._limiter = anyio.CapacityLimiter(threads)

    async def run(self, work: Callable[[], T]) -> T:
        """Run on a thread; cancelled, this still waits for its end: the file is not to be closed under it."""
        async with self._limiter:
            future = asyncio.wrap_future(_executor.submit(work))
            try:
                await asyncio.wait((future,))
            except BaseException:
                await outlast(future)
                raise
            return future.result()
