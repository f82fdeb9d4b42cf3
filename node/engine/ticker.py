"""The clock by which running guests are made to give up their thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

TICK_SECONDS = 0.001
IDLE_TICKS = 20
"""Without a poll for so many ticks the clock rests: whatever ran then has long been interrupted."""
MOST_PAUSE_SECONDS = 1.0


class Ticker:
    """Calls `tick` every millisecond from a thread of its own while guests run, and costs little otherwise.

    It must be a thread: a guest that runs on the event loop keeps the loop from running anything. While it
    rests, it makes up for many ticks now and then: a thread that is kept from running between `note` and its
    poll, as on a busy machine, may begin that when the clock rests again.
    """

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._is_wanted = False
        self.is_idle = False
        self._is_closed = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="epoch-ticker", daemon=True)
        self._thread.start()

    def note(self) -> None:
        """Say that a guest is about to run. Any thread may; it must precede every poll."""
        self._is_wanted = True
        if self.is_idle:
            self._wake.set()

    def close(self) -> None:
        """Stop the thread and wait until it has ended, a tick at most."""
        self._is_closed = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        quiet = 0
        while not self._is_closed:
            time.sleep(TICK_SECONDS)
            self._tick()
            quiet = 0 if self._is_wanted else quiet + 1
            self._is_wanted = False
            if quiet >= IDLE_TICKS:
                self._rest()
                quiet = 0

    def _rest(self) -> None:
        # `note` writes `_is_wanted` before it reads `is_idle`, this the other way round: one sees the other.
        self.is_idle = True
        pause = IDLE_TICKS * TICK_SECONDS
        while not (self._is_wanted or self._is_closed or self._wake.wait(pause)):
            for _ in range(IDLE_TICKS):
                self._tick()
            pause = min(2 * pause, MOST_PAUSE_SECONDS)
        self._wake.clear()
        self.is_idle = False
