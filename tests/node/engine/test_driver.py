"""The native helper: the same with it and without, and what its thread was asked for is never lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from lattice.errors import LatticeError, TimedOut, Trapped
from node.engine import capi, driver, store
from node.engine.configuration import make_engine
from node.engine.driver import NativeTicker, build
from node.engine.engine import Engine
from node.engine.host import GuestCall, HostInterface
from tests.node.engine.components import ADD, KEY_VALUE
from tests.node.engine.conftest import SMALL, Bench, context
from tests.node.engine.test_threads import wait_until
from tests.waiting import until

STARTS_WITH_THE_HOST = """
(component
  (import "demo:kv/store@0.2.3" (instance $kv (export "get" (func (param "key" u32) (result u32)))))
  (core func $get (canon lower (func $kv "get")))
  (core module $m
    (import "kv" "get" (func $get (param i32) (result i32)))
    (global $got (mut i32) (i32.const 0))
    (func $start (global.set $got (call $get (i32.const 1))))
    (start $start)
    (func (export "got") (result i32) (global.get $got)))
  (core instance $i (instantiate $m (with "kv" (instance (export "get" (func $get))))))
  (func (export "got") (result u32) (canon lift (core func $i "got"))))
"""


STARTS_SLOWLY = """
(component
  (core module $m
    (func $start (local $left i32)
      (local.set $left (i32.const 20000000))
      (loop $work (br_if $work (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
    (start $start)
    (func (export "got") (result i32) (i32.const 7)))
  (core instance $i (instantiate $m))
  (func (export "got") (result u32) (canon lift (core func $i "got"))))
"""


FILLS = """
(component
  (core module $m
    (memory (export "memory") 64)
    (func (export "fill") (param $size i32) (result i32)
      (memory.fill (i32.const 64) (local.get $size) (local.get $size))
      (i32.store (i32.const 0) (i32.const 64))
      (i32.store (i32.const 4) (local.get $size))
      (i32.const 0)))
  (core instance $i (instantiate $m))
  (func (export "fill") (param "size" u32) (result (list u8))
    (canon lift (core func $i "fill") (memory (core memory $i "memory")))))
"""


@pytest.fixture(params=["with", "without", "without a thread"])
async def bench(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Bench]:
    """An engine with the driver and its thread, one without it, and one whose loop does the thread's work."""
    if request.param == "without":
        monkeypatch.setattr(store, "DRIVER", None)  # as where it was not built
    async with Engine(SMALL, has_spare_core=request.param == "with") as engine:
        assert (engine.maker is None) == (request.param == "without")
        bench = Bench(engine, tmp_path)
        yield bench
        for pool in bench.pools:
            await pool.aclose()
    assert engine.instances == 0


def _store(value: int = 1) -> list[HostInterface]:
    def get(call: GuestCall, key: int) -> int:
        return value

    functions = {"get": get, "note": lambda call, key: None}
    return [HostInterface(name="demo:kv/store@0.2.0", functions=functions)]


async def test_many_calls_at_once_each_have_a_sandbox(bench: Bench) -> None:
    pool = bench.pool(KEY_VALUE, imports=_store(), slots=64, queue_length=1000, prewarm=8)
    results: list[int] = []

    async def call() -> None:
        results.append(await pool.call("-", "run", [1], context()))

    for _ in range(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(60):
                tasks.start_soon(call)

    assert results == [2] * 300
    assert pool.statistics().instances_made >= 300


async def test_a_trap_ends_its_own_call_only(bench: Bench) -> None:
    pool = bench.pool(ADD, slots=8, prewarm=4)

    for _ in range(20):
        with pytest.raises(Trapped):
            await pool.call("-", "trap", [], context())
        assert await pool.call("-", "count", [], context()) == 1


async def test_a_start_that_asks_the_host_is_finished_whoever_began_it(bench: Bench) -> None:
    pool = bench.pool(STARTS_WITH_THE_HOST, imports=_store(42), slots=8, prewarm=4)

    for _ in range(50):
        assert await pool.call("-", "got", [], context()) == 42


async def test_a_start_that_computes_is_interrupted_whoever_began_it(bench: Bench) -> None:
    pool = bench.pool(STARTS_SLOWLY, slots=8, prewarm=4)

    for _ in range(5):
        assert await pool.call("-", "got", [], context()) == 7
        await anyio.sleep(0.05)  # the epoch clock comes to rest


async def test_a_large_result_is_whole_whoever_calls_meanwhile(bench: Bench) -> None:
    pool = bench.pool(FILLS, slots=32, prewarm=4)
    results: dict[int, bytes] = {}

    async def call(size: int) -> None:
        results[size] = await pool.call("-", "fill", [size], context())

    for size in range(4):
        await call(size)
    async with anyio.create_task_group() as tasks:
        for size in [*range(1_000_000, 1_000_012), *range(20)]:
            tasks.start_soon(call, size)

    assert results == {size: bytes([size % 256]) * size for size in results}
    assert len(results) == 32


async def test_a_large_result_takes_its_sandbox_with_it(bench: Bench) -> None:
    pool = bench.pool(FILLS, slots=4, prewarm=4)

    for _ in range(50):
        assert len(await pool.call("-", "fill", [300_000], context())) == 300_000
    assert bench.engine.instances <= 10


async def test_what_is_kept_ready_gives_way_to_others_whenever_it_was_made(bench: Bench) -> None:
    pool = bench.pool(ADD, slots=8, prewarm=8)
    for _ in range(30):
        await pool.call("-", "count", [], context())
        await anyio.sleep(0.001)
    while bench.engine.make_room():
        pass
    await pool.call("-", "count", [], context())
    await until(lambda: pool.statistics().prewarmed > 0)

    assert bench.engine.make_room()


async def test_fewer_slots_keep_fewer_sandboxes_ready(bench: Bench) -> None:
    pool = bench.pool(ADD, slots=40, prewarm=40)
    for _ in range(20):
        await pool.call("-", "count", [], context())
        await anyio.sleep(0.001)
    await until(lambda: pool.statistics().prewarmed > 15)
    pool.resize(2)
    made = pool.statistics().instances_made
    for _ in range(40):
        await pool.call("-", "count", [], context())
        await anyio.lowlevel.checkpoint()

    await until(lambda: pool.statistics().prewarmed <= 2)
    assert pool.statistics().instances_made >= made
    await pool.aclose()
    assert pool.statistics().instances_made >= made


async def test_the_time_of_a_call_that_leaves_the_shelf_counts_whole(bench: Bench) -> None:
    async def get(call: GuestCall, key: int) -> int:
        await anyio.sleep(0.01)
        return 1

    functions = {"get": get, "note": lambda call, key: None}
    imports = [HostInterface(name="demo:kv/store@0.2.0", functions=functions)]
    pool = bench.pool(KEY_VALUE, imports=imports)

    for _ in range(10):
        await pool.call("-", "run", [1], context())

    statistics = pool.statistics()
    assert (statistics.calls, statistics.in_flight) == (10, 0)
    assert statistics.busy_seconds > 0.1


async def test_a_pool_that_closes_gives_back_what_was_being_made(bench: Bench) -> None:
    for _ in range(20):
        pool = bench.pool(KEY_VALUE, imports=_store(), slots=16, prewarm=16)
        for _ in range(9):
            await pool.call("-", "run", [1], context())
        await pool.aclose()

    assert bench.engine.instances == 0


async def test_calls_beyond_the_room_fail_and_leave_it_as_it_was(bench: Bench) -> None:
    pool = bench.pool(KEY_VALUE, imports=_store(), slots=200, queue_length=400, prewarm=16)
    outcomes: list[str] = []

    async def call() -> None:
        try:
            outcomes.append(str(await pool.call("-", "run", [1], context())))
        except LatticeError as error:
            outcomes.append(error.code)

    async with anyio.create_task_group() as tasks:
        for _ in range(300):
            tasks.start_soon(call)

    assert set(outcomes) <= {"2", "overloaded"}
    assert await pool.call("-", "run", [1], context()) == 2


async def test_a_guest_that_spins_is_interrupted_also_after_the_clock_has_rested(bench: Bench) -> None:
    pool = bench.pool(ADD, slots=2)
    for _ in range(3):
        await anyio.to_thread.run_sync(wait_until, lambda: bench.engine.ticker.is_idle)
        with pytest.raises(TimedOut):
            await pool.call("-", "spin", [], context(0.05))
    await pool.aclose()
    await anyio.to_thread.run_sync(wait_until, lambda: bench.engine.instances == 0)


@pytest.mark.slow
def test_the_driver_builds_from_its_source(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", build.__name__, str(tmp_path / "driver.so")], check=True)

    assert (tmp_path / "driver.so").stat().st_size > 0


def test_native_clock_rests_when_no_guest_runs_and_is_woken_by_each_that_begins() -> None:
    assert store.DRIVER is not None
    engine = make_engine(SMALL)
    ticker = NativeTicker(store.DRIVER, capi.engine_address(engine), 0.0001)
    try:
        for _ in range(50):
            wait_until(lambda: ticker.is_idle)
            before = ticker.ticks
            ticker.note()
            wait_until(lambda before=before: ticker.ticks > before)  # type: ignore[misc]
    finally:
        ticker.close()
        ticker.close()
        engine.close()


def load() -> driver.Driver | driver.Absence:
    return driver.load([0] * len(driver.FUNCTIONS), driver.Layout(*[0] * len(driver.Layout._fields)))


def test_without_the_file_it_is_said_how_to_build_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(driver, "LIBRARY", tmp_path / "driver.so")
    missing = load()
    (tmp_path / "driver.so").write_bytes(b"of another machine")
    damaged = load()

    assert isinstance(missing, driver.Absence)
    assert isinstance(damaged, driver.Absence)
    assert "was not built" in missing.reason
    assert "can't be loaded" in damaged.reason
    assert all(
        "`make setup`" in item.cure and "LATTICE_DRIVER=off" in item.cure for item in (missing, damaged)
    )
    assert not (missing.is_wanted or damaged.is_wanted)


def test_where_it_is_not_wanted_it_is_said_what_brings_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATTICE_DRIVER", "off")

    assert load() == driver.Absence(
        reason="LATTICE_DRIVER is `off`", cure="unset LATTICE_DRIVER", is_wanted=True
    )
