"""Control operations that concern one node: its counters and logs, draining it, settling it after a stall.

`logs` and `drain` may be asked of any node, which asks the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import structlog

from lattice import subjects, wire
from lattice.assignments import Assignments
from lattice.bus import Bus
from lattice.controller import Controller
from lattice.errors import Invalid, LatticeError, TimedOut, Unreachable
from lattice.observed import NodeView
from lattice.observer import Observer
from node.component_logs import ComponentLogs
from node.engine.engine import Engine
from node.jobs.jobs import Jobs
from node.operations import Operation
from node.replicas import Replicas, RunningComponent
from node.reports import Reports

log = structlog.get_logger()

SETTLE_SECONDS = 2.0
LOG_SECONDS = 1.0
DRAIN_MARGIN_SECONDS = 30.0
"""Beyond the drain itself, for the reply of a node that drains."""
DEFAULT_LINES = 100

Fields = Mapping[str, Any]


class OwnOperations:
    """The mutable state is whether somebody asked this node to drain, and whether it has."""

    def __init__(
        self,
        bus: Bus,
        lattice: str,
        node: str,
        observer: Observer,
        *,
        assignments: Assignments,
        replicas: Replicas,
        engine: Engine,
        logs: ComponentLogs,
        reports: Reports,
        controller: Controller,
        jobs: Jobs,
        drain_seconds: float,
    ) -> None:
        self._bus = bus
        self._lattice = lattice
        self._node = node
        self._observer = observer
        self._assignments = assignments
        self._replicas = replicas
        self._engine = engine
        self._logs = logs
        self._reports = reports
        self._controller = controller
        self._jobs = jobs
        self._drain_seconds = drain_seconds
        self.drain_requested = anyio.Event()
        self.drained = anyio.Event()

    def shared_table(self) -> dict[str, Operation]:
        """What may be asked of any node."""
        return {"logs": self.all_logs, "drain": self.drain}

    def own_table(self) -> dict[str, Operation]:
        """What is asked of this node by name."""
        return {"statistics": self.statistics, "own-logs": self.own_logs, "settle": self.let_settle}

    # Counters and logs

    async def statistics(self, request: Fields) -> dict[str, Any]:
        """The counters of what serves calls here."""
        components = {item.component: _counters(item) for item in self._replicas.components()}
        return {
            "components": components,
            "instances": self._engine.instances,
            "jobs": self._jobs.statistics(),
        }

    async def own_logs(self, request: Fields) -> dict[str, Any]:
        """The last lines of a component on this node."""
        lines = self._logs.lines(str(request.get("component", "")), _count(request))
        return {"lines": [dict(line) for line in lines]}

    async def all_logs(self, request: Fields) -> dict[str, Any]:
        """The last lines of a component on all nodes, oldest first."""
        count = _count(request)
        body = wire.encode_message({"component": request.get("component"), "lines": count})
        found: list[dict[str, Any]] = []

        async def ask(node: str) -> None:
            subject = subjects.node_control(self._lattice, node, "own-logs")
            try:
                reply = await self._bus.request(subject, body, timeout_seconds=LOG_SECONDS)
                found.extend(wire.decode_message(reply.data).get("lines", []))
            except LatticeError as error:
                log.debug("logs.unanswered", of=node, reason=error.message)

        async with anyio.create_task_group() as tasks:
            for view in list(self._observer.state.observed.live()):
                tasks.start_soon(ask, view.id)
        found.sort(key=lambda line: line.get("time", 0.0))
        return {"lines": found[-count:]}

    # Draining

    async def drain(self, request: Fields) -> dict[str, Any]:
        """Have a node leave; returns when it has drained."""
        view = self._reports.find_node(str(request.get("node", "")))
        if view.id != self._node:
            return await self._forward_drain(view.id)
        held = self._assignments.replicas
        self.drain_requested.set()
        await self.drained.wait()
        return {"node": self._node, "moved": held - self._assignments.replicas}

    async def _forward_drain(self, node: str) -> dict[str, Any]:
        reply = await self._bus.request(
            subjects.node_control(self._lattice, node, "drain"),
            wire.encode_message({"node": node}),
            timeout_seconds=self._drain_seconds + DRAIN_MARGIN_SECONDS,
        )
        if (error := wire.decode_error(reply.headers, reply.data)) is not None:
            raise error
        return wire.decode_message(reply.data)

    # After a stall

    async def let_settle(self, request: Fields) -> dict[str, Any]:
        """Answer when this node, the controller, has sent the asking one all orders that are due."""
        if not self._controller.is_leading:
            raise Unreachable("this node is not the controller")
        asking = str(request.get("node", ""))
        with anyio.move_on_after(SETTLE_SECONDS) as waiting:
            await self._observer.wait_for(lambda state: _is_heard(state.observed.nodes.get(asking)))
        if waiting.cancelled_caught:
            raise TimedOut(f"node {asking[:8]!r} was not heard within {SETTLE_SECONDS:g} s")
        await anyio.sleep(SETTLE_SECONDS / 4)  # two turns of the plan, and the way of the orders
        return {}

    async def settle(self) -> bool:
        """Whether the controller says that this node has its orders."""
        controller = self._controller.holder
        if controller is None or not self._bus.is_connected:
            return False
        subject = subjects.node_control(self._lattice, controller, "settle")
        body = wire.encode_message({"node": self._node})
        try:
            reply = await self._bus.request(subject, body, timeout_seconds=SETTLE_SECONDS + 1)
        except LatticeError:
            return False
        return wire.decode_error(reply.headers, reply.data) is None


def _is_heard(view: NodeView | None) -> bool:
    return bool(view and view.is_live and view.is_known and view.inventory >= view.heartbeat.inventory)


def _count(request: Fields) -> int:
    count = request.get("lines")
    if count is None:
        return DEFAULT_LINES
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise Invalid("lines must be a whole number above 0")
    return count


def _counters(item: RunningComponent) -> dict[str, Any]:
    statistics = item.statistics
    return {
        "count": item.count,
        "started_at": item.started_at,
        "calls": statistics.calls,
        "errors": sum(statistics.errors.values()),
        "errors_by_code": dict(statistics.errors),
        "in_flight": statistics.in_flight,
        "queued": statistics.queued,
        "slots": statistics.slots,
        "prewarmed": statistics.prewarmed,
        "instances_made": statistics.instances_made,
        "busy_seconds": statistics.busy_seconds,
    }
