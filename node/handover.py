"""Waits, while a node drains, until others have taken over what they can take."""

from __future__ import annotations

import anyio

from lattice.assignments import Assignments
from lattice.observed import NodeView
from lattice.state import LatticeState

POLL_SECONDS = 0.05
HOPELESS_SECONDS = 2.0
"""How long nobody may be able to take what is left before the node leaves all the same."""


class Handover:
    """Reads what this node and the others hold; the controller moves replicas once the node drains."""

    def __init__(self, node: str, state: LatticeState, assignments: Assignments) -> None:
        self._node = node
        self._state = state
        self._assignments = assignments

    async def wait(self) -> None:
        """Return when nothing runs on this node any more, or nothing that another node could take.

        What could not be started here, or is only being prepared, is nobody's loss.
        """
        hopeless_since: float | None = None
        while self._assignments.replicas:
            now = anyio.current_time()
            if self._can_move():
                hopeless_since = None
            elif hopeless_since is None:
                hopeless_since = now
            elif now - hopeless_since > HOPELESS_SECONDS or not self._others():
                return
            await anyio.sleep(POLL_SECONDS)

    def _can_move(self) -> bool:
        own = self._state.observed.nodes.get(self._node)
        if own is None or not own.assignments:
            return bool(self._others())
        running = (
            name for name, held in own.assignments.items() if any(item.running for item in held.values())
        )
        return any(self._takers(component) for component in running)

    def _takers(self, component: str) -> list[NodeView]:
        wanted = self._state.desired.components.get(component)
        if wanted is None:
            return self._others()  # it is to be stopped: the controller can do that
        labels = wanted.spec.labels.items()
        holdings = self._state.observed.holdings.get(component, {})
        return [
            view
            for view in self._others()
            if labels <= dict(view.labels).items() and (view.places < view.capacity or view.id in holdings)
        ]

    def _others(self) -> list[NodeView]:
        return [
            view
            for view in self._state.observed.live()
            if view.id != self._node and view.is_known and not view.is_draining
        ]
