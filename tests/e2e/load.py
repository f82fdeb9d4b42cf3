"""Steady streams of calls, as a busy program makes them, and what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from lattice.errors import LatticeError


@dataclass(frozen=True, slots=True)
class Outcome:
    """One call: when it began (loop time), how long it took, its result or its error."""

    began: float
    seconds: float
    result: Any = None
    error: LatticeError | None = None


@dataclass(slots=True)
class Load:
    """The calls that are over."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def errors(self) -> Counter[str]:
        """How many calls ended with which code."""
        return Counter(item.error.code for item in self.outcomes if item.error)

    @property
    def results(self) -> set[Any]:
        """All different results."""
        return {item.result for item in self.outcomes if item.error is None}

    def slowest(self) -> float:
        """Seconds of the slowest call."""
        return max(item.seconds for item in self.outcomes)

    def percentile(self, share: float) -> float:
        """Seconds that so large a share of the calls did not exceed."""
        ordered = sorted(item.seconds for item in self.outcomes)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def __repr__(self) -> str:
        errors = [item.error for item in self.outcomes if item.error]
        return f"<Load {len(self.outcomes)} calls, {len(errors)} errors {errors[:5]}>"

    async def call(self, make_call: Callable[[], Awaitable[Any]]) -> None:
        """Make one call and note its outcome."""
        began = anyio.current_time()
        result, error = None, None
        try:
            result = await make_call()
        except LatticeError as caught:
            error = caught
        self.outcomes.append(Outcome(began, anyio.current_time() - began, result, error))

    async def at_least(self, count: int, *, seconds: float = 20.0) -> None:
        """Return when so many more calls are over than at this moment."""
        goal = len(self.outcomes) + count
        with anyio.fail_after(seconds):
            while len(self.outcomes) < goal:  # noqa: ASYNC110 - the calls go on anyway
                await anyio.sleep(0.005)


@asynccontextmanager
async def steady(make_call: Callable[[], Awaitable[Any]], *, per_second: float) -> AsyncIterator[Load]:
    """Begin calls at a steady rate, whether or not earlier ones are over; on exit, wait for those begun."""
    load = Load()
    is_over = anyio.Event()

    async def begin() -> None:
        due = anyio.current_time()
        while not is_over.is_set():
            tasks.start_soon(load.call, make_call)
            due += 1 / per_second
            await anyio.sleep(max(0.0, due - anyio.current_time()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(begin)
        try:
            yield load
        finally:
            is_over.set()
