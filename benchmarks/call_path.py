"""Where the time of a client's call goes: the same round trip with one part more in each row.

All take turns within one process on one connection each, so the difference of two rows is the cost of a part:
another library, a node with a fresh sandbox in place of an echo, headers, routing, checked values.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial

import anyio
import msgpack
import nats
from nats.aio.client import Client

from benchmarks import guests
from benchmarks.calls import COMPONENT, Setting, open_setting
from benchmarks.measurement import Effort, Row, compare
from benchmarks.processes import LATTICE
from ctl.client import ControlClient
from lattice import subjects, wire
from lattice.caller import Caller, CallRequest, new_call_id
from lattice.nats_bus import NatsBus
from lattice.observer import Observer

ECHO = "raw.uvloop"
BODY = bytes(128)
SECONDS = 5.0
CALLS_PER_TURN = 100

Contender = Callable[[], Awaitable[object]]


def run(effort: Effort) -> Iterator[Row]:
    """One row for each part that is added."""
    with open_setting() as setting:
        found = anyio.run(_measure, setting, effort, backend_options={"use_uvloop": True})
    first = next(iter(found.values()))
    for name, seconds in found.items():
        yield compare(f"call path, 128 B: {name}", seconds * 1e6, first * 1e6, "us")


async def _measure(setting: Setting, effort: Effort) -> dict[str, float]:
    raw_client = await nats.connect(setting.running.url())
    async with (
        setting.running.bus() as bus,
        setting.running.client(routes_calls=True) as client,
        anyio.create_task_group() as tasks,
    ):
        observer = Observer(bus, LATTICE)
        await tasks.start(observer.run)
        caller = Caller(bus, LATTICE, observer.state, name="bench", knows_all=lambda: True)
        contenders = await _contenders(setting, raw_client, bus, caller, client)
        figures: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(effort.rounds):
            for name, contender in contenders.items():
                figures[name].append(await _turn(contender, min(effort.calls, CALLS_PER_TURN)))
        tasks.cancel_scope.cancel()
    await raw_client.close()
    return {name: statistics.median(seconds) for name, seconds in figures.items()}


async def _contenders(
    setting: Setting, raw_client: Client, bus: NatsBus, caller: Caller, client: ControlClient
) -> Mapping[str, Contender]:
    subject = subjects.node_call(LATTICE, setting.near, COMPONENT, guests.ECHO_INTERFACE, "echo")
    body = msgpack.packb([BODY])
    function = await client.function(COMPONENT, "echo")
    call = wire.CallHeaders(
        budget_ms=30_000, call_id=new_call_id(), caller="bench", hops=1, accepts_stream=True
    )
    headers = wire.encode_headers(call)

    async def routed() -> None:
        request = CallRequest(
            component=COMPONENT,
            interface=guests.ECHO_INTERFACE,
            function="echo",
            deadline=anyio.current_time() + 30,
            call_id=new_call_id(),
        )
        await caller.call(request, [BODY])

    return {
        "nats-py to an echo of nats-py": partial(raw_client.request, ECHO, BODY, timeout=SECONDS),
        "our bus to an echo of nats-py": partial(bus.request, ECHO, BODY, timeout_seconds=SECONDS),
        "our bus to a node": partial(bus.request, subject, body, timeout_seconds=SECONDS),
        "... with headers": partial(bus.request, subject, body, headers=headers, timeout_seconds=SECONDS),
        "... routed": routed,
        "... through the client": partial(client.invoke, function, [BODY]),
    }


async def _turn(contender: Contender, calls: int) -> float:
    await contender()
    seconds = []
    for _ in range(calls):
        began = time.perf_counter()
        await contender()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
