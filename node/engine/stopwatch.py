"""How much a thread has really computed: on a busy machine a thread may stand still while the clock runs."""

from __future__ import annotations

import time

STALE_SECONDS = 0.00025
"""Asking for a thread's time is a system call, so one answer serves for as long."""


class Stopwatch:
    """Measures what the event loop's thread computes; belongs to that thread."""

    __slots__ = ("_computed", "_marked")

    def __init__(self) -> None:
        self._marked = 0.0
        self._computed = 0.0

    def begin(self) -> float:
        """The clock now, to be asked before every poll."""
        now = time.perf_counter()
        if now - self._marked > STALE_SECONDS:
            self._marked = now
            self._computed = time.thread_time()
        return now

    def computed_seconds(self) -> float:
        """What the thread has surely computed since a `begin` that nothing but a poll has followed."""
        return time.thread_time() - self._computed - STALE_SECONDS
