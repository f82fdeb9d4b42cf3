"""Observed state: the nodes, what they hold, and the indexes that the plan and the routers read.

`lattice.state` decides what a report means and calls the methods that change anything here; all others only
read.

A node is one of

    ready, draining    its heartbeats arrive
    suspected          its connection ended (an advisory, or nobody answers its pings): calls to it end
                       at once; without a new connection within the grace, it is gone
    silent             three heartbeats were missed: a stopped process or a partition; it may come back
                       as it was
    gone               its process or its connection ended, or it left

Only ready, draining and suspected nodes are *live*: the plan counts what they hold.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lattice.inventory import Assignment, AssignmentState, Delta, Heartbeat, InventoryPage, NodeInfo, Offer
from lattice.model import Link, OrderVersion

BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 1.0, 30.0
"""After a node failed to prepare a revision; doubles with each failure."""


class NodeStatus(enum.StrEnum):
    """As shown to people; see above."""

    READY = "ready"
    DRAINING = "draining"
    SILENT = "silent"
    GONE = "gone"


@dataclass(slots=True, eq=False)
class Holding:
    """What one live node holds of one component, over all its revisions."""

    node: NodeView
    ordered: Assignment
    """The one of the latest order."""
    serving: int
    """Replicas of any revision that take calls."""
    serving_ordered: int

    @property
    def places(self) -> int:
        """Replicas that count against the node's capacity."""
        return self.serving if self.ordered.state is AssignmentState.FAILED else self.ordered.count

    @property
    def is_settled(self) -> bool:
        """Whether the node has done what its last order says."""
        return self.serving_ordered == self.serving == self.ordered.count


@dataclass(slots=True, eq=False)
class Placement:
    """Replicas of a component, or an offer of a provider, that can be called: what a router chooses by."""

    view: NodeView
    running: int

    @property
    def node(self) -> str:
        """The node's id."""
        return self.view.id

    @property
    def zone(self) -> str | None:
        """The node's label `zone`."""
        return self.view.zone

    @property
    def load(self) -> float:
        """As of the node's last heartbeat: share of its slots that are taken."""
        return self.view.load

    @property
    def is_draining(self) -> bool:
        """Whether to ask another node if there is one."""
        return self.view.is_draining


@dataclass(slots=True, frozen=True)
class Failure:
    """A node could not prepare a revision."""

    attempts: int
    reason: str
    failed_at: float
    order: OrderVersion

    @property
    def retry_at(self) -> float:
        """When the node may be asked again."""
        return self.failed_at + min(BACKOFF_SECONDS * 2.0 ** min(self.attempts - 1, 10), MAX_BACKOFF_SECONDS)


@dataclass(slots=True, eq=False)
class NodeView:
    """What is known of one node; changed by `LatticeState` only."""

    id: str
    heartbeat: Heartbeat
    heard_at: float
    info: NodeInfo | None = None
    inventory: int = -1
    """The version known; -1 before the first inventory of this boot."""
    assignments: dict[str, dict[str, Assignment]] = field(default_factory=dict)
    """By component and revision."""
    compiled: set[str] = field(default_factory=set)
    offers: tuple[Offer, ...] = ()
    job_links: Mapping[str, tuple[Link, ...]] = field(default_factory=dict)
    """By job."""
    fence: int = 0
    """The highest that this node is known to have seen."""
    is_draining: bool = False
    is_live: bool = True
    load: float = 0.0
    zone: str | None = None
    suspected_at: float | None = None
    former_connection: tuple[str, int] | None = None
    """The one before that of the last heartbeat: what was sent over it may still be under way."""
    lost_at: float | None = None
    lost_reason: str = ""
    fetching_since: float | None = None
    places: int = 0
    """Replicas that count against its capacity."""
    early: dict[int, Delta] = field(default_factory=dict)
    partial: dict[int, InventoryPage] = field(default_factory=dict)

    @property
    def boot(self) -> int:
        """Which life of the node this is."""
        return self.heartbeat.boot

    @property
    def name(self) -> str:
        """For people; the id's beginning until the inventory came."""
        return self.info.name if self.info else self.id[:8].lower()

    @property
    def labels(self) -> Mapping[str, str]:
        """Empty until the inventory came."""
        return self.info.labels if self.info else {}

    @property
    def capacity(self) -> int:
        """0 until the inventory came."""
        return self.info.capacity if self.info else 0

    @property
    def is_known(self) -> bool:
        """Whether its inventory came, so that it may be planned with."""
        return self.info is not None

    @property
    def is_callable(self) -> bool:
        """Whether calls may be sent to it."""
        return self.is_live and self.suspected_at is None

    @property
    def status(self) -> NodeStatus:
        """As shown to people."""
        if self.is_live:
            return NodeStatus.DRAINING if self.is_draining else NodeStatus.READY
        return NodeStatus.SILENT if self.lost_reason == "silent" else NodeStatus.GONE

    def holds_connection(self, server_id: str, client_id: int) -> bool:
        """Whether its last heartbeat came over this connection."""
        return bool(server_id) and (self.heartbeat.server_id, self.heartbeat.client_id) == (
            server_id,
            client_id,
        )


