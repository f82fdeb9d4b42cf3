"""Guests that loop, recurse, allocate and print without end: they meet their limits, nobody else notices."""

from __future__ import annotations

import anyio
import pytest

from ctl.calling import CallOptions
from ctl.client import ControlClient
from ctl.deployment import Deployment
from ctl.functions import Function
from lattice import subjects, wire
from lattice.errors import LatticeError
from tests.e2e.load import Load, steady
from tests.e2e.processes import FLOOD, GREETER, MISBEHAVE, Lattice, until
from tests.e2e.questions import in_flight

pytestmark = pytest.mark.slow

P99_SECONDS = 3.0
"""Of an innocent component while three nodes on one machine fill its cores: a hang shows, a slow machine
does not. How little a single node's loop lags is measured by the benchmarks."""
PAGES_OF_64_MIB = 1024
MAX_LOG_LINES = 2048
"""What the default rate of 64 KiB per second lets through of lines of 64 bytes in two seconds."""


async def warmed(lattice: Lattice, client: ControlClient, function: Function) -> None:
    """Nodes trust a function that has shown on each of them that it is quick."""
    for node in lattice.nodes.values():
        await client.invoke(function, ["World"], CallOptions(node=node.id))


@pytest.mark.parametrize(
    ("function", "arguments", "code"),
    [
        ("spin", [], "timed-out"),
        ("recurse", [], "trapped"),
        ("trap", [], "trapped"),
        ("fib", [90], "timed-out"),
    ],
)
async def test_a_misbehaving_call_ends_with_its_own_error_and_others_do_not_notice(
    lattice: Lattice, router: ControlClient, function: str, arguments: list[int], code: str
) -> None:
    await lattice.deploy(GREETER, replicas=3)
    await lattice.deploy(MISBEHAVE, replicas=3, budget_seconds=1)
    hello = await router.function("greeter", "hello")
    bad = await router.function("misbehave", function)
    hostile = Load()
    await warmed(lattice, router, hello)
    before = troubles(lattice)

    async with steady(lambda: router.invoke(hello, ["World"]), per_second=50) as innocent:
        await innocent.at_least(10)
        async with anyio.create_task_group() as tasks:
            for _ in range(12):
                tasks.start_soon(hostile.call, lambda: router.invoke(bad, arguments))
        await innocent.at_least(10)

    assert hostile.errors == {code: 12}
    assert innocent.errors == {}
    assert innocent.percentile(0.99) <= P99_SECONDS
    assert troubles(lattice) == before


def troubles(lattice: Lattice) -> int:
    """How often a node was missed, or stood still."""
    events = ("node.lost", "node.stalled")
    return sum(len(node.lines(event)) for node in lattice.nodes.values() for event in events)


async def test_memory_without_end_is_refused_at_the_limit(lattice: Lattice, client: ControlClient) -> None:
    await lattice.deploy(MISBEHAVE, replicas=3)
    before = {node.name: node.memory_bytes for node in await client.nodes()}

    pages = [await client.call("misbehave", "devour") for _ in range(20)]
    refused = await client.call("misbehave", "grow", [70_000])

    assert all(PAGES_OF_64_MIB - 16 <= count <= PAGES_OF_64_MIB for count in pages)
    assert refused is False
    after = {node.name: node.memory_bytes for node in await client.nodes()}
    assert all(after[name] - before[name] < 200 * 2**20 for name in before)


async def test_a_flood_of_output_is_cut_to_the_rate_and_counted(
    lattice: Lattice, client: ControlClient, router: ControlClient
) -> None:
    await lattice.deploy(GREETER, replicas=3)
    await lattice.deploy(FLOOD, replicas=3, budget_seconds=1)
    hello = await router.function("greeter", "hello")
    forever = await client.function("flood", "forever")
    hostile = Load()
    await warmed(lattice, router, hello)

    async with (
        client.follow_log("flood") as listener,
        steady(lambda: router.invoke(hello, ["World"]), per_second=50) as innocent,
        anyio.create_task_group() as tasks,
    ):
        for node in lattice.nodes.values():
            options = CallOptions(node=node.id)
            tasks.start_soon(hostile.call, lambda options=options: client.invoke(forever, [], options))
    del listener

    assert hostile.errors == {"timed-out": 3}
    assert innocent.errors == {}
    assert innocent.percentile(0.99) <= P99_SECONDS
    lines = await client.log_lines("flood", 100_000)
    assert 0 < len(lines) <= 3 * MAX_LOG_LINES


