"""Whole nodes when something around them fails: the bus, the store, a peer that misbehaves, a component."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
import pytest

from lattice import subjects, wire
from lattice.caller import CallRequest, new_call_id
from lattice.errors import Interrupted, LatticeError, Unreachable
from lattice.memory_bus import MemoryBus
from node.node import Node
from tests.node.whole_nodes import (
    GREETER,
    GREETER_KV,
    STORE,
    Lattice,
    deploy,
    until,
)


def memory_bus(node: Node) -> MemoryBus:
    assert isinstance(node._bus, MemoryBus)
    return node._bus


async def say_hello(node: Node, component: str = "greeter", seconds: float = 2.0) -> str:
    """A call that enters at the node without the bus."""
    request = CallRequest(
        component=component,
        interface="demo:greeter/greet",
        function="hello",
        deadline=anyio.current_time() + seconds,
        call_id=new_call_id(),
    )
    return str(await node.caller.call(request, ["Ada"]))


async def test_components_of_one_node_call_each_other_while_the_bus_is_away(lattice: Lattice) -> None:
    node = await lattice.start("a")
    client = await lattice.client()
    await deploy(client, STORE)
    await client.put_link("greeter-kv", "demo:kv/store", "kv-store")
    await deploy(client, GREETER_KV)

    memory_bus(node).disconnect()
    await until(lambda: _silent(node), True)

    assert await say_hello(node, "greeter-kv")


async def _silent(node: Node) -> bool:
    return not list(node.state.observed.live())


async def test_a_discovery_request_that_cannot_be_answered_ends_nothing(lattice: Lattice) -> None:
    node = await lattice.start("a")
    async with MemoryBus(lattice.broker) as stranger:
        await stranger.publish("$SRV.PING", reply="not a subject")
        await stranger.publish("$SRV.STATS", reply="neither.*.is.this")
        reply = await stranger.request("$SRV.PING", timeout_seconds=1)

    assert reply.data
    assert not node.drain_requested.is_set()


async def test_a_component_that_has_begun_is_not_called_again_because_its_own_callee_is_unreachable(
    lattice: Lattice,
) -> None:
    node = await lattice.start("a")
    client = await lattice.client()
    await deploy(client, STORE)
    await client.put_link("greeter-kv", "demo:kv/store", "kv-store")
    await deploy(client, GREETER_KV)
    await client.scale("kv-store", 0)
    await until(lambda: _held(node), 1)

    with pytest.raises(Interrupted, match="'greeter-kv' called 'kv-store': 'kv-store' is scaled to 0"):
        await say_hello(node, "greeter-kv")
    (statistics,) = [item.statistics for item in node.replicas.components()]
    assert statistics.calls == 1


async def test_calls_to_a_component_of_no_replicas_fail_at_once(lattice: Lattice) -> None:
    node = await lattice.start("a")
    client = await lattice.client()
    await deploy(client, GREETER)
    await client.scale("greeter", 0)
    await until(lambda: _held(node), 0)

    began = anyio.current_time()
    with pytest.raises(LatticeError, match="latticectl scale greeter 1"):
        await say_hello(node, seconds=10.0)
    assert anyio.current_time() - began < 1


async def _held(node: Node) -> int:
    return len(node.assignments)


async def test_a_node_speaks_for_itself_only(lattice: Lattice) -> None:
    node = await lattice.start("a")
    await until(lambda: _status(node, node), "ready")
    body = {"node": node.id, "boot": node.info.boot + 1, "beat": 1}
    leaving = {"node": node.id, "boot": node.info.boot, "beat": 1000, "is_leaving": True}
    own = subjects.heartbeat("default", "NIMPOSTOR")
    async with MemoryBus(lattice.broker) as impostor:
        await impostor.publish(own, wire.encode_message(body))
        await impostor.publish(own, wire.encode_message(leaving))
        await impostor.publish(subjects.event("default", "node.left"), wire.encode_message(leaving))
        await impostor.publish(subjects.delta("default", "NIMPOSTOR"), wire.encode_message(body))
        await impostor.publish(own, b"rubbish")

    view = node.state.observed.nodes[node.id]
    assert (view.boot, view.is_live) == (node.info.boot, True)


async def test_others_hear_at_once_that_a_node_leaves(lattice: Lattice) -> None:
    observing = await lattice.start("a")
    async with AsyncExitStack() as stack:
        leaving = await Lattice(lattice.folder, stack, lattice.broker).start("b")
        await until(lambda: _status(observing, leaving), "ready")

    assert await _status(observing, leaving) == "gone"
    assert observing.state.observed.nodes[leaving.id].lost_reason == "left"


async def _status(node: Node, other: Node) -> str:
    view = node.state.observed.nodes.get(other.id)
    return view.status.value if view else ""


async def test_a_node_whose_store_refuses_says_so_and_goes_on(lattice: Lattice) -> None:
    node = await lattice.start("a")
    client = await lattice.client()
    await deploy(client, GREETER)

    lattice.broker.is_store_available = False
    with pytest.raises(Unreachable):
        await node.operations.scale({"component": "greeter", "replicas": 3})
    assert await say_hello(node) == "Hello, Ada!"
    lattice.broker.is_store_available = True

    await client.scale("greeter", 3)