class Observed:
    """The nodes and what they hold, with the indexes that the plan and the routers read.

    The mutable state is the views of the nodes; all else follows from them.
    """

    def __init__(self, components: Mapping[str, object]) -> None:
        """`components` are those asked for: what is meant for one goes to no provider of its name."""
        self._components = components
        self.nodes: dict[str, NodeView] = {}
        self.holdings: dict[str, dict[str, Holding]] = {}
        """By component and node; live nodes only."""
        self.compiled: dict[str, set[str]] = {}
        """Nodes by digest that they can start at once; live nodes only."""
        self.failures: dict[tuple[str, str, str], Failure] = {}
        """By node, component and revision."""
        self.changes = 0
        """Counts changes that matter to the plan."""
        self.offers: dict[str, dict[str, tuple[NodeView, Offer]]] = {}
        """By provider and node; live nodes only."""
        self._placements: dict[str, tuple[Placement, ...]] = {}
        self._jobs: dict[str, NodeView] = {}
        """By job that has links: the live node that was the first to tell of it."""

    def placements(self, name: str) -> Sequence[Placement]:
        """Where the component or provider can be called; cheap enough for every call."""
        found = self._placements.get(name)
        if found is None:
            found = self._placements[name] = (*self._replicas(name), *self._offered(name))
        return found

    def forget_placements(self, names: Iterable[str]) -> None:
        """Look anew where these can be called: they became components, or ceased to be."""
        for name in names:
            self._placements.pop(name, None)

    def _replicas(self, component: str) -> Iterable[Placement]:
        return (
            Placement(holding.node, holding.serving)
            for holding in self.holdings.get(component, {}).values()
            if holding.serving and holding.node.is_callable
        )

    def _offered(self, provider: str) -> Iterable[Placement]:
        if provider in self._components:
            return ()
        return (
            Placement(view, 1)
            for view, offer in self.offers.get(provider, {}).values()
            if offer.is_healthy and view.is_callable
        )

    def job_links(self, job: str) -> tuple[Link, ...] | None:
        """The links of a job that runs on a live node, if it has any; cheap enough for every call."""
        view = self._jobs.get(job)
        return None if view is None else view.job_links[job]

    def all_job_links(self) -> Iterable[Link]:
        """Those of all jobs that run on live nodes."""
        return (link for job, view in self._jobs.items() for link in view.job_links[job])

    def live(self) -> Iterable[NodeView]:
        """Nodes that count."""
        return (view for view in self.nodes.values() if view.is_live)

    @property
    def fence(self) -> int:
        """The highest that any node is known to have seen in an order."""
        return max((view.fence for view in self.nodes.values()), default=0)

    def running(self, component: str, revision: str | None = None) -> int:
        """Replicas that take calls, of one revision or of all."""
        holdings = self.holdings.get(component, {}).values()
        if revision is None:
            return sum(holding.serving for holding in holdings)
        return sum(holding.serving_ordered for holding in holdings if holding.ordered.revision == revision)

    # Changes; for LatticeState only

    def replace(self, view: NodeView, assignments: Iterable[Assignment], now: float) -> None:
        """Take these as all of the node's assignments."""
        before = set(view.assignments)
        view.assignments = {}
        for assignment in assignments:
            view.assignments.setdefault(assignment.component, {})[assignment.revision] = assignment
            self._note_failure(view, assignment, now)
        for component in before | set(view.assignments):
            self.index(view, component)

    def update(self, view: NodeView, delta: Delta, now: float) -> None:
        """Take the changed and removed assignments, and what was compiled."""
        for component, revision in delta.removed:
            view.assignments.get(component, {}).pop(revision, None)
        for assignment in delta.changed:
            view.assignments.setdefault(assignment.component, {})[assignment.revision] = assignment
            self._note_failure(view, assignment, now)
        for component in {key[0] for key in delta.removed} | {item.component for item in delta.changed}:
            if not view.assignments.get(component):
                view.assignments.pop(component, None)
            self.index(view, component)
        self.set_compiled(view, (view.compiled | set(delta.compiled)) - set(delta.evicted))
        if delta.offers is not None:
            self.set_offers(view, delta.offers)
        if delta.job_links or delta.ended_jobs:
            running = {job: links for job, links in view.job_links.items() if job not in delta.ended_jobs}
            self.set_job_links(view, running | by_source(delta.job_links))

    def set_offers(self, view: NodeView, offers: Iterable[Offer]) -> None:
        """Take these as all providers that the node offers."""
        self._drop_offers(view)
        view.offers = tuple(offers)
        if view.is_live:
            for offer in view.offers:
                self.offers.setdefault(offer.name, {})[view.id] = view, offer
        self.refresh_placements(view)

    def _drop_offers(self, view: NodeView) -> None:
        for offer in view.offers:
            nodes = self.offers.get(offer.name, {})
            nodes.pop(view.id, None)
            if not nodes:
                self.offers.pop(offer.name, None)
            self._placements.pop(offer.name, None)

    def set_job_links(self, view: NodeView, links: Mapping[str, tuple[Link, ...]]) -> None:
        """Take these as the links of all jobs that the node runs; those that it had stay the same object."""
        before = view.job_links
        for job in before:
            if self._jobs.get(job) is view:
                del self._jobs[job]
        view.job_links = {job: before[job] if before.get(job) == of else of for job, of in links.items()}
        if view.is_live:
            for job in view.job_links:  # of another node's job nobody else can speak
                self._jobs.setdefault(job, view)
        self.changes += 1

    def index(self, view: NodeView, component: str) -> None:
        """Bring the holdings of one node and component up to date."""
        nodes = self.holdings.setdefault(component, {})
        before = nodes.pop(view.id, None)
        revisions = view.assignments.get(component)
        if view.is_live and revisions:
            nodes[view.id] = _holding(view, revisions.values())
        after = nodes.get(view.id)
        view.places += (after.places if after else 0) - (before.places if before else 0)
        if not nodes:
            del self.holdings[component]
        self._placements.pop(component, None)
        self.changes += 1

    def set_compiled(self, view: NodeView, digests: set[str]) -> None:
        """Take these as all that the node can start at once."""
        for digest in view.compiled - digests:
            self._drop_compiled(view, digest)
        if view.is_live:
            for digest in digests:
                self.compiled.setdefault(digest, set()).add(view.id)
        view.compiled = digests
        self.changes += 1

    def reindex(self, view: NodeView) -> None:
        """Bring everything of a node that appeared or was lost up to date."""
        for component in view.assignments:
            self.index(view, component)
        if not view.is_live:
            for digest in view.compiled:
                self._drop_compiled(view, digest)
        self.set_compiled(view, view.compiled)
        self.set_offers(view, view.offers)
        self.set_job_links(view, view.job_links)

    def refresh_placements(self, view: NodeView) -> None:
        """The node became callable or ceased to be."""
        for name in (*view.assignments, *(offer.name for offer in view.offers)):
            self._placements.pop(name, None)
        self.changes += 1

    def _drop_compiled(self, view: NodeView, digest: str) -> None:
        nodes = self.compiled.get(digest, set())
        nodes.discard(view.id)
        if not nodes:
            self.compiled.pop(digest, None)

    def _note_failure(self, view: NodeView, assignment: Assignment, now: float) -> None:
        key = (view.id, assignment.component, assignment.revision)
        known = self.failures.get(key)
        if assignment.state is AssignmentState.RUNNING:
            self.failures.pop(key, None)
        elif assignment.state is AssignmentState.FAILED and (known is None or assignment.order > known.order):
            attempts = known.attempts + 1 if known else 1
            self.failures[key] = Failure(attempts, assignment.reason, now, assignment.order)


def by_source(links: Iterable[Link]) -> dict[str, tuple[Link, ...]]:
    """The links of each source."""
    found: dict[str, tuple[Link, ...]] = {}
    for link in links:
        found[link.source] = (*found.get(link.source, ()), link)
    return found


def _holding(view: NodeView, assignments: Iterable[Assignment]) -> Holding:
    ordered = max(assignments, key=lambda item: (item.order, item.revision))
    serving = sum(item.serving for item in assignments)
    return Holding(view, ordered, serving, ordered.serving)
