"""Calls that are over when they have been begun, and what becomes of those that are not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from lattice.errors import Failed, Invalid, LatticeError, NotFound, TimedOut, Unreachable
from lattice.outcome import Done, ended
from node.engine.engine import Engine
from node.engine.host import GuestCall, HostInterface
from node.engine.pool import ComponentPool
from node.engine.store import DRIVER
from tests.node.engine.components import ADD, KEY_VALUE
from tests.node.engine.conftest import SMALL, Bench, context
from tests.node.engine.test_driver import FILLS
from tests.waiting import until

pytestmark = pytest.mark.skipif(DRIVER is None, reason="without the native helper each call takes its time")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Engine(SMALL) as engine:
        bench = Bench(engine, tmp_path)
        yield bench
        for pool in bench.pools:
            await pool.aclose()
    assert engine.instances == 0


async def _warmed(pool: ComponentPool, function: str, args: list[Any]) -> ComponentPool:
    """The pool, once its function is known to be quick and a sandbox is ready for it."""
    await pool.call("-", function, args, context())
    await until(lambda: pool.statistics().prewarmed > 0)
    return pool


async def test_a_function_that_was_quick_is_over_at_once(bench: Bench) -> None:
    pool = await _warmed(bench.pool(ADD, prewarm=4), "add", [1, 1])

    outcome = pool.begin("-", "add", [1, 2], context())

    assert isinstance(outcome, Done)
    assert outcome.value == 3
    assert (pool.statistics().calls, pool.statistics().in_flight) == (2, 0)


async def test_the_first_call_takes_its_time(bench: Bench) -> None:
    outcome = bench.pool(ADD, prewarm=4).begin("-", "add", [1, 2], context())

    assert not isinstance(outcome, Done)
    assert await outcome == 3


@pytest.mark.parametrize(
    ("function", "args", "seconds", "error"),
    [
        ("add", [1, "two"], 5.0, Invalid),
        ("add", [1], 5.0, Invalid),
        ("subtract", [1, 2], 5.0, NotFound),
        ("add", [1, 2], -1.0, TimedOut),
    ],
)
async def test_what_a_call_fails_with_comes_by_awaiting_and_is_counted_once(
    bench: Bench, function: str, args: list[Any], seconds: float, error: type[LatticeError]
) -> None:
    pool = await _warmed(bench.pool(ADD, prewarm=4), "add", [1, 1])

    outcome = pool.begin("-", function, args, context(seconds))

    assert not isinstance(outcome, Done)
    with pytest.raises(error):
        await outcome
    statistics = pool.statistics()
    assert (statistics.calls, statistics.in_flight) == (2, 0)
    assert sum(statistics.errors.values()) == 1


async def test_a_pool_that_drains_begins_nothing(bench: Bench) -> None:
    pool = await _warmed(bench.pool(ADD, prewarm=4), "add", [1, 1])
    await pool.drain()

    with pytest.raises(Unreachable):
        await ended(pool.begin("-", "add", [1, 2], context()))


async def test_a_call_that_waits_for_the_host_has_a_permit_until_it_ends(bench: Bench) -> None:
    release = anyio.Event()

    async def get(call: GuestCall, key: int) -> int:
        if key == 2:
            await release.wait()
        elif key == 3:
            raise Failed("no such key")
        return key

    imports = [
        HostInterface(name="demo:kv/store@0.2.0", functions={"get": get, "note": lambda call, key: None})
    ]
    pool = await _warmed(bench.pool(KEY_VALUE, imports=imports, slots=1, prewarm=4), "run", [1])
    results: list[Any] = []

    async def call(key: int) -> None:
        try:
            results.append(await ended(pool.begin("-", "run", [key], context())))
        except Failed as error:
            results.append(error.message)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, 2)
        await until(lambda: pool.statistics().in_flight == 1)
        tasks.start_soon(call, 1)
        await until(lambda: pool.statistics().queued == 1)
        release.set()
    await call(3)

    assert results[:2] == [await pool.call("-", "run", [2], context()), 2]
    assert results[2] == "no such key"
    assert pool.statistics().in_flight == 0


async def test_cancelling_what_is_left_of_a_call_gives_its_permit_back(bench: Bench) -> None:
    async def get(call: GuestCall, key: int) -> int:
        if key == 2:
            await anyio.sleep_forever()
        return key

    imports = [
        HostInterface(name="demo:kv/store@0.2.0", functions={"get": get, "note": lambda call, key: None})
    ]
    pool = await _warmed(bench.pool(KEY_VALUE, imports=imports, slots=1, prewarm=4), "run", [1])

    with anyio.move_on_after(0.05):
        await ended(pool.begin("-", "run", [2], context()))

    assert pool.statistics().in_flight == 0
    assert pool.statistics().errors == {"cancelled": 1}
    assert await pool.call("-", "run", [1], context()) == 2


async def test_a_result_that_is_large_is_lifted_in_time(bench: Bench) -> None:
    pool = await _warmed(bench.pool(FILLS, prewarm=4), "fill", [10])

    outcome = pool.begin("-", "fill", [300_000], context())

    assert not isinstance(outcome, Done)
    assert len(await outcome) == 300_000
    assert pool.statistics().in_flight == 0
