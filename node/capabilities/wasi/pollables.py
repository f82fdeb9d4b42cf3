"""What `wasi:io/poll` waits for: sources that become ready, and waiting for the first of several.

A source never runs a task of its own. Whoever waits arms every source with a callback, sleeps until one
calls it, disarms them all and looks again; so a wait costs nothing once it ended, however it ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, Self, cast

import anyio

from lattice.errors import Trapped

LONGEST_TIMER_SECONDS = 3600.0
"""A later deadline is reached in several steps: event loops refuse or round timers years ahead."""

SHORTEST_TIMER_SECONDS = 0.001
"""uvloop counts in milliseconds: a shorter timer fires at once, and the wait would spin till the deadline."""

Disarm = Callable[[], None]


class Source(Protocol):
    """Something that a guest can wait for."""

    def is_ready(self) -> bool: ...

    def arm(self, wake: Callable[[], None]) -> Disarm:
        """Have `wake` called on the loop when it may have become ready; the result takes that back."""
        ...


class Pollable:
    """The resource `pollable`: one handle of a guest to a source. Several may share a source."""

    __slots__ = ("_on_drop", "source")

    def __init__(self, source: Source, on_drop: Callable[[], None] | None = None) -> None:
        self.source = source
        self._on_drop = on_drop

    def drop(self) -> None:
        """The guest dropped it."""
        if self._on_drop is not None:
            self._on_drop()

    def is_ready(self) -> bool:
        return self.source.is_ready()

    async def block(self) -> None:
        """Wait until it is ready."""
        await wait_any((self.source,))


class Watched:
    """A resource whose pollables must be dropped before it, as in other hosts: mixed into a source."""

    __slots__ = ("_handles", "_watchers")

    def __init__(self) -> None:
        self._handles = 0
        self._watchers = 0

    def share(self) -> Self:
        """Count one more handle to this: pollables are in the way of dropping the last one only.

        For what a guest gets handles to as often as it asks; other resources have one and need no count.
        """
        self._handles += 1
        return self

    def subscribe(self) -> Pollable:
        """A pollable that waits for this."""
        self._watchers += 1
        return Pollable(cast("Source", self), self._unwatch)

    def _unwatch(self) -> None:
        self._watchers -= 1

    def check_unwatched(self, what: str) -> None:
        """Raise `Trapped` if the guest drops this while it still holds a pollable of it."""
        self._handles -= 1
        if self._watchers and self._handles <= 0:
            raise Trapped(f"the component dropped {what} before the pollable that waits for it")


class Always:
    """A source that is always ready."""

    __slots__ = ()

    def is_ready(self) -> bool:
        return True

    def arm(self, wake: Callable[[], None]) -> Disarm:
        wake()
        return _nothing


class Deadline:
    """Ready from an instant on, by the clock given; timers of the loop only wake the waiter."""

    __slots__ = ("_now_ns", "_when_ns")

    def __init__(self, when_ns: int, now_ns: Callable[[], int]) -> None:
        self._when_ns = when_ns
        self._now_ns = now_ns

    def is_ready(self) -> bool:
        return self._now_ns() >= self._when_ns

    def arm(self, wake: Callable[[], None]) -> Disarm:
        remaining = (self._when_ns - self._now_ns()) / 1e9
        delay = min(max(remaining, SHORTEST_TIMER_SECONDS), LONGEST_TIMER_SECONDS)
        return asyncio.get_running_loop().call_later(delay, wake).cancel


class Signal:
    """Wakes whoever waits for its owner; the owner decides what ready means and calls `notify`."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        # The waiters present, in the order in which they came. Bounded by the calls in progress.
        self._waiters: list[Callable[[], None]] = []

    def arm(self, wake: Callable[[], None]) -> Disarm:
        self._waiters.append(wake)
        return lambda: self._waiters.remove(wake)

    def notify(self) -> None:
        """Wake all waiters; each looks at its sources again."""
        for wake in tuple(self._waiters):
            wake()


async def wait_any(sources: Sequence[Source]) -> list[int]:
    """Wait until at least one source is ready; the indices of all that are, in ascending order."""
    while not (ready := [index for index, source in enumerate(sources) if source.is_ready()]):
        await _wait_for_change(sources)
    return ready


async def _wait_for_change(sources: Sequence[Source]) -> None:
    changed = anyio.Event()
    armed: list[Disarm] = []
    try:
        armed.extend(source.arm(changed.set) for source in sources)
        await changed.wait()
    finally:
        for disarm in armed:
            disarm()


def _nothing() -> None:
    return None
