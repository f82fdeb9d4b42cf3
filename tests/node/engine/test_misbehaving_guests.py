"""Guests that trap, loop, recurse or take memory without end: each meets its limit, nobody else notices."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest

from lattice.errors import TimedOut, Trapped
from node.engine.driver import NativeTicker
from node.engine.engine import Engine
from node.engine.pace import Standing
from node.engine.ticker import Ticker
from tests.node.engine.components import ADD, KEY_VALUE
from tests.node.engine.conftest import Bench, context
from tests.node.engine.test_host_functions import store
from tests.waiting import until

GREEDY = """
(component
  (core module $m (memory 100) (func (export "f")))
  (core instance $i (instantiate $m))
  (func (export "f") (canon lift (core func $i "f"))))
"""
LOOPS_AT_START = """
(component
  (core module $m (func $loop (loop $l br $l)) (start $loop) (func (export "f")))
  (core instance $i (instantiate $m))
  (func (export "f") (canon lift (core func $i "f"))))
"""
GROWS_A_TABLE = """
(component
  (core module $m (table $t 1 funcref)
    (func (export "f") (param i32) (result i32) ref.null func local.get 0 table.grow $t))
  (core instance $i (instantiate $m))
  (func (export "f") (param "n" u32) (result s32) (canon lift (core func $i "f"))))
"""


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [("trap", [], "reached an `unreachable` instruction"), ("recurse", [0], "stack is exhausted")],
)
async def test_trap_is_told_with_its_cause(
    bench: Bench, function: str, arguments: list[int], message: str
) -> None:
    pool = bench.pool(ADD)

    with pytest.raises(Trapped, match=message) as caught:
        await pool.call("-", function, arguments, context())
    assert "wasm backtrace" in caught.value.details["trace"]


async def test_endless_loop_ends_with_its_budget(bench: Bench) -> None:
    pool = bench.pool(ADD)
    began = time.monotonic()

    with pytest.raises(TimedOut):
        await pool.call("-", "spin", [], context(0.05))

    assert time.monotonic() - began < 5
    assert await pool.call("-", "add", [1, 2], context()) == 3


class LateTicker:
    """Has who notes that a guest is to run go on only when the clock rests again, as on a busy machine."""

    def __init__(self, ticker: Ticker | NativeTicker) -> None:
        self._ticker = ticker

    def note(self) -> None:
        self._ticker.note()
        while self._is_wanted or not self._ticker.is_idle:
            pass

    @property
    def _is_wanted(self) -> bool:
        wanted = self._ticker._is_wanted
        return wanted if isinstance(wanted, bool) else bool(wanted.value)

    def close(self) -> None:
        self._ticker.close()


async def test_endless_loop_that_begins_when_the_clock_rests_ends_too(
    bench: Bench, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = bench.pool(ADD)
    await pool.call("-", "add", [1, 2], context())
    monkeypatch.setattr(engine, "ticker", LateTicker(engine.ticker))

    with pytest.raises(TimedOut):
        await pool.call("-", "spin", [], context(0.05))


async def test_endless_loop_at_start_ends_with_its_budget(bench: Bench) -> None:
    pool = bench.pool(LOOPS_AT_START)

    with pytest.raises(TimedOut):
        await pool.call("-", "f", [], context(0.05))


async def test_endless_host_calls_end_with_their_budget_and_leave_the_loop_to_others(bench: Bench) -> None:
    pool = bench.pool(KEY_VALUE, imports=store(lambda call, key: 1))
    turns = 0

    async with anyio.create_task_group() as tasks:

        async def others() -> None:
            nonlocal turns
            while True:
                await anyio.sleep(0.001)
                turns += 1

        tasks.start_soon(others)
        with pytest.raises(TimedOut):
            await pool.call("-", "pester", [], context(0.5))
        tasks.cancel_scope.cancel()

    assert turns > 10


async def test_memory_grows_to_the_limit_and_no_further(bench: Bench) -> None:
    pool = bench.pool(ADD, memory_bytes=10 << 16)

    assert await pool.call("-", "grow", [9], context()) == 1
    assert await pool.call("-", "grow", [10], context()) == -1


async def test_component_that_needs_more_memory_than_its_limit_is_told_so(bench: Bench) -> None:
    pool = bench.pool(GREEDY, memory_bytes=1 << 20)

    with pytest.raises(Trapped, match="needs 6553600 bytes of memory to start: raise its memory limit"):
        await pool.call("-", "f", [], context())


async def test_table_grows_to_the_limit_and_no_further(bench: Bench) -> None:
    pool = bench.pool(GROWS_A_TABLE, max_table_elements=100)

    assert await pool.call("-", "f", [99], context()) == 1
    assert await pool.call("-", "f", [100], context()) == -1


async def test_spinning_guest_can_be_cancelled(bench: Bench, engine: Engine) -> None:
    pool = bench.pool(ADD, prewarm=0)

    with anyio.move_on_after(0.03) as scope:
        await pool.call("-", "spin", [], context())

    assert scope.cancelled_caught
    await until(lambda: engine.instances == 0)


async def test_natively_cancelled_spinning_guest_is_freed_when_its_slice_has_ended(
    bench: Bench, engine: Engine
) -> None:
    pool = bench.pool(ADD, prewarm=0)
    loop = asyncio.get_running_loop()
    task = loop.create_task(pool.call("-", "spin", [], context()))  # as a foreign library would
    await anyio.sleep(0.02)

    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await until(lambda: engine.instances == 0)


async def test_waiting_guest_is_not_taken_for_one_that_spins(bench: Bench) -> None:
    async def get(call: object, key: int) -> int:
        await anyio.sleep(0.02)
        return 1

    pool = bench.pool(KEY_VALUE, imports=store(get))
    await pool.call("-", "repeat", [3], context())

    assert pool.standing("-", "repeat") is Standing.TRUSTED


async def test_function_that_overran_begins_on_workers_until_it_has_behaved(bench: Bench) -> None:
    pool = bench.pool(KEY_VALUE, imports=store(lambda call, key: 1))
    await pool.call("-", "work", [30_000_000], context())
    assert pool.standing("-", "work") is Standing.SLOW
    assert pool.standing("-", "run") is Standing.UNKNOWN

    for _ in range(200):
        if pool.standing("-", "work") is Standing.TRUSTED:
            break
        assert await pool.call("-", "work", [1], context()) == 7

    assert pool.standing("-", "work") is Standing.TRUSTED


COPIES = """
(component
  (core module $m (memory 1)
    (func (export "fill") (param $pages i32)
      (drop (memory.grow (local.get $pages)))
      (memory.fill (i32.const 0) (i32.const 1) (i32.mul (local.get $pages) (i32.const 65536)))))
  (core instance $i (instantiate $m))
  (func (export "fill") (param "pages" u32) (canon lift (core func $i "fill"))))
"""


async def test_guest_that_nothing_can_interrupt_is_kept_off_the_loop_from_then_on(bench: Bench) -> None:
    pool = bench.pool(COPIES)

    await pool.call("-", "fill", [800], context())

    assert pool.standing("-", "fill") is Standing.SLOW


async def test_long_work_gives_the_right_result(bench: Bench) -> None:
    pool = bench.pool(KEY_VALUE, imports=store(lambda call, key: 1))

    assert await pool.call("-", "work", [30_000_000], context()) == 7