async def test_slots_of_killed_guests_are_free_again(lattice: Lattice, client: ControlClient) -> None:
    await lattice.deploy(MISBEHAVE, max_concurrency=1, budget_seconds=0.05)
    spin, bump = [await client.function("misbehave", name) for name in ("spin", "bump")]
    load = Load()

    for _ in range(20):
        await load.call(lambda: client.invoke(spin, []))

    assert load.errors == {"timed-out": 20}
    # Its budget is short, and this machine may be slow.
    assert await until(lambda: client.invoke(bump, []), what="it answers") == 1


async def deploy_small(lattice: Lattice, client: ControlClient) -> None:
    """With few slots, and a short queue for them."""
    prepared = await lattice.deploy(MISBEHAVE, waits=False)
    await client.delete("misbehave")
    await client.deploy(small("misbehave", prepared.digest))
    await until(lambda: _runs(client), what="it runs")


async def test_beyond_slots_and_queue_calls_are_refused_at_once_and_then_all_is_well(
    lattice: Lattice, client: ControlClient
) -> None:
    await deploy_small(lattice, client)
    spin = await client.function("misbehave", "spin")
    codes: list[str] = []
    subject = subjects.call(lattice.name, "misbehave", spin.interface, "spin")
    headers = wire.encode_headers(wire.CallHeaders(budget_ms=6000))

    async with lattice.bus() as bus, anyio.create_task_group() as tasks:

        async def call() -> None:
            reply = await bus.request(subject, headers=headers, timeout_seconds=20)
            error = wire.decode_error(reply.headers, reply.data)
            codes.append(error.code if error else "ok")

        for _ in range(SLOTS + QUEUE):
            tasks.start_soon(call)
        await until(lambda: _is_full(client), what="slots are taken")
        for _ in range(20):
            tasks.start_soon(call)
        with anyio.fail_after(3):  # half of the budget of those before them
            while len(codes) < 20:  # noqa: ASYNC110 - the calls go on anyway
                await anyio.sleep(0.01)
        assert codes == ["overloaded"] * 20

    assert codes.count("timed-out") >= SLOTS
    assert set(codes[20:]) <= {"timed-out", "overloaded"}  # those that waited have not begun
    assert await client.call("misbehave", "bump", options=CallOptions(budget_seconds=10)) == 1


async def test_clients_get_through_a_burst_far_above_the_capacity(
    lattice: Lattice, client: ControlClient
) -> None:
    """Calls that were refused have not begun, so clients make them again until their budget ends."""
    await deploy_small(lattice, client)
    bump = await client.function("misbehave", "bump")
    burst, after = Load(), Load()

    async with anyio.create_task_group() as tasks:
        for _ in range(500):
            tasks.start_soon(burst.call, lambda: client.invoke(bump, []))
    for _ in range(20):
        await after.call(lambda: client.invoke(bump, []))

    assert burst.errors == {} and burst.results == {1}
    assert after.percentile(0.5) <= 0.5


SLOTS, QUEUE = 2, 4


def small(name: str, digest: str) -> Deployment:
    """A deployment with few slots and a short queue."""
    return Deployment(name=name, digest=digest, max_concurrency=SLOTS, queue_length=QUEUE)


async def _runs(client: ControlClient) -> bool:
    return (await client.describe_component("misbehave")).state == "ready"


async def _is_full(client: ControlClient) -> bool:
    try:
        return await in_flight(client, "misbehave") == SLOTS
    except LatticeError:
        return False
