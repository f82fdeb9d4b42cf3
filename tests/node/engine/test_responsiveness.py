"""The event loop stays responsive whatever guests do."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable

import anyio
import pytest

from lattice.errors import TimedOut
from node.engine.pool import ComponentPool
from tests.node.engine.components import ADD
from tests.node.engine.conftest import Bench, context

MAX_P99_SECONDS = 0.010
"""What the design promises; measured at 1 to 6 ms on two busy cores."""
SECONDS = 1.0
MEASUREMENTS = 5
"""At most: another process may spoil one of them, a guest that holds the loop all."""


async def _spin(pool: ComponentPool, seconds: float) -> None:
    with pytest.raises(TimedOut):
        await pool.call("-", "spin", [], context(seconds))


async def _p99_of_lag(seconds: float) -> float:
    lags = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        await anyio.sleep(0.001)
        lags.append(time.perf_counter() - began - 0.001)
    return sorted(lags)[len(lags) * 99 // 100]


async def _least(measure: Callable[[], Awaitable[float]]) -> float:
    least = math.inf
    for _ in range(MEASUREMENTS):
        least = min(least, await measure())
        if least < MAX_P99_SECONDS:
            break
    return least


@pytest.mark.slow
@pytest.mark.parametrize("guests", [4, 64])
async def test_spinning_guests_leave_the_loop_to_others(bench: Bench, guests: int) -> None:
    pool = bench.pool(ADD, slots=guests)

    async def lag() -> float:
        async with anyio.create_task_group() as tasks:
            for _ in range(guests):
                tasks.start_soon(_spin, pool, SECONDS)
            p99 = await _p99_of_lag(SECONDS * 0.9)
        return p99

    assert await _least(lag) < MAX_P99_SECONDS


@pytest.mark.slow
async def test_calls_of_others_are_served_beside_spinning_guests(bench: Bench) -> None:
    spinning, other = bench.pool(ADD, slots=4), bench.pool(ADD)

    async def delay() -> float:
        times = []
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(_spin, spinning, SECONDS)
            end = time.perf_counter() + SECONDS * 0.9
            while time.perf_counter() < end:
                began = time.perf_counter()
                await other.call("-", "add", [1, 2], context())
                times.append(time.perf_counter() - began)
                await anyio.sleep(0.001)
        return sorted(times)[len(times) * 99 // 100]

    assert await _least(delay) < MAX_P99_SECONDS
