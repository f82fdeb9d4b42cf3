"""What a node tells of the lattice when asked: the `get` and `describe` operations."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import anyio

from lattice import subjects, wire, wit
from lattice.bus import Bus
from lattice.descriptions import Description
from lattice.desired import DesiredComponent
from lattice.errors import Invalid, LatticeError, NotFound
from lattice.explain import explain, unresolved
from lattice.grants import import_routes
from lattice.imports import Catalog
from lattice.inventory import Assignment, AssignmentState
from lattice.names import did_you_mean
from lattice.observed import NodeStatus, NodeView
from lattice.observer import Observer
from node.operations import Operations
from node.provider_reports import ProviderReports

STATISTICS_SECONDS = 1.0

Fields = Mapping[str, Any]
_BEGINNING = (AssignmentState.PREPARING, AssignmentState.STARTING)
_SHOWN_STATES = {AssignmentState.PREPARING: "starting"}


class Reports:
    """Reads the observer's state; asks other nodes only for their counters."""

    def __init__(
        self,
        bus: Bus,
        lattice: str,
        observer: Observer,
        operations: Operations,
        *,
        catalog: Catalog,
        controller: Any,
    ) -> None:
        self._bus = bus
        self._lattice = lattice
        self._observer = observer
        self._operations = operations
        self._catalog = catalog
        self._controller = controller
        self._providers = ProviderReports(bus, lattice, observer)

    def table(self) -> dict[str, Any]:
        """Every operation by its name on the wire."""
        return {
            "get.nodes": self.get_nodes,
            "get.components": self.get_components,
            "get.replicas": self.get_replicas,
            "describe.node": self.describe_node,
            "describe.component": self.describe_component,
            **self._providers.table(),
        }

    # Nodes

    async def get_nodes(self, request: Fields) -> dict[str, Any]:
        """All nodes that are known and did not leave."""
        views = sorted(self._nodes(), key=lambda view: (view.name, view.id))
        return {"nodes": [self._node(view) for view in views]}

    async def describe_node(self, request: Fields) -> dict[str, Any]:
        """One node, by id, by the beginning of its id, or by name."""
        view = self.find_node(str(request.get("node", "")))
        statistics = await self._statistics(view.id)
        held = [item for revisions in view.assignments.values() for item in revisions.values()]
        components = [
            {
                "component": item.component,
                "revision": item.revision,
                "count": item.count,
                "running": item.running,
                "state": _state(item),
                "reason": item.reason or None,
            }
            for item in sorted(held, key=lambda item: item.key)
        ]
        return {
            "node": {
                **self._node(view),
                "components": components,
                "compiled": sorted(view.compiled),
                "statistics": statistics,
            }
        }

    def find_node(self, text: str) -> NodeView:
        """The node that is meant; raises `NotFound` or, for a beginning that several ids have, `Invalid`."""
        views = self._nodes()
        found = [view for view in views if text in (view.id, view.name)]
        found = found or [view for view in views if len(text) >= 4 and view.id.startswith(text.upper())]
        if len(found) > 1:
            raise Invalid(f"{text!r} means {len(found)} nodes; use the id: {', '.join(v.id for v in found)}")
        if not found:
            raise NotFound(f"there is no node {text!r}{did_you_mean(text, [view.name for view in views])}")
        return found[0]

    def _nodes(self) -> list[NodeView]:
        nodes = self._observer.state.observed.nodes.values()
        return [view for view in nodes if view.is_known and view.status is not NodeStatus.GONE]

    def _node(self, view: NodeView) -> dict[str, Any]:
        assert view.info is not None
        beat = view.heartbeat
        return {
            "id": view.id,
            "name": view.name,
            "labels": dict(view.labels),
            "state": view.status.value,
            "is_controller": self._controller.holder == view.id,
            "replicas": beat.replicas,
            "capacity": view.capacity,
            "load": beat.load,
            "calls_in_flight": beat.calls_in_flight,
            "version": view.info.version,
            "uptime_seconds": max(0.0, time.time() - view.info.started_at),
            "memory_bytes": beat.memory_bytes,
            "address": view.info.address,
        }

    # Components

    async def get_components(self, request: Fields) -> dict[str, Any]:
        """All deployed components."""
        components = self._observer.state.desired.components
        return {"components": [self._component(components[name]) for name in sorted(components)]}

    async def describe_component(self, request: Fields) -> dict[str, Any]:
        """One component with its interfaces, placements, and why replicas are missing."""
        name = str(request.get("component", ""))
        state = self._observer.state
        wanted = state.desired.component(name)
        description = self._observer.descriptions.get(wanted.spec.digest)
        links = (await self._operations.get_links({"source": name}))["links"]
        holders = {placement.node for placement in state.placements(name)}
        ready = [node for node in state.observed.compiled.get(wanted.spec.digest, ()) if node not in holders]
        spec = wanted.spec
        return {
            "component": {
                **self._component(wanted),
                "incarnation": state.desired.applications[wanted.application].incarnation,
                "type": wit.component_type_to_json(description.type) if description else {},
                "limits": spec.limits.to_dict(),
                "labels": dict(spec.labels),
                "links": links,
                "grants": self._grants(wanted, description),
                "triggers": [trigger.to_dict() for trigger in wanted.triggers],
                "placements": self._placements(name),
                "pending": [{"count": item.count, "reason": item.reason} for item in self._pending(name)],
                "ready_to_take_over": sorted(state.observed.nodes[node].name for node in ready),
                "settings": {
                    "idempotent": spec.idempotent,
                    "spread": spec.spread,
                    "spares": spec.spares,
                    "environment": dict(spec.environment),
                },
            }
        }

    def _component(self, wanted: DesiredComponent) -> dict[str, Any]:
        name, spec = wanted.spec.name, wanted.spec
        observed = self._observer.state.observed
        held = self._assignments(name)
        running = observed.running(name, wanted.revision)
        starting = sum(item.count - item.running for _, item in held if item.state in _BEGINNING)
        failed = sum(item.count for _, item in held if item.state is AssignmentState.FAILED)
        pending = self._pending(name)
        description = self._observer.descriptions.get(spec.digest)
        application = self._observer.state.desired.applications[wanted.application]
        return {
            "name": name,
            "digest": spec.digest,
            "size": description.size if description else 0,
            "replicas": {
                "desired": spec.replicas,
                "running": running,
                "starting": starting,
                "failed": failed,
            },
            "generation": application.generation,
            "revision": wanted.revision,
            "exports": list(description.type.exports) if description else [],
            "imports": list(description.type.imports) if description else [],
            "state": _component_state(spec.replicas, running, starting, failed),
            "reason": pending[0].reason if pending else None,
        }

    def _grants(self, wanted: DesiredComponent, description: Description | None) -> list[dict[str, Any]]:
        state = self._observer.state
        routes = import_routes(
            wanted.spec,
            description.type.imports if description else (),
            wanted.links,
            is_builtin=self._catalog.is_builtin,
            route=self._operations.route,
            why_unresolved=lambda target: unresolved(target, state.desired, state.observed),
        )
        return [asdict(route) for route in routes]

    def _pending(self, component: str) -> list[Any]:
        state = self._observer.state
        return explain(component, state.desired, state.observed, anyio.current_time(), self._catalog)

    def _assignments(self, component: str) -> list[tuple[NodeView, Assignment]]:
        return [
            (view, item)
            for view in self._observer.state.observed.live()
            for item in view.assignments.get(component, {}).values()
        ]

    def _placements(self, component: str) -> list[dict[str, Any]]:
        return [
            {
                "node": view.id,
                "node_name": view.name,
                "count": item.count,
                "running": item.running,
                "state": _state(item),
                "reason": item.reason or None,
            }
            for view, item in sorted(self._assignments(component), key=lambda pair: pair[0].name)
        ]

    # Replicas

    async def get_replicas(self, request: Fields) -> dict[str, Any]:
        """Every replica; their node's counters are spread evenly over those of one component."""
        component = request.get("component")
        if component is not None and not isinstance(component, str):
            raise Invalid("component must be a name")
        state = self._observer.state
        if component and not self._assignments(component):
            state.desired.component(component)  # it may be there without replicas, but it must be there
        names = [component] if component else sorted(state.observed.holdings)
        held = [(name, view, item) for name in names for view, item in self._assignments(name)]
        statistics = await self._all_statistics({view.id for _, view, _ in held})
        rows: list[dict[str, Any]] = []
        for name, view, item in held:
            counters = statistics.get(view.id, {}).get("components", {}).get(name, {})
            rows += _replica_rows(name, view, item, counters)
        return {"replicas": rows}

    async def _all_statistics(self, nodes: Iterable[str]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}

        async def ask(node: str) -> None:
            found[node] = await self._statistics(node)

        async with anyio.create_task_group() as tasks:
            for node in nodes:
                tasks.start_soon(ask, node)
        return found

    async def _statistics(self, node: str) -> dict[str, Any]:
        subject = subjects.node_control(self._lattice, node, "statistics")
        try:
            reply = await self._bus.request(subject, timeout_seconds=STATISTICS_SECONDS)
            return wire.decode_message(reply.data)
        except LatticeError:
            return {}


def _replica_rows(
    component: str, view: NodeView, item: Assignment, counters: Mapping[str, Any]
) -> list[dict[str, Any]]:
    count = max(item.count, item.running)
    since = max(0.0, time.time() - counters["started_at"]) if "started_at" in counters else 0.0
    return [
        {
            "id": f"{component}-{number + 1}",
            "component": component,
            "node": view.id,
            "node_name": view.name,
            "revision": item.revision,
            "state": "running" if number < item.running else _state(item),
            "calls": _share(counters.get("calls", 0), count, number),
            "errors": _share(counters.get("errors", 0), count, number),
            "in_flight": _share(counters.get("in_flight", 0), count, number),
            "since_seconds": since,
        }
        for number in range(count)
    ]


def _share(total: int, parts: int, number: int) -> int:
    return total // parts + (number < total % parts)


def _state(item: Assignment) -> str:
    return _SHOWN_STATES.get(item.state, item.state.value)


def _component_state(desired: int, running: int, starting: int, failed: int) -> str:
    if running >= desired:
        return "ready"
    if starting:
        return "progressing"
    return "failed" if failed else "pending"
