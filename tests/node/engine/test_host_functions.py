"""Functions that guests call: on the loop, awaited or not, each call with its own outcome."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from lattice.errors import Denied, Failed, NotFound, TimedOut
from node.engine.host import GuestCall, HostInterface
from node.engine.pace import Standing
from tests.node.engine.components import KEY_VALUE
from tests.node.engine.conftest import Bench, context
from tests.turns import counted_turns


def store(get: Callable[..., Any], note: Callable[..., Any] = lambda call, key: None) -> list[HostInterface]:
    return [HostInterface(name="demo:kv/store@0.2.0", functions={"get": get, "note": note})]


async def test_plain_function_is_called_on_the_event_loop(bench: Bench) -> None:
    threads = []

    def get(call: GuestCall, key: int) -> int:
        threads.append(threading.current_thread())
        return key * 2

    pool = bench.pool(KEY_VALUE, imports=store(get))

    assert await pool.call("-", "run", [20], context()) == 41
    assert threads == [threading.main_thread()]


async def test_coroutine_suspends_the_guest(bench: Bench) -> None:
    async def get(call: GuestCall, key: int) -> int:
        await anyio.sleep(0.001)
        return key * 2

    pool = bench.pool(KEY_VALUE, imports=store(get))

    assert await pool.call("-", "run", [20], context()) == 41


async def test_guest_on_a_worker_still_calls_on_the_event_loop(bench: Bench) -> None:
    threads = set()

    def get(call: GuestCall, key: int) -> int:
        threads.add(threading.current_thread())
        return 1

    pool = bench.pool(KEY_VALUE, imports=store(get))

    assert await pool.call("-", "labour", [40], context()) == 40
    assert pool.standing("-", "labour") is Standing.SLOW
    assert threads == {threading.main_thread()}


async def test_guest_that_only_calls_the_host_stays_on_the_loop_and_takes_turns(bench: Bench) -> None:
    pool = bench.pool(KEY_VALUE, imports=store(lambda call, key: 1))
    async with counted_turns() as turns:
        assert await pool.call("-", "repeat", [4000], context()) == 4000

    assert pool.standing("-", "repeat") is Standing.TRUSTED
    assert turns.count > 4


async def test_function_sees_its_call_and_what_its_instance_keeps(bench: Bench) -> None:
    def get(call: GuestCall, key: int) -> int:
        count: int = call.instance.state.get("count", 0) + 1
        call.instance.state["count"] = count
        call.log("stdout", f"{call.component} {call.call_id} {call.context.deadline > 0}".encode())
        return count

    fresh = bench.pool(KEY_VALUE, imports=store(get))
    reused = bench.pool(KEY_VALUE, imports=store(get), reuse=10)

    assert [await fresh.call("-", "run", [1], context()) for _ in range(2)] == [2, 2]
    assert [await reused.call("-", "run", [1], context()) for _ in range(2)] == [2, 3]
    assert bench.output[0] == ("stdout", b"guest test True")


async def test_lattice_error_of_a_function_ends_the_call_as_it_is(bench: Bench) -> None:
    def get(call: GuestCall, key: int) -> int:
        raise NotFound("no such key")

    pool = bench.pool(KEY_VALUE, imports=store(get))

    with pytest.raises(NotFound, match="no such key"):
        await pool.call("-", "run", [1], context())


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()]
)
@pytest.mark.parametrize("is_awaited", [False, True])
async def test_any_other_exception_becomes_failed_with_an_id(
    bench: Bench, error: type[BaseException], is_awaited: bool
) -> None:
    def get(call: GuestCall, key: int) -> int:
        raise error(3)

    async def get_later(call: GuestCall, key: int) -> int:
        await anyio.lowlevel.checkpoint()
        raise error(3)

    pool = bench.pool(KEY_VALUE, imports=store(get_later if is_awaited else get))

    with pytest.raises(Failed, match=r"demo:kv/store@0.2.3#get failed") as caught:
        await pool.call("-", "run", [1], context())
    assert caught.value.error_id


async def test_exceptions_stay_with_their_calls(bench: Bench) -> None:
    async def get(call: GuestCall, key: int) -> int:
        await anyio.sleep(0.0001 * (key % 3))
        if key % 2:
            raise NotFound(f"key {key}")
        return key

    pool = bench.pool(KEY_VALUE, imports=store(get), slots=90, queue_length=1000)
    outcomes: dict[int, Any] = {}

    async def call(key: int) -> None:
        try:
            outcomes[key] = await pool.call("-", "run", [key], context())
        except NotFound as error:
            outcomes[key] = error.message

    async with anyio.create_task_group() as tasks:
        for key in range(300):
            tasks.start_soon(call, key)

    assert outcomes == {key: f"key {key}" if key % 2 else key + 1 for key in range(300)}


async def test_wrong_result_of_a_function_is_the_hosts_failure(bench: Bench) -> None:
    pool = bench.pool(KEY_VALUE, imports=store(lambda call, key: "text"))

    with pytest.raises(Failed, match="failed; the log has more"):
        await pool.call("-", "run", [1], context())


async def test_result_of_a_function_without_one_must_be_none(bench: Bench) -> None:
    pool = bench.pool(KEY_VALUE, imports=store(lambda call, key: 1, lambda call, key: 5))

    with pytest.raises(Failed):
        await pool.call("-", "note", [1], context())


async def test_many_calls_may_be_suspended_at_once(bench: Bench) -> None:
    arrived = 0
    everyone = anyio.Event()

    async def get(call: GuestCall, key: int) -> int:
        nonlocal arrived
        arrived += 1
        if arrived == 90:
            everyone.set()
        await everyone.wait()
        return key

    pool = bench.pool(KEY_VALUE, imports=store(get), slots=90, prewarm=0)
    results = []

    async def call(key: int) -> None:
        results.append(await pool.call("-", "run", [key], context()))

    async with anyio.create_task_group() as tasks:
        for key in range(90):
            tasks.start_soon(call, key)

    assert sorted(results) == list(range(1, 91))


async def test_cancelling_ends_a_suspended_guest(bench: Bench) -> None:
    entered = anyio.Event()
    has_left = anyio.Event()

    async def get(call: GuestCall, key: int) -> int:
        entered.set()
        try:
            await anyio.sleep_forever()
        finally:
            has_left.set()
        return key

    pool = bench.pool(KEY_VALUE, imports=store(get))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pool.call, "-", "run", [1], context())
        await entered.wait()
        tasks.cancel_scope.cancel()

    assert has_left.is_set()
    assert pool.statistics().in_flight == 0


async def test_budget_ends_a_guest_that_waits(bench: Bench) -> None:
    async def get(call: GuestCall, key: int) -> int:
        await anyio.sleep_forever()
        return key

    pool = bench.pool(KEY_VALUE, imports=store(get))

    with pytest.raises(TimedOut):
        await pool.call("-", "run", [1], context(0.01))


async def test_missing_import_is_denied_before_anything_runs(bench: Bench) -> None:
    with pytest.raises(Denied, match=r"`demo:kv/store@0.2.3`, which nothing provides"):
        bench.pool(KEY_VALUE)


async def test_missing_function_of_an_import_is_denied_by_its_signature(bench: Bench) -> None:
    interface = HostInterface(name="demo:kv/store@0.2.9", functions={"get": lambda call, key: 1})

    with pytest.raises(Denied, match=r"note: func\(key: u32\).*`demo:kv/store@0.2.9` does not have"):
        bench.pool(KEY_VALUE, imports=[interface])


@pytest.mark.parametrize("version", ["0.3.0", "1.2.3", "0.2.3-draft"])
async def test_incompatible_version_of_an_import_is_denied(bench: Bench, version: str) -> None:
    interface = HostInterface(name=f"demo:kv/store@{version}", functions={})

    with pytest.raises(Denied):
        bench.pool(KEY_VALUE, imports=[interface])
