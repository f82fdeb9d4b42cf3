"""The threads on which guests run that took too long on the event loop: as many as there are cores."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sys
from collections.abc import Callable
from typing import TypeVar

import anyio

T = TypeVar("T")

NICENESS = 10
"""Of the threads, where each has its own: the event loop, which all others wait for, goes first."""


class Workers:
    """Runs functions on threads, first come first served; guests give their thread back at every slice."""

    def __init__(self, threads: int | None = None) -> None:
        self._executor = concurrent.futures.ThreadPoolExecutor(
            threads or len(os.sched_getaffinity(0)), thread_name_prefix="guest", initializer=_yield_to_loop
        )

    async def run(self, function: Callable[[], T]) -> T:
        """Run on a thread. Cancelled before it began it won't begin; afterwards this waits until it ended."""
        job = self._executor.submit(function)
        future = asyncio.wrap_future(job)
        try:
            await asyncio.wait((future,))
        except BaseException:
            if not job.cancel():
                await outlast(future)
            raise
        return future.result()

    def close(self) -> None:
        """Wait for what runs; nothing new may be given."""
        self._executor.shutdown(wait=True, cancel_futures=True)


async def outlast(future: asyncio.Future[T]) -> None:
    """Wait for the end of a thread whatever happens: it uses what the caller is about to free."""
    with anyio.CancelScope(shield=True):
        while not future.done():
            try:
                await asyncio.wait((future,))
            except asyncio.CancelledError:
                continue
    if not future.cancelled():
        future.exception()  # seen: the cancellation is what counts


def _yield_to_loop() -> None:
    if sys.platform == "linux":
        os.nice(NICENESS)
