"""A component's instances: who is served, in which sandbox, and what is counted."""

from __future__ import annotations

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from lattice.errors import Invalid, NotFound, Overloaded, Trapped, Unreachable
from node.engine.engine import Engine
from node.engine.host import GuestCall
from node.engine.limits import InstanceLimits
from tests.node.engine.components import ADD, KEY_VALUE
from tests.node.engine.conftest import Bench, context
from tests.node.engine.test_host_functions import store
from tests.waiting import until

IN_INTERFACE = """
(component
  (core module $m (func (export "double") (param i32) (result i32) local.get 0 i32.const 2 i32.mul))
  (core instance $i (instantiate $m))
  (func $double (param "n" u32) (result u32) (canon lift (core func $i "double")))
  (instance $math (export "double" (func $double)))
  (export "demo:math/arithmetic@0.2.1" (instance $math)))
"""


class Gate:
    """A host function that holds guests until it is opened."""

    def __init__(self) -> None:
        self.waiting = 0
        self.open = anyio.Event()
        self.imports = store(self._get)

    async def _get(self, call: GuestCall, key: int) -> int:
        self.waiting += 1
        await self.open.wait()
        return key


async def test_arguments_are_given_by_position_or_by_name(bench: Bench) -> None:
    pool = bench.pool(ADD)

    assert await pool.call("-", "add", [1, 2], context()) == 3
    assert await pool.call("-", "add", {"b": 4, "a": 3}, context()) == 7


@pytest.mark.parametrize("interface", ["demo:math/arithmetic@0.2.1", "demo:math/arithmetic@0.2.9"])
async def test_export_is_found_by_its_name_or_a_compatible_one(bench: Bench, interface: str) -> None:
    pool = bench.pool(IN_INTERFACE)

    assert await pool.call(interface, "double", [21], context()) == 42


@pytest.mark.parametrize(
    ("interface", "function", "message"),
    [
        ("-", "ad", r"has no function `ad`; did you mean `add`\?"),
        ("demo:math/add", "add", "exports no interface `demo:math/add`; it exports `-`"),
    ],
)
async def test_unknown_export_is_not_found(bench: Bench, interface: str, function: str, message: str) -> None:
    pool = bench.pool(ADD)

    with pytest.raises(NotFound, match=message):
        await pool.call(interface, function, [], context())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([1], r"takes 2 arguments \(a: u32, b: u32\), got 1"),
        ({"a": 1, "c": 2}, "`b` is missing, `c` is unknown"),
        ("12", "must be an array, or a map by name"),
        ([1, -1], r"argument 'b': -1 is out of range for u32 \(0 to 4294967295\)"),
        ([True, 1], "argument 'a': True is not an integer"),
    ],
)
async def test_wrong_arguments_are_invalid(bench: Bench, arguments: list[int], message: str) -> None:
    pool = bench.pool(ADD)

    with pytest.raises(Invalid, match=message):
        await pool.call("-", "add", arguments, context())
    assert pool.statistics().errors == {"invalid": 1}


async def test_every_call_gets_a_fresh_instance(bench: Bench) -> None:
    pool = bench.pool(ADD)

    assert [await pool.call("-", "count", [], context()) for _ in range(3)] == [1, 1, 1]


async def test_instance_serves_as_many_calls_as_reuse_says(bench: Bench) -> None:
    pool = bench.pool(ADD, reuse=2, prewarm=0)

    assert [await pool.call("-", "count", [], context()) for _ in range(5)] == [1, 2, 1, 2, 1]
    assert pool.statistics().instances_made == 3


async def test_refused_arguments_do_not_cost_an_instance(bench: Bench) -> None:
    pool = bench.pool(ADD, reuse=9, prewarm=0)
    await pool.call("-", "count", [], context())

    with pytest.raises(Invalid):
        await pool.call("-", "add", [], context())

    assert await pool.call("-", "count", [], context()) == 2


async def test_trapped_instance_serves_no_other_call(bench: Bench) -> None:
    pool = bench.pool(ADD, reuse=100, prewarm=0)
    await pool.call("-", "count", [], context())

    with pytest.raises(Trapped):
        await pool.call("-", "trap", [], context())

    assert await pool.call("-", "count", [], context()) == 1


async def test_instances_are_made_ahead_of_calls(bench: Bench) -> None:
    pool = bench.pool(ADD, prewarm=2)
    assert pool.statistics().prewarmed == 0

    for _ in range(3):
        await pool.call("-", "add", [1, 2], context())

    await until(lambda: pool.statistics().prewarmed > 0)
    assert pool.statistics().instances_made > 3


async def test_calls_beyond_slots_and_queue_are_overloaded_and_the_rest_is_served(bench: Bench) -> None:
    gate = Gate()
    pool = bench.pool(KEY_VALUE, imports=gate.imports, slots=2, queue_length=3, queue_seconds=30)
    outcomes: list[str] = []

    async def call() -> None:
        try:
            await pool.call("-", "run", [1], context())
            outcomes.append("served")
        except Overloaded:
            outcomes.append("overloaded")

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(call)
        await until(lambda: (gate.waiting, pool.statistics().queued, len(outcomes)) == (2, 3, 5))
        gate.open.set()

    assert sorted(outcomes) == ["overloaded"] * 5 + ["served"] * 5
    assert pool.statistics().in_flight == 0
    assert await pool.call("-", "run", [1], context()) == 2


