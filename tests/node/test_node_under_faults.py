"""Whole nodes when something around them fails: the bus, the store, a peer that misbehaves, a component."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from ctl.client import ControlClient
from ctl.deployment import Deployment
from lattice import subjects, wire, wit
from lattice.caller import CallRequest, new_call_id
from lattice.errors import Interrupted, LatticeError, Unreachable
from lattice.inventory import AssignmentState
from lattice.memory_bus import MemoryBus
from lattice.model import ComponentSpec, Limits, new_application
from lattice.observer import application_key, encode_value
from lattice.orders import Order
from node.artifacts import digest_of
from node.node import Node
from node.replicas import CONCURRENT_PREPARATIONS
from tests.node.whole_nodes import (
    CALCULATOR,
    GREETER,
    GREETER_KV,
    STORE,
    Lattice,
    deploy,
    running,
    until,
)


def memory_bus(node: Node) -> MemoryBus:
    assert isinstance(node._bus, MemoryBus)
    return node._bus


async def say_hello(node: Node, component: str = "greeter", seconds: float = 10.0) -> str:
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
        reply = await stranger.request("$SRV.PING", timeout_seconds=5)

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
    with pytest.raises(LatticeError, match="latticectl scale greeter --replicas 1"):
        await say_hello(node)
    assert anyio.current_time() - began < 5


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


def an_order(node: Node, generation: int, digest: str, count: int = 1) -> Order:
    spec = ComponentSpec(name="greeter", digest=digest) if count else None
    return Order(
        node=node.id, boot=node.info.boot, component="greeter", revision="r", count=count, spec=spec,
        fence=1, generation=generation,
    )  # fmt: skip


async def test_attempts_that_fail_leave_nothing_behind(lattice: Lattice) -> None:
    node = await lattice.start("a", settings={"controller": False})
    for generation in range(1, 6):
        node.replicas.order(an_order(node, generation, "sha256:" + "0" * 64))
        await until(lambda: _states(node), [AssignmentState.FAILED])

    assert not node.replicas._lives


async def test_what_is_cancelled_while_it_is_prepared_is_released(lattice: Lattice) -> None:
    node = await lattice.start("a", settings={"controller": False})
    digest = digest_of(await anyio.Path(GREETER).read_bytes())
    await node.runner.artifacts._store.put(digest, await anyio.Path(GREETER).read_bytes())
    for generation in range(1, 40, 2):
        node.replicas.order(an_order(node, generation, digest))
        for _ in range(generation):
            await anyio.sleep(0.0002)
        node.replicas.order(an_order(node, generation + 1, digest, count=0))

    await until(lambda: _held(node), 0)
    await until(lambda: _loaded(node), 0)


async def _states(node: Node) -> list[AssignmentState]:
    return [item.state for item in node.assignments.reports().values()]


async def _loaded(node: Node) -> int:
    return len(node.runner.engine._components)


async def test_what_is_compiled_already_does_not_wait_for_what_compiles(lattice: Lattice) -> None:
    node = await lattice.start("a")
    client = await lattice.client()
    await deploy(client, GREETER)
    for _ in range(CONCURRENT_PREPARATIONS):
        await node.replicas._limiter.acquire_on_behalf_of(object())

    await client.scale("greeter", 0)
    await until(lambda: _held(node), 0)
    await client.scale("greeter", 1)

    await until(lambda: running(client, "greeter"), 1)


async def test_a_file_that_cannot_be_read_ends_nothing(lattice: Lattice, tmp_path: Path) -> None:
    node = await lattice.start("a")
    digest = "sha256:" + "0" * 64
    await anyio.Path(tmp_path / "a/artifacts" / f"{'0' * 64}.wasm").mkdir()

    node.replicas.compile_ahead("greeter", digest)

    client = await lattice.client()
    await deploy(client, GREETER)
    assert await say_hello(node) == "Hello, Ada!"


async def test_a_node_leaves_at_once_what_it_could_not_start_anyway(lattice: Lattice) -> None:
    leaving = await lattice.start("a", settings={"drain_timeout": 20.0})
    await lattice.start("b")
    client = await lattice.client()
    digest = "sha256:" + "0" * 64
    application = new_application(
        "greeter", None, 1, components=[ComponentSpec(name="greeter", digest=digest, replicas=4)]
    )
    store = await memory_bus(leaving).key_value(subjects.state_bucket("default"))
    await store.create(application_key("greeter"), encode_value(application))
    await until(lambda: _states(leaving), [AssignmentState.FAILED])
    await until(lambda: _failed(client), 4)

    began = anyio.current_time()
    await leaving.drain()

    assert anyio.current_time() - began < 10


async def test_a_call_without_a_budget_waits_no_longer_than_that_of_its_component(lattice: Lattice) -> None:
    node = await lattice.start("a")
    spec = ComponentSpec(
        name="app", digest="sha256:" + "0" * 64, labels={"disk": "ssd"}, limits=Limits(budget_seconds=0.3)
    )
    node.observer.apply(new_application("app", None, 1, components=[spec]))
    async with MemoryBus(lattice.broker) as stranger:
        subject = subjects.call("default", "app", wit.WORLD, "run")
        reply = await stranger.request(subject, timeout_seconds=5)

    error = wire.decode_error(reply.headers, reply.data)
    assert error is not None
    assert error.code == "unreachable"


async def test_an_update_that_cannot_start_leaves_the_old_code_serving_and_says_why(lattice: Lattice) -> None:
    entry = await lattice.start("a")
    holder = await lattice.start("b", settings={"label": (("disk", "ssd"),)})
    client = await lattice.client()
    await deploy(client, GREETER, labels={"disk": "ssd"}, spares=0)
    data = await anyio.Path(CALCULATOR).read_bytes()
    await entry.runner.artifacts._store.put(digest_of(data), data)
    await entry.operations.prepare({"digest": digest_of(data)})
    await entry.runner.artifacts._store.delete(digest_of(data))

    await entry.operations.update({"component": "greeter", "digest": digest_of(data)})
    await until(lambda: _failed(client), 1)

    assert await say_hello(entry) == "Hello, Ada!"
    (placement,) = [item for item in (await client.describe_component("greeter")).placements if item.reason]
    assert placement.reason is not None and digest_of(data) in placement.reason
    assert len(holder.replicas.components()) == 1


async def _failed(client: ControlClient) -> int:
    return (await client.describe_component("greeter")).replicas.failed


async def test_a_component_deleted_while_it_is_deployed_leaves_nothing(lattice: Lattice) -> None:
    node = await lattice.start("a")
    client = await lattice.client()
    digest = digest_of(await anyio.Path(GREETER).read_bytes())
    await node.runner.artifacts._store.put(digest, await anyio.Path(GREETER).read_bytes())
    for _ in range(5):
        await client.deploy(Deployment(name="greeter", digest=digest, replicas=3))
        await client.delete("greeter")

    await until(lambda: _held(node), 0)
    await until(lambda: _loaded(node), 0)
