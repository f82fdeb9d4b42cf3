"""A guest in a real sandbox, through the built-in interfaces."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import wasmtime

from lattice.errors import TimedOut, Trapped
from node.capabilities.wasi import Exited
from node.capabilities.wasi.lines import LINE_BYTES
from node.capabilities.wasi.randomness import RANDOM_BYTES
from node.engine.compiled import CompiledComponent
from node.engine.compiler import Compiler
from node.engine.limits import InstanceLimits
from node.engine.pool import ComponentPool
from tests.node.capabilities.sandboxes import Sandboxes, context

HERE = Path(__file__).parent
MILLISECOND = 1_000_000

MakePool = Callable[..., ComponentPool]


@pytest.fixture(scope="module")
async def compiled(compiler: Compiler) -> CompiledComponent:
    return await compiler.compile(bytes(wasmtime.wat2wasm((HERE / "wasi_guest.wat").read_text())))


@pytest.fixture(scope="module", params=["0.2.12", "0.2.0", "0.2.99"])
async def importer(compiler: Compiler, request: pytest.FixtureRequest) -> CompiledComponent:
    """A component that imports every interface of WASI at some version."""
    text = (HERE / "every_wasi_import.wat").read_text().replace("0.2.12", request.param)
    return await compiler.compile(bytes(wasmtime.wat2wasm(text)))


@pytest.fixture
def make_pool(sandboxes: Sandboxes, compiled: CompiledComponent) -> MakePool:
    """Makes pools of the guest that does what tests ask of it."""
    return partial(sandboxes.pool, compiled)


async def _call(
    pool: ComponentPool, function: str, *args: Any, call_id: str = "1", seconds: float = 5
) -> Any:
    return await pool.call("demo:wasi/acts", function, args, context(seconds, call_id))


async def _run(pool: ComponentPool) -> Any:
    return await pool.call("wasi:cli/run@0.2.12", "run", (), context())


async def test_environment_and_arguments_come_from_the_settings(make_pool: MakePool) -> None:
    pool = make_pool(environment={"A": "1", "B": "ü"}, arguments=("app", "--fast"))

    assert await _call(pool, "environment") == [["A", "1"], ["B", "ü"]]
    assert await _call(pool, "arguments") == ["app", "--fast"]


async def test_whole_lines_reach_the_log_at_once_and_the_rest_at_the_end(
    make_pool: MakePool, sandboxes: Sandboxes
) -> None:
    pool = make_pool()

    await _call(pool, "print", b"one\ntwo\nrest", call_id="a")

    assert sandboxes.printed == [("a", "stdout", b"one\ntwo"), ("a", "stdout", b"rest")]


async def test_a_reused_sandbox_prints_to_its_present_calls_log(
    make_pool: MakePool, sandboxes: Sandboxes
) -> None:
    pool = make_pool(slots=1, limits=InstanceLimits(reuse=10))

    for call_id in ("a", "b"):
        await _call(pool, "print", b"text", call_id=call_id)

    assert sandboxes.printed == [("a", "stdout", b"text"), ("b", "stdout", b"text")]


async def test_a_write_without_a_permit_traps_and_prints_nothing(
    make_pool: MakePool, sandboxes: Sandboxes
) -> None:
    with pytest.raises(Trapped, match="check-write"):
        await _call(make_pool(), "print-unasked", b"text")

    assert sandboxes.printed == []


async def test_bytes_of_every_value_are_printed_unchanged(make_pool: MakePool, sandboxes: Sandboxes) -> None:
    every_byte = bytes(range(256))

    await _call(make_pool(), "print", every_byte)

    assert b"\n".join(block for _, _, block in sandboxes.printed) == every_byte


async def test_standard_input_is_what_the_settings_say(make_pool: MakePool) -> None:
    assert await _call(make_pool(standard_input=b"typed"), "read", 3) == b"typ"
    assert await _call(make_pool(), "read", 3) == b""


SLEEPERS = 16


async def test_sleepers_sleep_side_by_side_and_the_loop_goes_on(make_pool: MakePool) -> None:
    pool = make_pool(slots=SLEEPERS)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await anyio.sleep(0.001)
            turns += 1

    began = time.monotonic()
    async with anyio.create_task_group() as counting:
        counting.start_soon(count_turns)
        async with anyio.create_task_group() as sleeping:
            for _ in range(SLEEPERS):
                sleeping.start_soon(_call, pool, "sleep", 250 * MILLISECOND)
        elapsed = time.monotonic() - began
        counting.cancel_scope.cancel()

    assert 0.25 <= elapsed < SLEEPERS * 0.25 / 2  # one after the other would take twice as long
    assert turns >= 10


async def test_poll_names_the_first_ready_one(make_pool: MakePool) -> None:
    pool = make_pool()

    assert await _call(pool, "first-of", 10**18, 5 * MILLISECOND) == [1]
    assert await _call(pool, "first-of", 0, 0) == [0, 1]


async def test_a_sleep_beyond_the_budget_times_out(make_pool: MakePool) -> None:
    with pytest.raises(TimedOut):
        await _call(make_pool(), "sleep", 10**18, seconds=0.05)


async def test_the_monotonic_clock_runs_and_hides_the_hosts_age(make_pool: MakePool) -> None:
    pool = make_pool()

    first, second = await _call(pool, "now"), await _call(pool, "now")

    assert 10**9 <= first < second < 10**11


async def test_random_bytes_have_the_length_asked_for_or_trap(make_pool: MakePool) -> None:
    pool = make_pool()

    assert len(await _call(pool, "random", 32)) == 32
    assert await _call(pool, "random", 0) == b""
    assert len(await _call(pool, "random", RANDOM_BYTES)) == RANDOM_BYTES
    with pytest.raises(Trapped, match="random"):
        await _call(pool, "random", 2**64 - 1)


@pytest.mark.parametrize(
    ("function", "argument", "status"),
    [("exit", {"ok": None}, 0), ("exit", {"err": None}, 1), ("exit-code", 9, 9)],
)
async def test_exit_within_a_function_traps_with_the_status(
    make_pool: MakePool, function: str, argument: Any, status: int
) -> None:
    with pytest.raises(Exited) as raised:
        await _call(make_pool(), function, argument)

    assert raised.value.status == status


async def test_the_exit_of_a_command_is_its_result_and_ends_the_sandbox(make_pool: MakePool) -> None:
    pool = make_pool(limits=InstanceLimits(reuse=10, prewarm=0))

    assert await _run(pool) == {"ok": None}
    assert await _run(pool) == {"ok": None}
    assert pool.statistics().instances_made == 2


async def test_printing_without_end_is_bounded_and_leaves_others_the_loop(
    make_pool: MakePool, sandboxes: Sandboxes
) -> None:
    pool = make_pool(limits=InstanceLimits(log_bytes_per_second=100_000))
    async with anyio.create_task_group() as tasks:

        async def flood() -> None:
            with pytest.raises(TimedOut):
                await _call(pool, "flood", 4096, seconds=0.3)

        tasks.start_soon(flood)
        late = [await _lateness() for _ in range(20)]

    assert sorted(late)[len(late) // 2] < 0.05
    assert max(len(block) for _, _, block in sandboxes.printed) <= LINE_BYTES
    assert sum(len(block) for _, _, block in sandboxes.printed) < 500_000
    assert pool.statistics().dropped_log_bytes > 0


async def test_a_blocking_write_above_the_interfaces_limit_traps(make_pool: MakePool) -> None:
    with pytest.raises(Trapped, match="4096"):
        await _call(make_pool(), "flood", 4097)


async def test_a_guest_that_hoards_handles_is_stopped(make_pool: MakePool) -> None:
    with pytest.raises(Trapped, match="handles"):
        await _call(make_pool(), "hoard", seconds=55)


async def test_a_component_that_imports_all_of_wasi_is_linked(
    sandboxes: Sandboxes, importer: CompiledComponent
) -> None:
    pool = sandboxes.pool(importer)

    assert await pool.call("demo:whole/start", "started", (), context()) is True


async def _lateness() -> float:
    began = time.monotonic()
    await anyio.sleep(0.005)
    return time.monotonic() - began - 0.005
