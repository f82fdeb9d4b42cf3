"""Calls between processes, and between components of one node, beside raw request and reply.

All contenders take turns on the same server: in each round each connects, warms up and calls. Ours run on
uvloop, as nodes do; raw nats-py is measured on asyncio's loop and on uvloop, and the faster one counts.

A linked call is measured in the node: a guest calls its linked component 500 times within one call, and
the time of a call in which it calls nobody is subtracted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import anyio
import msgpack

from benchmarks import guests, raw
from benchmarks.measurement import Effort, Row, Target, compare, interleave
from benchmarks.processes import LATTICE, Processes, deploy, node_id, processes
from ctl.calling import CallOptions
from ctl.client import ControlClient
from lattice import subjects

SIZES = {"128 B": 128, "4 KB": 4096}
WARM_UP_CALLS = 50
CALLERS = 64
THROUGHPUT_CALLS = 16
"""So many times more: at tens of thousands a second."""
LINKED_CALLS = 500
COMPONENT = "echo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A lattice of two nodes: `near` holds the replica, `far` none."""

    running: Processes
    near: str
    far: str


@contextmanager
def open_setting() -> Iterator[Setting]:
    """The lattice, a component `echo` on its near node, one `linked` to it, and raw responders."""
    with processes() as running:
        running.start("near", options=["--label", "role=near"])
        running.start("far")
        near, far = anyio.run(_deploy, running)
        with raw.responders(running.url()):
            yield Setting(running=running, near=near, far=far)


async def _deploy(running: Processes) -> tuple[str, str]:
    labels = {"role": "near"}
    async with running.client() as client:
        near, far = await node_id(client, "near"), await node_id(client, "far")
        await deploy(client, COMPONENT, guests.echo(), labels=labels, max_concurrency=CALLERS)
        links = ((guests.ECHO_INTERFACE, COMPONENT),)
        await deploy(client, "linked", guests.linked(), labels=labels, links=links)
    return near, far


def _on(loop: str, measure: Callable[[], Awaitable[float]]) -> Callable[[], float]:
    """A contender that runs on an event loop of its own in each round."""
    return partial(anyio.run, measure, backend_options={"use_uvloop": loop == "uvloop"})


def _raw(setting: Setting, loop: str, size: int, calls: int) -> Callable[[], float]:
    async def measure() -> float:
        body = bytes(size)
        seconds = await raw.request_seconds(setting.running.url(), f"raw.{loop}", body, calls)
        return statistics.median(seconds)

    return _on(loop, measure)


def _ours(setting: Setting, size: int, calls: int, *, node: str | None = None) -> Callable[[], float]:
    """Through the client; entering at `node` if one is named, else straight to a replica."""

    async def measure() -> float:
        async with setting.running.client(routes_calls=node is None) as client:
            function = await client.function(COMPONENT, "echo")
            body, options = bytes(size), CallOptions(node=node)

            async def call() -> None:
                assert await client.invoke(function, [body], options) == body

            return await _median_seconds(call, calls)

    return _on("uvloop", measure)


def _plain(setting: Setting, size: int, calls: int, loop: str) -> Callable[[], float]:
    """A plain NATS client that sends what docs/wire-format.md says, to the node that holds the replica."""
    subject = subjects.node_call(LATTICE, setting.near, COMPONENT, guests.ECHO_INTERFACE, "echo")
    body = msgpack.packb([bytes(size)])

    async def measure() -> float:
        seconds = await raw.request_seconds(setting.running.url(), subject, body, calls)
        return statistics.median(seconds)

    return _on(loop, measure)


async def _median_seconds(call: Callable[[], Awaitable[object]], calls: int) -> float:
    for _ in range(min(calls, WARM_UP_CALLS)):
        await call()
    seconds = []
    for _ in range(calls):
        began = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _linked(setting: Setting, size: int) -> Callable[[], float]:
    async def measure() -> float:
        async with setting.running.client(routes_calls=True) as client:
            without = await _linked_seconds(client, 0, size)
            return (await _linked_seconds(client, LINKED_CALLS, size) - without) / LINKED_CALLS

    return _on("uvloop", measure)


async def _linked_seconds(client: ControlClient, times: int, size: int) -> float:
    function = await client.function("linked", "run")
    found = []
    for _ in range(4):
        began = time.perf_counter()
        assert await client.invoke(function, [times, size]) == times * size
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def _throughput(setting: Setting, calls: int) -> list[Callable[[], float]]:
    body = bytes(SIZES["128 B"])

    async def ours() -> float:
        async with setting.running.client(routes_calls=True) as client:
            function = await client.function(COMPONENT, "echo")

            async def caller(times: int) -> None:
                for _ in range(times):
                    await client.invoke(function, [body])

            await _side_by_side(partial(caller, 1))
            began = time.perf_counter()
            each = max(1, calls // CALLERS)
            await _side_by_side(partial(caller, each))
            return each * CALLERS / (time.perf_counter() - began)

    async def theirs(loop: str) -> float:
        return await raw.requests_per_second(setting.running.url(), f"raw.{loop}", body, calls, CALLERS)

    return [_on("uvloop", ours), *(_on(loop, partial(theirs, loop)) for loop in raw.LOOPS)]


async def _side_by_side(caller: Callable[[], Coroutine[object, object, None]]) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(CALLERS):
            tasks.start_soon(caller)


def run(effort: Effort) -> Iterator[Row]:
    """All rows about calls; one lattice serves them all."""
    with open_setting() as setting:
        for text, size in SIZES.items():
            yield from _latency(setting, text, size, effort)
        yield _throughput_row(setting, effort)


def _latency(setting: Setting, text: str, size: int, effort: Effort) -> Iterator[Row]:
    calls = effort.calls
    stock, uv, direct, entering, linked, *plain = interleave(
        effort.rounds,
        *(_raw(setting, loop, size, calls) for loop in raw.LOOPS),
        _ours(setting, size, calls),
        _ours(setting, size, calls, node=setting.far),
        _linked(setting, size),
        *(_plain(setting, size, calls, loop) for loop in raw.LOOPS),
    )
    theirs = min(stock, uv)
    for name, ours, target in (
        ("linked call on one node", linked, Target(ratio_at_most=0.2)),
        ("client to a replica", direct, Target(ratio_at_most=1.3)),
        ("plain NATS client to a replica", min(plain), None),
        ("entering at a node without replica", entering, Target(ratio_at_most=2.5)),
    ):
        yield compare(f"{name}, {text}", ours * 1e6, theirs * 1e6, "us", target)
    yield compare(f"raw request on uvloop beside asyncio, {text}", uv * 1e6, stock * 1e6, "us")


def _throughput_row(setting: Setting, effort: Effort) -> Row:
    calls = effort.calls * THROUGHPUT_CALLS
    ours, *theirs = interleave(max(1, effort.rounds - 2), *_throughput(setting, calls))
    name = f"throughput, {CALLERS} callers, one remote replica"
    return compare(name, ours, max(theirs), "calls/s", Target(ratio_at_least=0.6))
