"""What this process knows of the lattice: desired state, and what the nodes report.

`LatticeState.apply(event, now)` takes what was heard and returns what must be done; it does no I/O. `now`
is the receiver's monotonic clock in seconds: no clock of another machine decides anything here.

Theory of operation. A node's inventory has a version that grows by one with each change. A delta that leads
to the next version is applied; an older one is a duplicate; one that leaves a gap is kept while the whole
inventory is fetched. A heartbeat that names a version above the known one shows that a delta was lost.

A new boot of a node is another life: what the former one held is forgotten. `lattice.observed` says what
states a node can be in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lattice.desired import Desired
from lattice.inventory import Delta, Heartbeat, InventoryPage
from lattice.model import Application, Link
from lattice.observed import NodeView, Observed, Placement, by_source

HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 3 * HEARTBEAT_SECONDS
GRACE_SECONDS = 0.2
"""For a new connection of a node whose connection ended."""
STALL_SECONDS = 1.0
"""Between two ticks: above it this process itself stood still, which is nobody else's silence."""
FETCH_SECONDS = 1.0
"""After which an inventory that did not come is asked for again."""
LATE_SECONDS = 3.0
"""How long a heartbeat over a connection that ended may still be under way."""
FORGET_SECONDS = 600.0
"""After which a node that does not come back, or a failure that is not repeated, is forgotten."""
MAX_EARLY_DELTAS = 64
"""Kept per node while its inventory is fetched."""


# Events, beside the values of `lattice.model`: Heartbeat, Delta, InventoryPage, Application


@dataclass(frozen=True, slots=True)
class NodeLeft:
    """The node said that it ends."""

    node: str
    boot: int


@dataclass(frozen=True, slots=True)
class ConnectionEnded:
    """A server said that a connection ended; counts for the node whose last heartbeat came over it."""

    server_id: str
    client_id: int


@dataclass(frozen=True, slots=True)
class NodeUnresponsive:
    """Nobody answers to the node's own subject, twice: counts like the end of its connection."""

    node: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; to be applied at least every 100 ms."""


Event: TypeAlias = (
    Heartbeat | Delta | InventoryPage | Application | NodeLeft | ConnectionEnded | NodeUnresponsive | Tick
)


# Effects: what the caller must do


@dataclass(frozen=True, slots=True)
class FetchInventory:
    """Ask the node for all pages of its inventory."""

    node: str


@dataclass(frozen=True, slots=True)
class NodeJoined:
    """A node appeared, or came back after it was lost."""

    node: str


@dataclass(frozen=True, slots=True)
class NodeSuspected:
    """The node's connection ended, or was replaced: calls that were sent over it end at once."""

    node: str


@dataclass(frozen=True, slots=True)
class NodeLost:
    """The node no longer counts: calls to it end, its replicas are re-placed."""

    node: str
    boot: int
    reason: str  # "left", "disconnected", "silent" or "restarted"


@dataclass(frozen=True, slots=True)
class ApplicationChanged:
    """A higher version of the application became known: keep a copy of it."""

    application: Application


Effect: TypeAlias = FetchInventory | NodeJoined | NodeSuspected | NodeLost | ApplicationChanged


