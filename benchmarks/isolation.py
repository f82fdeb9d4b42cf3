"""What guests that compute do to the event loop, and to each other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress

import anyio
import anyio.to_thread

from benchmarks import guests
from benchmarks.engine import Call, Pools, Stock, open_pools
from benchmarks.measurement import Effort, Row, Target, compare, percentile
from lattice import wit
from lattice.errors import TimedOut

PROBE_SECONDS = 0.001
SPINNERS = 4
BURST = 64
FIB = 35
"""About 0.1 s of computing."""
QUICK_FIB = 25


def lag(effort: Effort) -> Iterator[Row]:
    """How late the event loop is while guests spin."""
    yield from anyio.run(_lag, effort, backend_options={"use_uvloop": True})


async def _lag(effort: Effort) -> list[Row]:
    target, rounds, seconds = Target(at_most=10.0), max(1, effort.rounds // 3), effort.seconds
    rows: list[list[float]] = [[], [], []]
    async with open_pools() as pools:
        known = pools.caller(await pools.compile(guests.spin()))
        await known(wit.WORLD, "add", 1, 2)
        for _ in range(rounds):
            rows[0].append(await _lag_while(lambda: anyio.sleep(seconds)))
            rows[1].append(await _lag_while(lambda: _spin(known, SPINNERS, seconds)))
            rows[2].append(await _lag_while(lambda: _spin_new(pools, BURST, seconds)))
    idle, spinning, arriving = (statistics.median(figures) for figures in rows)
    return [
        compare(f"loop lag p99 while {SPINNERS} guests spin", spinning, idle, "ms", target),
        compare(
            f"loop lag p99 while {BURST} calls of a new spinning component arrive",
            arriving,
            idle,
            "ms",
            target,
        ),
    ]


async def _spin(call: Call, count: int, seconds: float) -> None:
    async def one() -> None:
        with suppress(TimedOut):
            await call(wit.WORLD, "spin", seconds=seconds)

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(one)


async def _spin_new(pools: Pools, count: int, seconds: float) -> None:
    """A pool of its own: nothing is known yet of how its component behaves."""
    await _spin(pools.caller(await pools.compile(guests.spin())), count, seconds)


async def _lag_while(work: Callable[[], Awaitable[object]]) -> float:
    """The p99 of how late a timer of a millisecond is while the work is done, in milliseconds."""
    late: list[float] = []

    async def probe() -> None:
        while True:
            began = time.perf_counter()
            await anyio.sleep(PROBE_SECONDS)
            late.append(time.perf_counter() - began - PROBE_SECONDS)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(probe)
        await work()
        tasks.cancel_scope.cancel()
    return percentile(late, 0.99) * 1e3


def parallel(effort: Effort) -> Iterator[Row]:
    """Two guests that compute side by side, beside one."""
    yield from anyio.run(_parallel, effort, backend_options={"use_uvloop": True})


async def _parallel(effort: Effort) -> list[Row]:
    number = FIB if effort.rounds > 1 else QUICK_FIB
    one, two, stock_one, stock_two = [], [], [], []
    theirs = [Stock(guests.spin()).open(wit.WORLD, "fib") for _ in range(2)]
    async with open_pools() as pools:
        call = pools.caller(await pools.compile(guests.spin()))
        await _compute(call, 1, number)
        for _ in range(effort.rounds):
            one.append(await _compute(call, 1, number))
            two.append(await _compute(call, 2, number))
            stock_one.append(await _compute_stock(theirs[:1], number))
            stock_two.append(await _compute_stock(theirs, number))
    # The best round of each: what others do with the second core is no property of ours.
    name, target = "two guests that compute, beside one", Target(ratio_at_most=1.15)
    return [
        compare(name, min(two) * 1e3, min(one) * 1e3, "ms", target),
        compare(f"{name}: stock on two threads", min(stock_two) * 1e3, min(stock_one) * 1e3, "ms"),
    ]


async def _compute_stock(guests: Sequence[Callable[[int], object]], number: int) -> float:
    """What the machine has to give: the same code on threads, with nothing of ours."""
    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for guest in guests:
            tasks.start_soon(anyio.to_thread.run_sync, guest, number)
    return time.perf_counter() - began


async def _compute(call: Call, count: int, number: int) -> float:
    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(call, wit.WORLD, "fib", number)
    return time.perf_counter() - began
