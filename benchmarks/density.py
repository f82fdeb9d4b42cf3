"""What idle replicas and components cost a node, and how long it takes to place them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import anyio

from benchmarks import guests
from benchmarks.machine import resident_bytes
from benchmarks.measurement import Effort, Row, compare
from benchmarks.processes import Processes, artifact, deploy, processes, wait_until_running
from ctl.client import ControlClient
from ctl.deployment import Deployment

NODES = ("a", "b", "c")
PLACE_SECONDS = 600.0
UPLOADS_AT_A_TIME = 8
SETTLE_SECONDS = 2.0
POLL_SECONDS = 0.2


def replicas(effort: Effort) -> Iterator[Row]:
    """Many replicas of one component on three nodes."""
    with processes() as running:
        running.start(*NODES)
        placed, grown = anyio.run(_scale, running, effort.replicas)
    what = f"{effort.replicas:,} idle replicas of one component on {len(NODES)} nodes"
    yield compare(f"{what}: time to place", placed, None, "s")
    yield compare(f"{what}: memory of each", grown / effort.replicas / 1024, None, "KB")


async def _scale(running: Processes, count: int) -> tuple[float, int]:
    async with running.client() as client:
        await deploy(client, "idle", guests.echo(), replicas=len(NODES))
        before = await _memory(running, NODES)
        began = time.perf_counter()
        await client.scale("idle", count)
        await wait_until_running(client, "idle", count, PLACE_SECONDS)
        placed = time.perf_counter() - began
        return placed, await _memory(running, NODES) - before


def components(effort: Effort) -> Iterator[Row]:
    """Many different components on one node."""
    with processes() as running:
        running.start("a")
        compiled, placed, grown = anyio.run(_deploy_many, running, effort.components)
    what = f"{effort.components} different components on one node"
    yield compare(f"{what}: time to upload and compile", compiled, None, "s")
    yield compare(f"{what}: time to place", placed, None, "s")
    yield compare(f"{what}: memory of each", grown / effort.components / 1024, None, "KB")


async def _deploy_many(running: Processes, count: int) -> tuple[float, float, int]:
    async with running.client() as client:
        await deploy(client, "first", guests.variant(count))
        before = await _memory(running, ["a"])
        began = time.perf_counter()
        digests = await _supply_all(client, count)
        supplied = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            limiter = anyio.CapacityLimiter(UPLOADS_AT_A_TIME)
            for number, digest in enumerate(digests):
                tasks.start_soon(_deploy_one, client, f"component-{number}", digest, limiter)
        async with client.events() as events:
            with anyio.fail_after(PLACE_SECONDS):
                while await _running(client) < count + 1:
                    await events.wait_any(POLL_SECONDS)
        placed = time.perf_counter()
        return supplied - began, placed - supplied, await _memory(running, ["a"]) - before


async def _supply_all(client: ControlClient, count: int) -> list[str]:
    digests = []
    limiter = anyio.CapacityLimiter(UPLOADS_AT_A_TIME)
    async with anyio.create_task_group() as tasks:
        for number in range(count):
            data = guests.variant(number)
            digests.append(artifact(data).digest)
            tasks.start_soon(_supply, client, data, limiter)
    return digests


async def _supply(client: ControlClient, data: bytes, limiter: anyio.CapacityLimiter) -> None:
    async with limiter:
        found = artifact(data)
        await client.upload(found)
        await client.prepare(found.digest, timeout_seconds=PLACE_SECONDS)


async def _deploy_one(client: ControlClient, name: str, digest: str, limiter: anyio.CapacityLimiter) -> None:
    async with limiter:
        await client.deploy(Deployment(name=name, digest=digest))


async def _running(client: ControlClient) -> int:
    return sum(component.replicas.running for component in await client.components())


async def _memory(running: Processes, names: tuple[str, ...] | list[str]) -> int:
    """What the nodes take together, once they have come to rest."""
    await anyio.sleep(SETTLE_SECONDS)
    return sum(resident_bytes(running.pid(name)) for name in names)
