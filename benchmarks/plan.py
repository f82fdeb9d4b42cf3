"""What the controller computes, and what a lattice says while nothing happens."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import anyio

from benchmarks.measurement import Effort, Row, Target, compare
from benchmarks.processes import Processes, processes
from lattice.bus import Message
from lattice.inventory import Assignment, AssignmentState, Heartbeat, InventoryPage, NodeInfo
from lattice.model import Application, ComponentSpec, new_application, revision_of
from lattice.plan import InFlight, plan
from lattice.state import LatticeState, NodeLeft

REPLICAS_PER_NODE = 10
REPLICAS_PER_COMPONENT = 20
SETTLE_SECONDS = 3.0


def run(effort: Effort) -> Iterator[Row]:
    """The plan after one change, for each kind of change."""
    target = Target(at_most=100.0)
    scaled, lost, idle = (
        statistics.median(figures) * 1e3
        for figures in zip(*(_round(effort.nodes) for _ in range(effort.rounds)), strict=True)
    )
    what = f"{effort.nodes:,} nodes and {effort.nodes * REPLICAS_PER_NODE:,} replicas"
    yield compare(f"plan after a component is scaled, {what}", scaled, None, "ms", target)
    yield compare(f"plan after a node is lost, {what}", lost, None, "ms", target)
    yield compare(f"plan when nothing has changed, {what}", idle, None, "ms")


def _round(nodes: int) -> tuple[float, float, float]:
    state, applications = _settled(nodes)
    idle = _plan_seconds(state)
    changed = applications[len(applications) // 2]
    component = changed.components[0]
    more = ComponentSpec.from_dict({**component.to_dict(), "replicas": component.replicas + 1})
    state.apply(changed.changed(components=[more], links=[]), 0.0)
    scaled = _plan_seconds(state)
    state, _ = _settled(nodes)
    state.apply(NodeLeft(_node(nodes // 2), 1), 0.0)
    return scaled, _plan_seconds(state), idle


def _plan_seconds(state: LatticeState) -> float:
    began = time.perf_counter()
    plan(state.desired, state.observed, InFlight(), 1.0)
    return time.perf_counter() - began


def _settled(nodes: int) -> tuple[LatticeState, list[Application]]:
    """A lattice in which everything runs that is asked for, ten replicas on each node."""
    state = LatticeState()
    state.desired.is_complete = True
    count = max(1, nodes * REPLICAS_PER_NODE // REPLICAS_PER_COMPONENT)
    applications = [_application(number) for number in range(count)]
    held: dict[int, list[Assignment]] = {number: [] for number in range(nodes)}
    for number, application in enumerate(applications):
        state.apply(application, 0.0)
        for index in range(REPLICAS_PER_COMPONENT):
            held[(number * REPLICAS_PER_COMPONENT + index) % nodes].append(_assignment(application))
    compiled = tuple(item.components[0].digest for item in applications)
    for number, assignments in held.items():
        node = _node(number)
        state.apply(Heartbeat(node=node, boot=1, beat=1, inventory=1), 0.0)
        info = NodeInfo(id=node, name=f"node-{number}", boot=1, capacity=100)
        page = InventoryPage(info=info, inventory=1, assignments=_merged(assignments), compiled=compiled)
        state.apply(page, 0.0)
    return state, applications


def _node(number: int) -> str:
    return f"N{number:055d}"


def _application(number: int) -> Application:
    spec = ComponentSpec(
        name=f"component-{number}", digest=f"sha256:{number:064x}", replicas=REPLICAS_PER_COMPONENT
    )
    return new_application(spec.name, None, 1, components=[spec])


def _assignment(application: Application) -> Assignment:
    spec = application.components[0]
    return Assignment(
        component=spec.name,
        revision=revision_of(spec),
        digest=spec.digest,
        count=1,
        running=1,
        state=AssignmentState.RUNNING,
        fence=1,
        generation=1,
    )


def _merged(assignments: list[Assignment]) -> tuple[Assignment, ...]:
    """With few nodes a component has several replicas on one: one assignment says so."""
    found: dict[str, Assignment] = {}
    for item in assignments:
        count = found[item.component].count + 1 if item.component in found else 1
        found[item.component] = Assignment.from_dict({**item.to_dict(), "count": count, "running": count})
    return tuple(found.values())


def messages(effort: Effort) -> Iterator[Row]:
    """What three nodes of which one leads publish while nothing happens."""
    with processes() as running:
        running.start("a", "b", "c")
        subjects = anyio.run(_count, running, effort.seconds * 3)
    total = sum(subjects.values())
    yield compare("messages per node and second in steady state", total, None, "messages")
    for subject, count in sorted(subjects.items(), key=lambda item: -item[1])[:6]:
        yield compare(f"of these: {subject}", count, None, "messages")


async def _count(running: Processes, seconds: float) -> dict[str, float]:
    counts: dict[str, int] = {}

    def count(message: Message) -> None:
        kind = _kind(message.subject)
        counts[kind] = counts.get(kind, 0) + 1

    async with running.bus() as bus:
        await anyio.sleep(SETTLE_SECONDS)
        await bus.subscribe(">", count)
        await anyio.sleep(seconds)
        return {kind: number / seconds / 3 for kind, number in counts.items()}


def _kind(subject: str) -> str:
    parts = subject.split(".")
    return ".".join("*" if len(part) >= 16 else part for part in parts[:6])
