"""What nodes report of themselves: who they are, that they live, what they hold and offer.

A newer inventory follows from an older one by the deltas between them; whoever misses one asks for all pages.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from lattice.errors import Invalid
from lattice.fields import Value, check_range
from lattice.model import MAX_NUMBER, MAX_REPLICAS, Link, OrderVersion
from lattice.names import check_label, check_name

MAX_REASON = 2_000
"""Characters to which a node cuts the reason of a failure, so that reports stay small."""


class AssignmentState(enum.StrEnum):
    """How far a node is with a revision of a component."""

    PREPARING = "preparing"  # fetching, compiling
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"  # takes no new calls
    FAILED = "failed"  # `reason` says why; nothing of this revision runs


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo(Value):
    """What is true of a node as long as its process lives."""

    id: str
    name: str
    boot: int
    """Tells the node's lives apart, and grows: max(the last one + 1, milliseconds since 1970)."""
    labels: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    capacity: int = 1_000
    """Replicas that it is willing to hold."""
    address: str = ""
    started_at: float = 0.0
    """Seconds since 1970, for people."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """Folders that its operator opened to components: `ro` or `rw` by name."""
    seal_key: str = ""
    """Its public key for secrets, in hexadecimal digits; empty if it gets none."""
    provider: str = ""
    """The one that a provider's process runs, also before it offers it."""

    def __post_init__(self) -> None:
        _check_node(self.id, self.boot)
        check_name(self.name, "node name")
        check_range(self.capacity, 0, MAX_NUMBER, "capacity")
        for key, value in self.labels.items():
            check_label(key, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat(Value):
    """Sent by each node every second; under 1 KB encoded."""

    node: str
    boot: int
    beat: int
    """Counts the heartbeats of this boot from 1, so that one that was overtaken is known."""
    server_id: str = ""
    """With `client_id`: the connection over which the node speaks, as the server's advisories name it."""
    client_id: int = 0
    inventory: int = 0
    """Version of the inventory: counts its changes since the boot."""
    fence: int = 0
    """The highest that the node has seen in an order."""
    load: float = 0.0
    """Share of its slots that are taken; above 1 when calls wait."""
    calls_in_flight: int = 0
    replicas: int = 0
    memory_bytes: int = 0
    is_draining: bool = False
    is_leaving: bool = False
    """Set in the last one of a boot: the node ends."""
    copies: int = 0
    """Sums up the applications that the node knows (`Desired.summary`): the leader sees who knows more."""

    def __post_init__(self) -> None:
        _check_node(self.node, self.boot)
        check_range(self.beat, 1, MAX_NUMBER, "beat")
        check_range(self.inventory, 0, MAX_NUMBER, "inventory")
        check_range(self.fence, 0, MAX_NUMBER, "fence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment(Value):
    """How far a node is with its last order for one revision of a component."""

    component: str
    revision: str
    digest: str
    count: int
    """Replicas that the order asks for; they share code and limits."""
    running: int = 0
    state: AssignmentState = AssignmentState.PREPARING
    reason: str = ""
    """Why it failed, or what it waits for."""
    fence: int = 0
    generation: int = 0

    def __post_init__(self) -> None:
        check_name(self.component, "component")
        check_range(self.count, 0, MAX_REPLICAS, "count")
        check_range(self.running, 0, MAX_REPLICAS, "running")

    @property
    def order(self) -> OrderVersion:
        """The version of the order that made it so."""
        return self.fence, self.generation

    @property
    def key(self) -> tuple[str, str]:
        """A node has at most one assignment of each component and revision."""
        return self.component, self.revision

    @property
    def serving(self) -> int:
        """Replicas that take new calls."""
        return 0 if self.state in _NOT_SERVING else self.running


_NOT_SERVING = (AssignmentState.DRAINING, AssignmentState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer(Value):
    """A provider that a node offers: it is called under this name as a component is."""

    name: str
    kind: str
    interfaces: tuple[str, ...] = ()
    is_healthy: bool = True
    """Calls go to others that offer it, while it is not."""
    reason: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "provider name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta(Value):
    """One change of a node's inventory, sent at once."""

    node: str
    boot: int
    inventory: int
    """The version that this change leads to."""
    changed: tuple[Assignment, ...] = ()
    removed: tuple[tuple[str, str], ...] = ()
    """(component, revision) of assignments that are no more."""
    compiled: tuple[str, ...] = ()
    """Digests that the node now can start at once."""
    evicted: tuple[str, ...] = ()
    """Digests that it no longer can."""
    offers: tuple[Offer, ...] | None = None
    """All providers that it offers now; None if nothing changed there."""
    job_links: tuple[Link, ...] = ()
    """All links of each job that began, if it has any; their source is the job's id."""
    ended_jobs: tuple[str, ...] = ()
    """Jobs whose links are no more."""

    def __post_init__(self) -> None:
        _check_node(self.node, self.boot)
        check_range(self.inventory, 1, MAX_NUMBER, "inventory")


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryPage(Value):
    """A part of all that a node holds; all pages of one inventory have the same version."""

    info: NodeInfo
    inventory: int
    page: int = 0
    pages: int = 1
    assignments: tuple[Assignment, ...] = ()
    compiled: tuple[str, ...] = ()
    offers: tuple[Offer, ...] = ()
    """On the first page."""
    job_links: tuple[Link, ...] = ()
    """Of the jobs that it runs, which are no desired state: providers elsewhere learn of them here."""

    def __post_init__(self) -> None:
        check_range(self.pages, 1, 100_000, "pages")
        check_range(self.page, 0, self.pages - 1, "page")


def _check_node(node: str, boot: int) -> None:
    if not 0 < len(node) <= 64 or not node.isalnum():
        raise Invalid(
            f"node id {node[:80]!r} is not valid: it is the public key of the node, in letters and digits"
        )
    check_range(boot, 1, MAX_NUMBER, "boot")
