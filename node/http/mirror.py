"""What a worker process runs: the same as its node, of what HTTP requests can reach. Pure.

A worker is nobody's to give orders to but its own: it watches what its node runs and orders that from its own
replicas. While the node prepares a new revision, both go on with the one they have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lattice.desired import DesiredComponent
from lattice.model import TriggerKind
from lattice.orders import Order
from lattice.state import LatticeState

FENCE = 1


def wanted(state: LatticeState, node: str) -> dict[str, tuple[DesiredComponent, int]]:
    """The components with routes whose desired revision serves on the node, each with its replicas there."""
    view = state.observed.nodes.get(node)
    if view is None:
        return {}
    found = {}
    for name, desired in state.desired.components.items():
        if any(trigger.kind == TriggerKind.HTTP for trigger in desired.triggers):
            assignment = view.assignments.get(name, {}).get(desired.revision)
            if assignment is not None and assignment.serving:
                found[name] = desired, assignment.serving
    return found


def stopped(state: LatticeState, node: str, running: Iterable[str]) -> list[str]:
    """Which of these the node serves in no revision at all, or has no routes any more."""
    view = state.observed.nodes.get(node)
    return [name for name in running if view is None or not _is_served(state, view.assignments, name)]


def _is_served(state: LatticeState, assignments: Mapping[str, Mapping[str, object]], name: str) -> bool:
    desired = state.desired.components.get(name)
    if desired is None or not any(trigger.kind == TriggerKind.HTTP for trigger in desired.triggers):
        return False
    return any(getattr(each, "serving", 0) for each in assignments.get(name, {}).values())


class Mirror:
    """The mutable state is what was ordered last, and the number of orders so far."""

    def __init__(self, node: str, boot: int) -> None:
        self._node = node
        self._boot = boot
        self._ordered: dict[str, tuple[str, int]] = {}
        self._generation = 0

    def orders(self, state: LatticeState) -> list[Order]:
        """What to order now, for the worker to follow its node."""
        orders = []
        for name, (desired, count) in wanted(state, self._node).items():
            if self._ordered.get(name) != (desired.revision, count):
                self._ordered[name] = desired.revision, count
                orders.append(self._order(name, desired, count))
        for name in stopped(state, self._node, list(self._ordered)):
            revision, _ = self._ordered.pop(name)
            orders.append(self._order(name, None, 0, revision))
        return orders

    def _order(self, name: str, desired: DesiredComponent | None, count: int, revision: str = "") -> Order:
        self._generation += 1
        return Order(
            node=self._node,
            boot=self._boot,
            component=name,
            revision=desired.revision if desired else revision,
            count=count,
            spec=desired.spec if desired else None,
            links=desired.links if desired else (),
            fence=FENCE,
            generation=self._generation,
        )