async def test_waiting_for_a_slot_is_bounded(bench: Bench) -> None:
    gate = Gate()
    pool = bench.pool(KEY_VALUE, imports=gate.imports, slots=1, queue_seconds=0.01)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pool.call, "-", "run", [1], context())
        await wait_all_tasks_blocked()
        with pytest.raises(Overloaded, match=r"no slot of 1 became free within 0.01 s"):
            await pool.call("-", "run", [1], context())
        gate.open.set()


async def test_cancelled_waiter_leaves_the_queue(bench: Bench) -> None:
    gate = Gate()
    pool = bench.pool(KEY_VALUE, imports=gate.imports, slots=1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pool.call, "-", "run", [1], context())
        await wait_all_tasks_blocked()
        with anyio.move_on_after(0.01):
            await pool.call("-", "run", [2], context())
        assert pool.statistics().queued == 0
        gate.open.set()

    assert pool.statistics().errors == {"cancelled": 1}


async def test_more_slots_let_waiting_calls_in(bench: Bench) -> None:
    gate = Gate()
    pool = bench.pool(KEY_VALUE, imports=gate.imports, slots=1)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(pool.call, "-", "run", [1], context())
        await wait_all_tasks_blocked()
        pool.resize(3)
        await until(lambda: gate.waiting == 3)
        gate.open.set()


async def test_drain_finishes_calls_in_flight_and_refuses_new_ones(bench: Bench) -> None:
    gate = Gate()
    pool = bench.pool(KEY_VALUE, imports=gate.imports)
    results: list[int] = []

    async def call() -> None:
        results.append(await pool.call("-", "run", [1], context()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await wait_all_tasks_blocked()
        tasks.start_soon(pool.drain)
        await wait_all_tasks_blocked()
        with pytest.raises(Unreachable):
            await pool.call("-", "run", [1], context())
        assert results == []
        gate.open.set()

    assert results == [2]


async def test_node_without_room_is_overloaded_and_recovers(bench: Bench, engine: Engine) -> None:
    gate = Gate()
    pool = bench.pool(KEY_VALUE, imports=gate.imports, slots=200, prewarm=0)
    most = engine.settings.max_instances

    async with anyio.create_task_group() as tasks:
        for _ in range(most):
            tasks.start_soon(pool.call, "-", "run", [1], context())
        await until(lambda: engine.instances == most)
        with pytest.raises(Overloaded, match="instances of this node are in use"):
            await pool.call("-", "run", [1], context())
        gate.open.set()

    assert await pool.call("-", "run", [1], context()) == 2


async def test_spare_instances_make_room_for_calls(bench: Bench, engine: Engine) -> None:
    idle = bench.pool(ADD, reuse=2, prewarm=0)
    await idle.call("-", "count", [], context())
    gate = Gate()
    busy = bench.pool(KEY_VALUE, imports=gate.imports, slots=200, prewarm=0)

    async with anyio.create_task_group() as tasks:
        for _ in range(engine.settings.max_instances):
            tasks.start_soon(busy.call, "-", "run", [1], context())
        await until(lambda: gate.waiting == engine.settings.max_instances)
        gate.open.set()

    assert idle.statistics().prewarmed == 0


async def test_payload_above_the_limit_is_refused_with_the_limit(bench: Bench) -> None:
    from lattice import wit
    from tests.node.engine.echo import echo_wat
    from tests.node.engine.test_values_round_trip import Mirror

    pool = bench.pool(echo_wat(wit.STRING), imports=[Mirror().interface], payload_bytes=100)

    assert await pool.call("-", "echo", [["x" * 100]], context()) == ["x" * 100]
    with pytest.raises(Invalid, match="101 bytes, more than the component's payload limit of 100"):
        await pool.call("-", "echo", [["x" * 101]], context())


def test_limits_name_what_is_wrong() -> None:
    with pytest.raises(Invalid, match="limit reuse is 0: it must be at least 1"):
        InstanceLimits(reuse=0)


async def test_code_that_a_pool_uses_outlives_other_pools_of_the_same_code(bench: Bench) -> None:
    """As when a component gets other limits: the new pool is prepared while the former still serves."""
    former, compiled = bench.pool(ADD), bench.compile(ADD)
    await bench.engine.prepare(compiled)
    newer = bench.pool(ADD)
    bench.engine.unload(compiled)

    await former.aclose()

    assert await newer.call("-", "add", [1, 2], context()) == 3


async def test_a_closed_pool_refuses_functions_that_were_never_called(bench: Bench) -> None:
    pool = bench.pool(ADD)
    await pool.aclose()

    with pytest.raises(Unreachable):
        await pool.call("-", "add", [1, 2], context())
