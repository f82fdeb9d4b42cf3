"""Key-value operations of a guest beside the same operations of a plain Python client on the same server.

A guest does many operations within one call, one after the other; the time of a call in which it does none is
subtracted. The clients are nats-py (key-value bucket) and redis-py (asyncio), on uvloop as nodes are.

All processes share one core. An operation is two wake-ups and little else, and waking a process on another
core takes longer than the operation itself: 48 us become 80, for client and guest alike. Left to itself, the
kernel places them now so, now so, and the ratio says where it did.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import anyio
import nats
import redis.asyncio

from benchmarks.guests import EXAMPLES
from benchmarks.machine import one_core
from benchmarks.measurement import Effort, Row, Target, compare
from benchmarks.processes import Processes, deploy, processes
from ctl.client import ControlClient
from node.server_process import free_port

GUEST = EXAMPLES / "keyvalue-loop/c/keyvalue-loop.wasm"
OPERATIONS = 20
"""Within one call: as many as a request may need. A guest that goes on for longer is moved to a thread."""
VALUE_BYTES = 128
START_SECONDS = 10.0
SERVED = Target(ratio_at_most=1.3)
IN_MEMORY = Target(at_most=30.0)

Turn = Callable[[], Awaitable[float]]
"""Microseconds of one operation."""


def run(effort: Effort) -> Iterator[Row]:
    """Rows for each store; Redis is left out where there is no server."""
    with one_core(), processes() as running, _redis_server() as redis_url:
        options = ["--provider", f"keyvalue-redis=keyvalue-redis,url={redis_url}"] if redis_url else []
        running.start("node", options=options)
        figures = anyio.run(_measure, running, redis_url, effort, backend_options={"use_uvloop": True})
    for store, operation in _names(redis_url):
        ours, theirs = figures[store, operation, "guest"], figures.get((store, operation, "client"))
        target = SERVED if theirs else IN_MEMORY
        client = {"NATS": ", nats-py", "Redis": ", redis-py"}.get(store, "")
        yield compare(f"key-value {operation}, {VALUE_BYTES} B, {store}{client}", ours, theirs, "us", target)


def _names(redis_url: str | None) -> list[tuple[str, str]]:
    stores = ["NATS", "memory", *(["Redis"] if redis_url else [])]
    return [(store, operation) for store in stores for operation in ("get", "set")]


async def _measure(
    running: Processes, redis_url: str | None, effort: Effort
) -> Mapping[tuple[str, str, str], float]:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(running.client(routes_calls=True))
        turns: dict[tuple[str, str, str], Turn] = {}
        for store in dict.fromkeys(store for store, _ in _names(redis_url)):
            name = f"loop-{store.lower()}"
            links = (("wasi:keyvalue", f"keyvalue-{store.lower()}"),)
            await deploy(client, name, GUEST.read_bytes(), links=links)
            turns[store, "set", "guest"] = await _guest(client, name, "set", [VALUE_BYTES])
            turns[store, "get", "guest"] = await _guest(client, name, "get", [])
        turns |= await stack.enter_async_context(_nats_client(running.url()))
        if redis_url:
            turns |= await stack.enter_async_context(_redis_client(redis_url))
        found: dict[tuple[str, str, str], list[float]] = {name: [] for name in turns}
        for _ in range(effort.rounds):
            for _ in range(max(1, effort.calls // OPERATIONS)):
                for what, turn in turns.items():
                    found[what].append(await turn())
        return {name: statistics.median(seconds) for name, seconds in found.items()}


async def _guest(client: ControlClient, component: str, function: str, args: list[Any]) -> Turn:
    found = await client.function(component, function)

    async def seconds(times: int) -> float:
        began = time.perf_counter()
        result = await client.invoke(found, ["key", *args, times])
        assert "ok" in result, result
        return time.perf_counter() - began

    async def turn() -> float:
        idle = min([await seconds(0), await seconds(0)])
        return (await seconds(OPERATIONS) - idle) / OPERATIONS * 1e6

    await seconds(OPERATIONS)
    return turn


@asynccontextmanager
async def _nats_client(url: str) -> AsyncIterator[dict[tuple[str, str, str], Turn]]:
    connection = await nats.connect(url)
    bucket = await connection.jetstream().create_key_value(bucket="plain")
    value = bytes(VALUE_BYTES)
    await bucket.put("key", value)
    yield {
        ("NATS", "set", "client"): partial(_turn, lambda: bucket.put("key", value)),
        ("NATS", "get", "client"): partial(_turn, lambda: bucket.get("key")),
    }
    await connection.close()


@asynccontextmanager
async def _redis_client(url: str) -> AsyncIterator[dict[tuple[str, str, str], Turn]]:
    client = redis.asyncio.from_url(url)
    value = bytes(VALUE_BYTES)
    await client.set("key", value)
    yield {
        ("Redis", "set", "client"): partial(_turn, lambda: client.set("key", value)),
        ("Redis", "get", "client"): partial(_turn, lambda: client.get("key")),
    }
    await client.aclose()


async def _turn(operation: Callable[[], Awaitable[object]]) -> float:
    await operation()
    began = time.perf_counter()
    for _ in range(OPERATIONS):
        await operation()
    return (time.perf_counter() - began) / OPERATIONS * 1e6


@contextmanager
def _redis_server() -> Iterator[str | None]:
    if shutil.which("redis-server") is None:
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="lattice-bench-redis-") as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_until_open(port)
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def _wait_until_open(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError("redis-server did not start")