class LatticeState:
    """Desired and observed state of the lattice, as far as this process heard of them.

    The mutable state is `desired`, `observed` and the time of the last tick.
    """

    def __init__(self) -> None:
        self.desired = Desired()
        self.observed = Observed(self.desired.components)
        self._ticked_at: float | None = None
        self._handlers: Mapping[type, Callable[[Any, float], list[Effect]]] = {
            Heartbeat: self._heartbeat,
            Delta: self._delta,
            InventoryPage: self._inventory,
            Application: self._application,
            NodeLeft: self._left,
            ConnectionEnded: self._connection_ended,
            NodeUnresponsive: self._unresponsive,
            Tick: self._tick,
        }

    def __repr__(self) -> str:
        live = sum(1 for _ in self.observed.live())
        return f"<LatticeState {live} of {len(self.observed.nodes)} nodes live, {self.desired!r}>"

    @property
    def changes(self) -> int:
        """Grows with every change that matters to the plan."""
        return self.desired.changes + self.observed.changes

    def placements(self, component: str) -> Sequence[Placement]:
        """Where the component or provider can be called; cheap enough for every call."""
        return self.observed.placements(component)

    def links_of(self, component: str) -> Sequence[Link] | None:
        """The links of a component, or of a job that runs on any node; None for what nobody speaks of.

        Cheap enough for every call; while nothing changes it is the same object.
        """
        desired = self.desired.components.get(component)
        return self.observed.job_links(component) if desired is None else desired.links

    def apply(self, event: Event, now: float) -> list[Effect]:
        """Take what was heard at `now`; returns what must be done."""
        return self._handlers[type(event)](event, now)

    def ask_all(self, now: float) -> list[Effect]:
        """Ask every live node for its inventory: what a new leader does first. See `is_informed`."""
        for view in self.observed.live():
            view.fetching_since = now
        return [FetchInventory(view.id) for view in self.observed.live()]

    @property
    def is_informed(self) -> bool:
        """Whether every live node has answered the last question for its inventory."""
        return all(view.fetching_since is None for view in self.observed.live())

    # Desired

    def _application(self, application: Application, now: float) -> list[Effect]:
        previous = self.desired.applications.get(application.name)
        if not self.desired.merge(application):
            return []
        both = (previous, application)
        self.observed.forget_placements(item.name for copy in both if copy for item in copy.components)
        return [ApplicationChanged(application)]

    # Nodes

    def _heartbeat(self, heartbeat: Heartbeat, now: float) -> list[Effect]:
        view = self.observed.nodes.get(heartbeat.node)
        if view is None or heartbeat.boot > view.boot:
            return self._new_life(view, heartbeat, now)
        if (
            heartbeat.boot < view.boot
            or heartbeat.beat <= view.heartbeat.beat
            or _is_late(view, heartbeat, now)
        ):
            return []
        effects = self._return(view, now) + self._take_heartbeat(view, heartbeat, now)
        return effects + self._fetch_if_stale(view, now)

    def _take_heartbeat(self, view: NodeView, heartbeat: Heartbeat, now: float) -> list[Effect]:
        """A node whose connection is another has lost the former one, whether or not anybody said so."""
        is_new_connection = not view.holds_connection(heartbeat.server_id, heartbeat.client_id)
        if is_new_connection:
            view.former_connection = view.heartbeat.server_id, view.heartbeat.client_id
        view.heartbeat, view.load, view.heard_at = heartbeat, heartbeat.load, now
        view.fence = max(view.fence, heartbeat.fence)
        if heartbeat.is_draining and not view.is_draining:
            view.is_draining = True
            self.observed.refresh_placements(view)
        if not is_new_connection:
            return []
        if view.suspected_at is None:
            return [NodeSuspected(view.id)] if heartbeat.server_id else []
        view.suspected_at = None
        self.observed.refresh_placements(view)
        return []

    def _new_life(self, former: NodeView | None, heartbeat: Heartbeat, now: float) -> list[Effect]:
        effects = self._lose(former, "restarted", now) if former and former.is_live else []
        view = NodeView(id=heartbeat.node, heartbeat=heartbeat, heard_at=now, fence=heartbeat.fence)
        view.load, view.is_draining = heartbeat.load, heartbeat.is_draining
        if former:
            self._forget_node(former)
        self.observed.nodes[view.id] = view
        self.observed.changes += 1
        return [*effects, NodeJoined(view.id), *self._fetch_if_stale(view, now)]

    def _return(self, view: NodeView, now: float) -> list[Effect]:
        if view.is_live:
            return []
        view.is_live, view.lost_at, view.lost_reason, view.suspected_at = True, None, "", None
        view.heard_at = now
        self.observed.reindex(view)
        return [NodeJoined(view.id)]

    def _left(self, event: NodeLeft, now: float) -> list[Effect]:
        view = self.observed.nodes.get(event.node)
        if view is None or view.boot != event.boot or not view.is_live:
            return []
        return self._lose(view, "left", now)

    def _connection_ended(self, event: ConnectionEnded, now: float) -> list[Effect]:
        """All that claim the connection are suspected: who claims another's gains nothing by it.

        The end of a connection that a node has replaced tells nothing of the node, but for a while the server
        may have sent it what was meant for the new one: calls under way end.
        """
        connection = event.server_id, event.client_id
        held = [view for view in self.observed.live() if view.holds_connection(*connection)]
        effects = [effect for view in held for effect in self._suspect(view, now)]
        for view in self.observed.live():
            if view.former_connection == connection:
                view.former_connection = None
                effects.append(NodeSuspected(view.id))
        return effects

    def _unresponsive(self, event: NodeUnresponsive, now: float) -> list[Effect]:
        view = self.observed.nodes.get(event.node)
        return self._suspect(view, now) if view and view.is_live else []

    def _suspect(self, view: NodeView, now: float) -> list[Effect]:
        if view.suspected_at is not None:
            return []
        view.suspected_at = now
        self.observed.refresh_placements(view)
        return [NodeSuspected(view.id)]

    def _lose(self, view: NodeView, reason: str, now: float) -> list[Effect]:
        view.is_live, view.lost_at, view.lost_reason = False, now, reason
        view.early.clear()
        view.partial.clear()
        view.fetching_since = None
        self.observed.reindex(view)
        return [NodeLost(view.id, view.boot, reason)]

    def _forget_node(self, view: NodeView) -> None:
        del self.observed.nodes[view.id]
        for key in [key for key in self.observed.failures if key[0] == view.id]:
            del self.observed.failures[key]
        self.observed.changes += 1

    # Inventories

    def _delta(self, delta: Delta, now: float) -> list[Effect]:
        view = self.observed.nodes.get(delta.node)
        if view is None or view.boot != delta.boot or delta.inventory <= view.inventory or not view.is_live:
            return []
        if len(view.early) < MAX_EARLY_DELTAS:
            view.early[delta.inventory] = delta
        self._apply_early(view, now)
        return self._fetch(view, now) if view.early or view.inventory < 0 else []

    def _apply_early(self, view: NodeView, now: float) -> None:
        """Apply what follows on the known version; drop what it overtook."""
        if view.inventory < 0:
            return
        while delta := view.early.pop(view.inventory + 1, None):
            view.inventory = delta.inventory
            self.observed.update(view, delta, now)
        for version in [version for version in view.early if version <= view.inventory]:
            del view.early[version]

    def _inventory(self, page: InventoryPage, now: float) -> list[Effect]:
        view = self.observed.nodes.get(page.info.id)
        if view is None or view.boot != page.info.boot or page.inventory < view.inventory or not view.is_live:
            return []
        if any(
            other.inventory != page.inventory or other.pages != page.pages for other in view.partial.values()
        ):
            view.partial.clear()
        view.partial[page.page] = page
        if len(view.partial) < page.pages:
            return []
        self._take_inventory(view, now)
        return self._fetch_if_stale(view, now)

    def _take_inventory(self, view: NodeView, now: float) -> None:
        pages = [page for _, page in sorted(view.partial.items())]
        view.partial.clear()
        view.fetching_since = None
        view.info, view.inventory = pages[0].info, pages[0].inventory
        view.zone = view.info.labels.get("zone")
        self.observed.replace(view, [item for page in pages for item in page.assignments], now)
        self.observed.set_compiled(view, {digest for page in pages for digest in page.compiled})
        self.observed.set_offers(view, [offer for page in pages for offer in page.offers])
        self.observed.set_job_links(view, by_source(link for page in pages for link in page.job_links))
        self._apply_early(view, now)

    def _fetch_if_stale(self, view: NodeView, now: float) -> list[Effect]:
        is_stale = view.inventory < view.heartbeat.inventory or bool(view.early) or not view.is_known
        return self._fetch(view, now) if is_stale else []

    def _fetch(self, view: NodeView, now: float) -> list[Effect]:
        if view.fetching_since is not None and now - view.fetching_since < FETCH_SECONDS:
            return []
        view.fetching_since = now
        return [FetchInventory(view.id)]

    # Time

    def _tick(self, _: Tick, now: float) -> list[Effect]:
        self._forgive_stall(now)
        effects: list[Effect] = []
        for view in list(self.observed.nodes.values()):
            if view.is_live:
                effects += self._check_live(view, now)
            elif view.lost_at is not None and now - view.lost_at > FORGET_SECONDS:
                self._forget_node(view)
        for key in [
            key for key, item in self.observed.failures.items() if now - item.failed_at > FORGET_SECONDS
        ]:
            del self.observed.failures[key]
        return effects

    def _forgive_stall(self, now: float) -> None:
        stall = 0.0 if self._ticked_at is None else now - self._ticked_at - STALL_SECONDS
        self._ticked_at = now
        if stall <= 0:
            return
        for view in self.observed.live():
            view.heard_at = min(now, view.heard_at + stall)
            if view.suspected_at is not None:
                view.suspected_at = min(now, view.suspected_at + stall)

    def _check_live(self, view: NodeView, now: float) -> list[Effect]:
        if view.suspected_at is not None and now - view.suspected_at >= GRACE_SECONDS:
            return self._lose(view, "disconnected", now)
        if now - view.heard_at > SILENCE_SECONDS:
            return self._lose(view, "silent", now)
        return self._fetch_if_stale(view, now) if view.fetching_since is not None else []


def _is_late(view: NodeView, heartbeat: Heartbeat, now: float) -> bool:
    """Whether a lost node sent this before its end: over the connection that ended, and not long after."""
    if view.is_live or view.lost_at is None or view.lost_reason == "silent":
        return False
    if view.lost_reason == "left":
        return True
    return (
        view.holds_connection(heartbeat.server_id, heartbeat.client_id) and now - view.lost_at < LATE_SECONDS
    )
