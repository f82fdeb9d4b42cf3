"""A node is told to end: SIGTERM, Ctrl-C, `drain`, and a second signal."""

from __future__ import annotations

import signal

import anyio
import pytest

from ctl.calling import CallOptions
from ctl.client import ControlClient
from lattice.errors import LatticeError
from tests.e2e.load import Load, steady
from tests.e2e.processes import GREETER, MISBEHAVE, Lattice, until
from tests.e2e.questions import controller, holders, in_flight, running

pytestmark = [pytest.mark.slow, pytest.mark.fault]

LEFT_SECONDS = 15.0
STOPPED_SECONDS = 10.0
"""Less than the drain timeout, which is half a minute."""
SLOWEST_SECONDS = 2.5
"""Sooner than by missed heartbeats."""
STOPPED = 130
LONG_FIB = 42


@pytest.mark.parametrize("way", ["SIGTERM", "SIGINT", "drain"])
async def test_a_leaving_node_fails_no_call(lattice: Lattice, router: ControlClient, way: str) -> None:
    """Neither calls that are not idempotent nor those that entered by way of any node; also of the leader."""
    leaving = lattice[await controller(router)]
    await lattice.deploy(GREETER, replicas=3)
    hello = await router.function("greeter", "hello")

    async with (
        lattice.connect() as client,
        steady(lambda: router.invoke(hello, ["a"]), per_second=50) as routed,
        steady(lambda: client.invoke(hello, ["b"]), per_second=50) as entered,
    ):
        await routed.at_least(20)
        if way == "drain":
            drained = await lattice.ctl("drain", leaving.name, "--output", "json")
            assert drained.json["moved"] == 1
        else:
            leaving.process.send_signal(getattr(signal, way))
        assert await leaving.ended(LEFT_SECONDS) == 0
        await running(router, "greeter", 3, without=leaving.name)
        await routed.at_least(20)

    assert routed.errors == {} and entered.errors == {}
    assert max(routed.slowest(), entered.slowest()) <= SLOWEST_SECONDS


async def test_calls_in_flight_are_finished_and_replicas_are_replaced_before(
    lattice: Lattice, client: ControlClient
) -> None:
    await lattice.deploy(MISBEHAVE)
    (holder,) = await holders(client, "misbehave")
    entry = next(node for node in lattice.nodes.values() if node.name != holder)
    fib = await client.function("misbehave", "fib")
    load = Load()

    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(load.call, lambda: client.invoke(fib, [LONG_FIB], CallOptions(node=entry.id)))
        await until(lambda: in_flight(client, "misbehave"), what="calls are in flight")
        lattice[holder].terminate()
        await until(lambda: _runs_elsewhere(client, holder), what="the replica runs elsewhere")
        assert load.outcomes == []  # replaced before they are over
        assert await lattice[holder].ended() == 0

    assert load.errors == {}
    assert load.results == {267914296}


async def _runs_elsewhere(client: ControlClient, former: str) -> bool:
    return bool(set(await holders(client, "misbehave")) - {former})


async def test_a_second_signal_stops_at_once(lattice: Lattice, client: ControlClient) -> None:
    await lattice.deploy(MISBEHAVE)
    (holder,) = await holders(client, "misbehave")
    leaving = lattice[holder]
    entry = next(node for node in lattice.nodes.values() if node is not leaving)
    spin = await client.function("misbehave", "spin")
    load = Load()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(load.call, lambda: client.invoke(spin, [], CallOptions(node=entry.id)))
        await until(lambda: in_flight(client, "misbehave"), what="the call is in flight")
        leaving.terminate()

        async def is_ending() -> bool:
            return bool(leaving.lines("node.draining"))

        await until(is_ending, what="the node drains")
        leaving.terminate()
        began = anyio.current_time()
        code = await leaving.ended()
        seconds = anyio.current_time() - began

    assert code == STOPPED
    assert seconds <= STOPPED_SECONDS
    assert load.errors == {"interrupted": 1}


async def test_a_guest_that_never_ends_holds_its_node_for_the_drain_timeout_only(
    lattice: Lattice, client: ControlClient
) -> None:
    node = lattice.node("d", "--drain-timeout", "1s", "--label", "only=d")
    try:
        node.start()
        await lattice.settled()
        await lattice.deploy(MISBEHAVE, labels={"only": "d"})
        spin = await client.function("misbehave", "spin")
        load = Load()
        async with anyio.create_task_group() as tasks:
            options = CallOptions(node=lattice["a"].id)
            tasks.start_soon(load.call, lambda: client.invoke(spin, [], options))
            await until(lambda: in_flight(client, "misbehave"), what="the call is in flight")
            node.terminate()
            assert await node.ended(LEFT_SECONDS) == 0
        assert load.errors == {"interrupted": 1}
    finally:
        if node.is_running:
            node.kill()
        del lattice.nodes["d"]


async def test_the_last_node_takes_the_embedded_server_with_it(
    anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with Lattice(tmp_path_factory.mktemp("last"), "last") as lattice:
        await lattice.add("a", "b")
        await lattice.deploy(GREETER, replicas=2)
        for node in lattice.nodes.values():
            node.terminate()
        assert [await node.ended() for node in lattice.nodes.values()] == [0, 0]

        with pytest.raises(LatticeError, match="does not run"):
            async with lattice.connect():
                pass

        lattice["a"].start()  # what was deployed is not forgotten
        await lattice["a"].ready()
        async with lattice.connect() as client:
            await running(client, "greeter", 2)
