"""Calls that the maker's thread makes one after the other: what they come to, in what order, what is left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from lattice.errors import Failed, LatticeError, Trapped
from lattice.outcome import Done, Outcome, ended
from lattice.tasks import cancel
from node.engine import batches
from node.engine.batches import MAX_PAUSE, MIN_PAUSE, Yield
from node.engine.configuration import EngineSettings
from node.engine.engine import Engine
from node.engine.host import CallContext, GuestCall, HostInterface
from node.engine.pace import Standing
from node.engine.pool import ComponentPool
from node.engine.store import DRIVER
from tests.node.engine.conftest import SMALL, Bench, context
from tests.node.engine.test_driver import STARTS_WITH_THE_HOST
from tests.turns import counted_turns
from tests.waiting import until

pytestmark = pytest.mark.skipif(DRIVER is None, reason="without the native helper calls are begun one by one")

JUDGE = """
(component
  (import "demo:kv/store@0.2.3" (instance $kv (export "get" (func (param "key" u32) (result u32)))))
  (core func $get (canon lower (func $kv "get")))
  (core module $m
    (import "kv" "get" (func $get (param i32) (result i32)))
    (memory (export "memory") 8)
    (global $served (mut i32) (i32.const 0))
    (func (export "judge") (param $n i32) (result i32) (local $left i32)
      (global.set $served (i32.add (global.get $served) (i32.const 1)))
      (if (i32.gt_u (global.get $served) (i32.const 1)) (then unreachable))
      (if (i32.eq (local.get $n) (i32.const 13)) (then unreachable))
      (if (i32.eq (local.get $n) (i32.const 14)) (then (loop $l br $l)))
      (if (i32.eq (local.get $n) (i32.const 15)) (then
        (local.set $left (i32.const 400000))
        (loop $work (br_if $work (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))
      (if (i32.ge_u (local.get $n) (i32.const 1000)) (then
        (drop (call $get (local.get $n)))))
      (if (i32.and (i32.ge_u (local.get $n) (i32.const 100)) (i32.lt_u (local.get $n) (i32.const 200))) (then
        (i32.store (i32.const 0) (i32.const 1))
        (i32.store (i32.const 4) (i32.const 64))
        (i32.store (i32.const 8) (i32.mul (i32.sub (local.get $n) (i32.const 99)) (i32.const 5000)))
        (memory.fill (i32.const 64) (i32.const 120) (i32.const 500000))
        (return (i32.const 0))))
      (i32.const 32))
    (func (export "nothing") (param i32)))
  (core instance $i (instantiate $m (with "kv" (instance (export "get" (func $get))))))
  (func (export "judge") (param "n" u32) (result (result (error string)))
    (canon lift (core func $i "judge") (memory (core memory $i "memory"))))
  (func (export "nothing") (param "n" u32) (canon lift (core func $i "nothing"))))
"""
"""`judge` says ok to most numbers. 13 traps, 14 never ends, 15 takes a while, those from 100 give errors of
5,000 bytes and more, from 1000 ask the host. Each sandbox serves one call, or the second traps."""

OK = {"ok": None}


class Host:
    """The host function of the component: waits for `release` if it gets the number that is `held`."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, str]] = []
        self.held: int | None = None
        self.release = anyio.Event()

    async def get(self, call: GuestCall, key: int) -> int:
        self.asked.append((key, call.call_id))
        if key == self.held:
            await self.release.wait()
        if key == 1999:
            raise Failed("no such key")
        return key

    def imports(self) -> list[HostInterface]:
        return [HostInterface(name="demo:kv/store@0.2.0", functions={"get": self.get})]


@pytest.fixture(autouse=True)
def time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a machine that stands still for a while."""
    monkeypatch.setattr(batches, "MOST_NANOSECONDS", 10**10)


async def judge(bench: Bench, host: Host | None = None, **limits: Any) -> ComponentPool:
    """A pool whose function has shown that it is quick."""
    pool = bench.pool(JUDGE, imports=(host or Host()).imports(), **{"prewarm": 2, **limits})
    for function in ("judge", "nothing"):
        await pool.call("-", function, [1], context())
    return pool


def named(nth: int) -> CallContext:
    return CallContext(deadline=anyio.current_time() + 10, call_id=f"call {nth}")


def begin(
    pool: ComponentPool,
    numbers: list[Any],
    *,
    function: str = "judge",
    may_overlap: bool = False,
    make_context: Callable[[int], CallContext] = named,
) -> Awaitable[list[Outcome[Any]]] | None:
    deadline = anyio.current_time() + 10
    return pool.begin_batch(
        "-",
        function,
        len(numbers),
        lambda nth: [numbers[nth]],
        deadline,
        make_context,
        may_overlap=may_overlap,
    )


async def outcomes(pool: ComponentPool, numbers: list[Any], **options: Any) -> list[Outcome[Any]]:
    """Of a batch that is taken."""
    begun = begin(pool, numbers, **options)
    assert begun is not None
    with anyio.fail_after(10):
        return await begun


def values(found: list[Outcome[Any]]) -> list[Any]:
    """Of calls that are over."""
    return [outcome.value for outcome in found if isinstance(outcome, Done)]


async def test_all_are_over_each_in_a_sandbox_of_its_own(bench: Bench) -> None:
    pool = await judge(bench)
    before = pool.statistics()

    found = await outcomes(pool, list(range(2, 12)))

    after = pool.statistics()
    assert values(found) == [OK] * 10
    assert (after.calls - before.calls, after.in_flight, after.errors) == (10, 0, {})
    assert after.instances_made - before.instances_made >= 10
    assert after.busy_seconds > before.busy_seconds


async def test_a_function_without_a_result_gives_nothing(bench: Bench) -> None:
    assert values(await outcomes(await judge(bench), [1, 2, 3], function="nothing")) == [None] * 3


async def test_the_loop_has_its_turn_meanwhile(bench: Bench) -> None:
    pool = await judge(bench)
    begun = [begin(pool, [2] * 32) for _ in range(4)]
    async with counted_turns() as turns:
        for batch in begun:
            assert batch is not None
            assert values(await batch) == [OK] * 32

    assert turns.count > 4


async def test_a_call_that_asks_the_host_ends_the_batch_and_goes_on_by_itself(bench: Bench) -> None:
    host = Host()
    pool = await judge(bench, host)

    found = await outcomes(pool, [2, 3, 1000, 4, 5])

    assert values(found) == [OK, OK]
    assert len(found) == 3
    assert pool.statistics().in_flight == 1
    assert await ended(found[2]) == OK
    assert host.asked == [(1000, "call 2")]
    assert pool.statistics().in_flight == 0


async def test_one_may_be_left_under_way_where_they_may_overlap(bench: Bench) -> None:
    host = Host()
    host.held = 1000
    pool = await judge(bench, host)

    found = await outcomes(pool, [2, 1000, 3, 1001, 4], may_overlap=True)

    assert [isinstance(outcome, Done) for outcome in found] == [True, False, True, False]
    assert pool.statistics().in_flight == 2
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ended, found[1])
        assert await ended(found[3]) == OK
        assert pool.statistics().in_flight == 1
        host.release.set()
    assert sorted(host.asked) == [(1000, "call 1"), (1001, "call 3")]
    assert pool.statistics().in_flight == 0


async def test_none_overlap_without_a_permit_for_the_second(bench: Bench) -> None:
    pool = await judge(bench, slots=1)

    found = await outcomes(pool, [1000, 2], may_overlap=True)

    assert len(found) == 1
    assert await ended(found[0]) == OK


@pytest.mark.parametrize(("number", "error"), [(13, Trapped), (1999, Failed)])
async def test_a_call_that_fails_ends_the_batch_and_is_counted(
    bench: Bench, number: int, error: type[LatticeError]
) -> None:
    pool = await judge(bench)

    found = await outcomes(pool, [2, number, 3])

    assert values(found) == [OK]
    with pytest.raises(error):
        await ended(found[1])
    assert pool.statistics().errors == {error.code: 1}
    assert pool.statistics().in_flight == 0
    assert values(await outcomes(pool, [2, 3])) == [OK, OK]


@pytest.mark.parametrize(("number", "size"), [(100, 5000), (160, 305_000)])
async def test_a_result_with_parts_is_the_last(bench: Bench, number: int, size: int) -> None:
    pool = await judge(bench)

    found = await outcomes(pool, [2, number, 3])

    assert len(found) == 2
    assert isinstance(found[1], Done) == (size < 256 * 1024)
    assert await ended(found[1]) == {"err": "x" * size}
    assert pool.statistics().in_flight == 0


async def test_a_batch_that_takes_long_leaves_the_rest_for_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MOST_NANOSECONDS", 0)

    assert values(await outcomes(await judge(bench), [2, 3, 4])) == [OK]


async def test_many_calls_that_take_a_while_are_no_call_that_takes_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MOST_NANOSECONDS", 2_000_000)
    pool = await judge(bench)

    for _ in range(10):
        assert values(await outcomes(pool, [15] * 32))

    assert pool.statistics().busy_seconds > 0.01
    assert pool.standing("-", "judge") is Standing.TRUSTED


async def test_a_call_that_never_ends_keeps_no_other_from_its_turn(bench: Bench) -> None:
    pool = await judge(bench)

    found = await outcomes(
        pool,
        [2, 14, 3],
        make_context=lambda nth: CallContext(deadline=anyio.current_time() + 0.05, call_id="late"),
    )

    with pytest.raises(LatticeError, match="budget"):
        await ended(found[1])
    assert pool.standing("-", "judge") is Standing.SLOW
    assert begin(pool, [2, 3]) is None
    assert pool.statistics().in_flight == 0


async def test_what_waits_behind_a_batch_that_has_left_calls_is_not_begun(bench: Bench) -> None:
    pool = await judge(bench)
    begun = [begin(pool, numbers) for numbers in ([2, 1000, 3], [4, 5], [6, 7])]

    found = [await batch for batch in begun if batch is not None]

    assert [len(outcomes) for outcomes in found] == [2, 0, 0]
    await ended(found[0][1])
    assert pool.statistics().in_flight == 0
    assert values(await outcomes(pool, [2, 3])) == [OK, OK]


async def test_arguments_that_will_be_refused_are_left_to_a_call_of_their_own(bench: Bench) -> None:
    pool = await judge(bench)

    assert values(await outcomes(pool, [2, 3, "four", 5])) == [OK, OK]
    assert begin(pool, ["two", 3, 4]) is None
    assert pool.statistics().in_flight == 0


async def test_there_are_no_batches_where_calls_must_wait_or_be_refused(bench: Bench) -> None:
    pool = await judge(bench, slots=1)
    unknown = bench.pool(JUDGE, imports=Host().imports(), prewarm=2)
    without_shelf = bench.pool(JUDGE, imports=Host().imports(), prewarm=0)
    await without_shelf.call("-", "judge", [1], context())
    late = pool.begin_batch(
        "-", "judge", 8, lambda nth: [1], anyio.current_time() - 1, named, may_overlap=False
    )

    first = begin(pool, [2, 3])
    second = begin(pool, [4, 5])  # the only permit is taken

    assert first is not None
    assert values(await first) == [OK, OK]
    assert (second, late, begin(unknown, [2, 3]), begin(without_shelf, [2, 3])) == (None,) * 4
    await pool.drain()
    assert begin(pool, [2, 3]) is None


async def test_a_pool_that_drains_waits_for_its_batches(bench: Bench) -> None:
    pool = await judge(bench)
    begun = begin(pool, [2] * 32)
    assert begun is not None

    await pool.drain()

    assert values(await begun) == [OK] * 32


async def test_a_batch_that_is_cancelled_gives_back_all_that_it_had(bench: Bench) -> None:
    host = Host()
    host.held = 1000
    pool = await judge(bench, host)
    begun = begin(pool, [2, 1000, 3], may_overlap=True)
    assert begun is not None

    found: list[Outcome[Any]] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        found = await begun  # if it was over first
    for outcome in found:
        if not isinstance(outcome, Done):
            await cancel(outcome)

    await until(lambda: pool.statistics().in_flight == 0)
    assert values(await outcomes(pool, [2, 3])) == [OK, OK]


async def test_where_there_is_no_room_for_a_sandbox_calls_wait_for_one_by_themselves(tmp_path: Path) -> None:
    host = Host()
    host.held = 1000
    async with Engine(EngineSettings(max_instances=2)) as engine:
        bench = Bench(engine, tmp_path)
        pool = await judge(bench, host, prewarm=1)
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(pool.call, "-", "judge", [1000], context())
            await until(lambda: len(host.asked) == 2)
            assert begin(pool, [2, 3]) is None
            assert pool.statistics().in_flight == 2
            host.release.set()
        await pool.aclose()
        assert engine.instances == 0


async def test_a_start_that_asks_the_host_is_finished_before_any_call(bench: Bench) -> None:
    starts: list[int] = []

    async def get(call: GuestCall, key: int) -> int:
        await anyio.lowlevel.checkpoint()
        starts.append(key)
        return key

    imports = [HostInterface(name="demo:kv/store@0.2.0", functions={"get": get})]
    pool = bench.pool(STARTS_WITH_THE_HOST, imports=imports, prewarm=2)
    assert await pool.call("-", "got", [], context()) == 1
    begun = pool.begin_batch(
        "-", "got", 2, lambda nth: [], anyio.current_time() + 10, named, may_overlap=False
    )
    assert begun is not None

    assert await begun == []
    await until(lambda: len(starts) >= 2)  # its sandbox is kept for another call
    again = pool.begin_batch(
        "-", "got", 2, lambda nth: [], anyio.current_time() + 10, named, may_overlap=False
    )
    assert again is not None
    assert await again == []
    last = pool.begin_batch(
        "-", "got", 2, lambda nth: [], anyio.current_time() + 10, named, may_overlap=False
    )
    assert last is None  # so that calls get on
    assert await pool.call("-", "got", [], context()) == 1
    assert pool.statistics().in_flight == 0


async def test_batches_that_are_seldom_whole_are_tried_ever_less(bench: Bench) -> None:
    pool = await judge(bench)

    async def tried() -> bool:
        begun = begin(pool, [1000, 2, 3, 4, 5, 6])
        if begun is None:
            return False
        for outcome in await begun:
            await ended(outcome)
        return True

    taken = [await tried() for _ in range(40)]

    assert taken[:2] == [True, True]
    assert 2 < sum(taken) < 8


async def test_without_a_thread_of_its_own_none_are_taken(tmp_path: Path) -> None:
    async with Engine(SMALL, has_spare_core=False) as engine:
        bench = Bench(engine, tmp_path)
        pool = await judge(bench)
        assert begin(pool, [2, 3]) is None
        await pool.aclose()


def _skipped(yields: Yield) -> int:
    """How many calls are begun one by one before a batch is tried."""
    count = 0
    while not yields.is_good():
        count += 1
    return count


def test_batches_are_tried_less_the_more_of_them_were_poor() -> None:
    yields = Yield()
    found = []
    for was_good in (False, True, False, False, False, True, False, False):
        yields.note(was_good=was_good)
        found.append(_skipped(yields))

    assert found == [0, 0, 0, MIN_PAUSE, 2 * MIN_PAUSE, 0, 0, 2 * MIN_PAUSE]

    for _ in range(20):
        yields.note(was_good=False)
    assert _skipped(yields) == MAX_PAUSE
