"""Who may call a component now, who waits, and who is turned away."""

from __future__ import annotations

from collections import deque

import anyio

from lattice.clock import now
from lattice.errors import Overloaded
from lattice.tasks import own_task


class Permits:
    """As many permits as a component has slots; beyond, a short queue with a bounded wait, in order.

    What was acquired is released, each permit once.
    """

    # The mutable state is `_free`, below zero while fewer slots are wanted than in use, and the waiters.

    def __init__(self, slots: int, *, queue_length: int, queue_seconds: float) -> None:
        self.slots = slots
        self._free = slots
        self._queue_length = queue_length
        self._queue_seconds = queue_seconds
        self._waiters: deque[anyio.Event] = deque()
        self._idle: anyio.Event | None = None

    @property
    def in_use(self) -> int:
        return self.slots - self._free

    @property
    def queued(self) -> int:
        return len(self._waiters)

    @property
    def has_free(self) -> bool:
        """Whether a permit is free and nobody waits for it."""
        return self._free > 0 and not self._waiters

    def acquire_nowait(self) -> bool:
        """Take a permit if one is free and nobody waits for it."""
        if self._free > 0 and not self._waiters:
            self._free -= 1
            return True
        return False

    def acquire_some(self, most: int) -> int:
        """Take permits that are free, so many at the most: how many those were."""
        return sum(self.acquire_nowait() for _ in range(most))

    async def acquire(self, deadline: float) -> None:
        """Wait for a permit, at most until `deadline`; raises `Overloaded`."""
        if self.acquire_nowait():
            return
        if len(self._waiters) >= self._queue_length:
            raise Overloaded(f"all {self.slots} slots and {self._queue_length} places in the queue are taken")
        await own_task()
        turn = anyio.Event()
        self._waiters.append(turn)
        seconds = min(self._queue_seconds, deadline - now())
        try:
            with anyio.move_on_after(seconds):
                await turn.wait()
        except BaseException:
            self._give_up(turn)
            raise
        if not turn.is_set():
            self._give_up(turn)
            raise Overloaded(f"no slot of {self.slots} became free within {max(seconds, 0.0):.3g} s")

    def release(self, permits: int = 1) -> None:
        """Give permits back, to the first who wait."""
        self._free += permits
        self._hand_out()
        self._say_idle()

    def resize(self, slots: int) -> None:
        """Change the number of slots; calls in progress are not interrupted."""
        self._free += slots - self.slots
        self.slots = slots
        self._hand_out()

    async def wait_idle(self) -> None:
        """Wait until no permit is in use; those who wait for one get it first."""
        while self.in_use or self._waiters:
            idle = self._idle = self._idle or anyio.Event()  # one for all who wait
            await idle.wait()

    def _hand_out(self) -> None:
        while self._free > 0 and self._waiters:
            self._free -= 1
            self._waiters.popleft().set()

    def _give_up(self, turn: anyio.Event) -> None:
        if turn.is_set():
            self.release()
        else:
            self._waiters.remove(turn)
            self._say_idle()

    def _say_idle(self) -> None:
        if self._idle and not self.in_use:
            self._idle.set()
            self._idle = None
