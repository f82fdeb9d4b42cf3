"""Whole nodes in one process on an in-memory bus: deploy, call, link, update, drain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from ctl.calling import CallOptions
from ctl.client import ControlClient
from ctl.deployment import Deployment
from lattice import subjects
from lattice.errors import Conflict, Denied, Invalid, LatticeError, NotFound, Trapped
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.model import Marker
from lattice.observer import MARKER_KEY, encode_value
from node.artifacts import digest_of
from node.identity import load_identity
from node.node import Node
from node.settings import NodeSettings

EXAMPLES = Path(__file__).parents[2] / "examples"
GREETER = EXAMPLES / "greeter/c/greeter.wasm"
STORE = EXAMPLES / "kv-store/c/kv-store.wasm"
GREETER_KV = EXAMPLES / "greeter-kv/c/greeter-kv.wasm"
MISBEHAVE = EXAMPLES / "misbehave/misbehave.wasm"
CALCULATOR = EXAMPLES / "calculator/calculator.wasm"


class Lattice:
    """Nodes on one broker, and a client."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.broker = MemoryBroker()
        self._folder = folder
        self._stack = stack
        self.nodes: list[Node] = []

    async def start(self, folder_name: str, settings: Mapping[str, Any] | None = None) -> Node:
        folder = self._folder / folder_name
        await anyio.Path(folder).mkdir()
        identity = await anyio.to_thread.run_sync(load_identity, folder)
        bus = await self._stack.enter_async_context(MemoryBus(self.broker))
        fields: dict[str, Any] = {"max_instances": 40, "drain_timeout": 5.0, **(settings or {})}
        node = await anyio.to_thread.run_sync(lambda: Node(NodeSettings(**fields), bus, identity, folder))
        await self._stack.enter_async_context(node)
        self.nodes.append(node)
        return node

    async def client(self) -> ControlClient:
        bus = await self._stack.enter_async_context(MemoryBus(self.broker))
        return ControlClient(bus)


async def deploy(client: ControlClient, file: Path, **fields: Any) -> str:
    """Deploy a file and return when its replicas run."""
    data = await anyio.Path(file).read_bytes()
    digest = digest_of(data)
    store = await client._bus.object_store("LATTICE_default_artifacts")
    await store.put(digest, data)
    name = fields.pop("name", file.stem)
    await client.prepare(digest)
    await client.deploy(Deployment(name=name, digest=digest, **fields))
    await until(lambda: running(client, name), fields.get("replicas", 1))
    return digest


async def running(client: ControlClient, component: str) -> int:
    return (await client.describe_component(component)).replicas.running


async def until(look: Callable[[], Any], wanted: Any) -> None:
    with anyio.fail_after(20):
        while await look() != wanted:  # noqa: ASYNC110 - the client sees the lattice by asking only
            await anyio.sleep(0.02)


@pytest.fixture
async def lattice(tmp_path: Path) -> AsyncIterator[Lattice]:
    async with AsyncExitStack() as stack:
        found = Lattice(tmp_path, stack)
        # As of a lattice that has run before: a new one first looks for nodes that remember an older store.
        async with MemoryBus(found.broker) as bus:
            store = await bus.key_value(subjects.state_bucket("default"))
            await store.create(MARKER_KEY, encode_value(Marker(incarnation=1)))
        yield found


async def test_a_component_deployed_once_answers_from_any_node(lattice: Lattice) -> None:
    nodes = [await lattice.start(name) for name in ("a", "b")]
    client = await lattice.client()
    await deploy(client, GREETER)

    answers = [
        await client.call("greeter", "hello", [node.name], options=CallOptions(node=node.id))
        for node in nodes
    ]

    assert answers == [f"Hello, {node.name}!" for node in nodes]


async def test_errors_of_a_guest_reach_the_caller_with_an_error_id(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await deploy(client, MISBEHAVE)

    with pytest.raises(Trapped) as caught:
        await client.call("misbehave", "trap")
    assert caught.value.error_id


async def test_a_wit_error_is_a_result(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await deploy(client, CALCULATOR)

    result = await client.call("calculator", "divide", [1, 0])

    assert set(result) == {"err"}


async def test_an_import_that_nothing_grants_keeps_a_component_from_being_deployed(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()

    with pytest.raises(Denied, match="latticectl link put greeter-kv demo:kv/store TARGET"):
        await deploy(client, GREETER_KV)


async def test_a_link_made_before_its_source_grants_the_import(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await deploy(client, STORE)
    await client.put_link("greeter-kv", "demo:kv/store", "kv-store")
    await deploy(client, GREETER_KV)

    assert await client.call("greeter-kv", "hello", ["Ada"]) != "Hello, Ada!"
    assert [link.route for link in await client.links()] == ["local"]


async def test_a_link_to_a_component_without_the_interface_is_refused(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await deploy(client, GREETER)

    with pytest.raises(Invalid, match="does not import demo:kv/store"):
        await client.put_link("greeter", "demo:kv/store", "greeter")


async def test_scaling_and_deleting_change_what_runs(lattice: Lattice) -> None:
    for name in ("a", "b"):
        await lattice.start(name)
    client = await lattice.client()
    await deploy(client, GREETER, replicas=2)

    await client.scale("greeter", 4)
    await until(lambda: running(client, "greeter"), 4)
    await client.delete("greeter")

    with pytest.raises(NotFound):
        await client.describe_component("greeter")

    async def held() -> int:
        return len(await client.replicas())

    await until(held, 0)


async def test_an_update_swaps_the_code_and_keeps_the_settings(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await deploy(client, GREETER, name="app", environment={"A": "b"})
    data = await anyio.Path(CALCULATOR).read_bytes()
    store = await client._bus.object_store("LATTICE_default_artifacts")
    await store.put(digest_of(data), data)

    await client.update("app", digest_of(data))

    async def answer() -> Any:
        try:
            return await client.call("app", "add", [2, 3])
        except LatticeError:
            return None

    await until(answer, 5)
    assert (await client.describe_component("app")).settings["environment"] == {"A": "b"}


async def test_a_draining_node_hands_its_replicas_over_first(lattice: Lattice) -> None:
    first = await lattice.start("a")
    client = await lattice.client()
    await deploy(client, GREETER, replicas=2)
    second = await lattice.start("b")

    await first.drain()

    assert first.assignments.replicas == 0
    assert second.assignments.replicas == 2
    assert await client.call("greeter", "hello", ["b"]) == "Hello, b!"


async def test_a_name_that_another_node_bears_is_refused(lattice: Lattice) -> None:
    await lattice.start("a", settings={"name": "twin"})

    with pytest.raises(Conflict, match="has a node named 'twin' already"):
        await lattice.start("b", settings={"name": "twin"})


async def test_a_replica_that_no_node_can_hold_says_why(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()
    data = await anyio.Path(GREETER).read_bytes()
    store = await client._bus.object_store("LATTICE_default_artifacts")
    await store.put(digest_of(data), data)
    await client.deploy(Deployment(name="greeter", digest=digest_of(data), labels={"disk": "ssd"}))

    described = await client.describe_component("greeter")

    assert described.state == "pending"
    assert "no node has the labels disk=ssd" in described.pending[0].reason
