"""What callers notice when a node dies, and how soon its replicas run elsewhere.

Three nodes hold one replica each. A client makes 200 idempotent calls a second; in their midst one node gets
`kill -9`. Time counts from the kill; a view of the lattice, which hears what all nodes hear, tells when all
replicas run again. Each kill begins with three nodes and a component that is placed anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import anyio

from benchmarks import guests
from benchmarks.measurement import Effort, Row, Target, compare, percentile
from benchmarks.processes import LATTICE, Processes, deploy, node_id, processes
from ctl.calling import CallOptions
from ctl.client import ControlClient
from ctl.functions import Function
from lattice.errors import LatticeError
from lattice.observed import Placement
from lattice.observer import Observer

NODES = ("a", "b", "c")
CALLS_PER_SECOND = 200
BEFORE_SECONDS = 0.3
AFTER_SECONDS = 0.5
"""The calls go on for so long after all replicas run again."""
GIVE_UP_SECONDS = 20.0
BODY = bytes(128)


@dataclass(slots=True, eq=False)
class Load:
    """What became of the calls of one trial."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One kill."""

    load: Load
    until_full_seconds: float


def kill_replica(effort: Effort) -> Iterator[Row]:
    """A node with a replica that is not the controller's."""
    return _rows("a replica's node", is_controller=False, kills=effort.kills)


def kill_controller(effort: Effort) -> Iterator[Row]:
    """The controller's node, which holds a replica as well."""
    return _rows("the controller's node", is_controller=True, kills=effort.kills)


def _rows(whose: str, *, is_controller: bool, kills: int) -> Iterator[Row]:
    trials = []
    with processes() as running:
        running.start(*NODES)
        for number in range(kills):
            component = f"trial-{number}"
            victim = anyio.run(_prepare, running, component, is_controller)
            arguments = (running, component, victim)
            trials.append(anyio.run(_trial, *arguments, backend_options={"use_uvloop": True}))
            running.start(victim)
    failures = [failure for trial in trials for failure in trial.load.failures]
    slowest = [max(trial.load.seconds) for trial in trials]
    full = [trial.until_full_seconds for trial in trials]
    what = f"kill -9 of {whose} under {CALLS_PER_SECOND} calls/s"
    seconds = Target(at_most=1.0)
    yield compare(f"{what}: failed calls", len(failures), None, "calls", Target(at_most=0))
    yield compare(f"{what}: slowest call, p99 of kills", percentile(slowest, 0.99), None, "s", seconds)
    yield compare(f"{what}: slowest call, median", percentile(slowest, 0.5), None, "s")
    yield compare(f"{what}: full replicas after, p99", percentile(full, 0.99), None, "s", seconds)
    yield compare(f"{what}: full replicas after, median", percentile(full, 0.5), None, "s")
    for failure in sorted(set(failures))[:5]:
        yield compare(f"of the failures: {failure[:80]}", failures.count(failure), None, "calls")


async def _prepare(running: Processes, component: str, is_controller: bool) -> str:
    """Place the component anew on all nodes; gives the name of the node to be killed."""
    async with running.client() as client:
        for name in NODES:
            await node_id(client, name)
        for former in await client.components():
            await client.delete(former.name)
        await deploy(client, component, guests.echo(), replicas=len(NODES), idempotent=True)
        with anyio.fail_after(GIVE_UP_SECONDS):
            while True:
                nodes = [node for node in await client.nodes() if node.replicas == 1]
                found = [node.name for node in nodes if node.is_controller is is_controller]
                if found and len(nodes) == len(NODES):
                    return found[0]
                await anyio.sleep(0.05)


async def _trial(running: Processes, component: str, victim: str) -> Trial:
    load = Load()
    async with running.client(routes_calls=True) as client, running.bus() as bus:
        function = await client.function(component, "echo")
        victim_id = await node_id(client, victim)
        observer = Observer(bus, LATTICE)
        async with anyio.create_task_group() as tasks:
            await tasks.start(observer.run)
            tasks.start_soon(_stream, client, function, load)
            await anyio.sleep(BEFORE_SECONDS)
            running.kill(victim)
            killed = time.perf_counter()
            with anyio.move_on_after(GIVE_UP_SECONDS):
                await observer.wait_for(
                    lambda state: _replicas(state.placements(component), victim_id) >= len(NODES)
                )
            full = time.perf_counter() - killed
            await anyio.sleep(AFTER_SECONDS)
            tasks.cancel_scope.cancel()
    return Trial(load=load, until_full_seconds=full)


def _replicas(placements: Sequence[Placement], besides: str) -> int:
    return sum(item.running for item in placements if item.node != besides)


async def _stream(client: ControlClient, function: Function, load: Load) -> None:
    """Begin calls at a steady pace, however long they take; those that are open at the end are waited for."""
    async with anyio.create_task_group() as calls:
        began, number = anyio.current_time(), 0
        with anyio.CancelScope() as pace:
            try:
                while True:
                    calls.start_soon(_call, client, function, load)
                    number += 1
                    await anyio.sleep_until(began + number / CALLS_PER_SECOND)
            finally:
                pace.cancel()


async def _call(client: ControlClient, function: Function, load: Load) -> None:
    began = time.perf_counter()
    with anyio.CancelScope(shield=True):
        try:
            assert await client.invoke(function, [BODY], CallOptions(idempotent=True)) == BODY
        except LatticeError as error:
            load.failures.append(f"{error.code}: {error.message}")
        load.seconds.append(time.perf_counter() - began)
