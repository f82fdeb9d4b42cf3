"""Whole nodes in one process on an in-memory bus, for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio

from ctl.client import ControlClient
from ctl.deployment import Deployment
from lattice.memory_bus import MemoryBroker, MemoryBus
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

    def __init__(self, folder: Path, stack: AsyncExitStack, broker: MemoryBroker | None = None) -> None:
        self.broker = broker or MemoryBroker()
        self.folder = folder
        self._stack = stack
        self.nodes: list[Node] = []

    async def start(self, folder_name: str, settings: Mapping[str, Any] | None = None) -> Node:
        folder = self.folder / folder_name
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
