"""What one node was told to run and how far it is: orders in, steps and reports out. Pure.

Theory of operation. Each order for a component replaces the one before. A revision that the node does not run
gets a *life*: a number that names one set of its replicas from preparing to drained. The node's runtime
carries out the steps and reports back with the life's number, so that a late answer about an earlier life
changes nothing.

    order --> PREPARING --prepared--> STARTING --running--> RUNNING --drain--> DRAINING --drained--> (gone)
                  +------- failed -------+--> FAILED

When a life runs, those of other revisions drain: an older revision serves until then, and goes on serving if
the new one fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from lattice.inventory import MAX_REASON, Assignment, AssignmentState, Delta, InventoryPage, NodeInfo, Offer
from lattice.lease import Fencing
from lattice.model import ComponentSpec as Spec
from lattice.model import Link, OrderVersion
from lattice.orders import Order, OrderReply

PAGE_ITEMS, PAGE_LINKS = 200, 32
"""Entries of one inventory page, so that it stays far below a message's limit; a link may have some KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Fetch, verify and compile; then call `prepared` or `failed`."""

    life: int
    spec: Spec
    links: tuple[Link, ...]
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Have so many replicas of the prepared life; then call `running`."""

    life: int
    component: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Take no new calls, finish those in flight, release everything; then call `drained`."""

    life: int
    component: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Stop preparing or starting and release everything; no answer is needed."""

    life: int
    component: str


Step: TypeAlias = Prepare | Run | Drain | Cancel

Item = TypeVar("Item")


@dataclass(slots=True, eq=False)
class _Life:
    number: int
    component: str
    revision: str
    digest: str
    count: int
    order: OrderVersion
    state: AssignmentState = AssignmentState.PREPARING
    running: int = 0
    reason: str = ""
    asked: int = 0
    """Replicas that the last `Run` asked for, which may still be under way."""

    def run(self) -> list[Step]:
        self.asked = self.count
        return [Run(life=self.number, component=self.component, count=self.count)]

    def report(self) -> Assignment:
        return Assignment(
            component=self.component,
            revision=self.revision,
            digest=self.digest,
            count=self.count,
            running=self.running,
            state=self.state,
            reason=self.reason,
            fence=self.order[0],
            generation=self.order[1],
        )


_BEGINNING = (AssignmentState.PREPARING, AssignmentState.STARTING)


class Assignments:
    """The assignments of one boot of a node.

    The mutable state is the lives, the digests compiled, the offers, the links of jobs, and what the last
    delta said of them.
    """

    def __init__(self, node: str, boot: int) -> None:
        self._node, self._boot = node, boot
        self._lives: dict[int, _Life] = {}
        self._next_life = 1
        self._compiled: set[str] = set()
        self._reported: dict[tuple[str, str], Assignment] = {}
        self._reported_compiled: set[str] = set()
        self._offers: tuple[Offer, ...] = ()
        self._reported_offers: tuple[Offer, ...] = ()
        self._job_links: dict[str, tuple[Link, ...]] = {}
        self._reported_job_links: dict[str, tuple[Link, ...]] = {}
        self.fencing = Fencing(node, boot)
        self.inventory = 0
        """The version of what the last delta reported."""
        self.is_draining = False
        """Set when the node begins to leave: nothing new is begun."""

    def __repr__(self) -> str:
        return f"<Assignments {len(self._lives)} lives, inventory {self.inventory}>"

    def __len__(self) -> int:
        return len(self._lives)

    @property
    def replicas(self) -> int:
        """Replicas that run, of all components."""
        return sum(life.running for life in self._lives.values())

    def order(self, order: Order) -> tuple[OrderReply, list[Step]]:
        """Take an order if it counts; returns the answer to the leader and what the runtime must do."""
        is_repeated = self.fencing.is_repeated(order)
        reply = self.fencing.check(order)
        if is_repeated or not reply.is_accepted:
            return reply, []
        if order.count == 0:
            return reply, self._stop(order)
        if self.is_draining and self._current(order.component, order.revision) is None:
            return replace(reply, is_accepted=False, reason="the node is draining"), []
        return reply, self._assign(order)

    def prepared(self, life: int) -> list[Step]:
        """The life's code is ready to start."""
        found = self._lives.get(life)
        if found is None or found.state is not AssignmentState.PREPARING:
            return []
        found.state = AssignmentState.STARTING
        return found.run()

    def running(self, life: int, replicas: int) -> list[Step]:
        """So many replicas of the life take calls now: those of other revisions drain."""
        found = self._lives.get(life)
        if found is None or found.state in (AssignmentState.DRAINING, AssignmentState.FAILED):
            return []
        found.running, found.state = replicas, AssignmentState.RUNNING
        if replicas < found.count:
            return []
        return [step for other in self._others(found) for step in self._end(other)]

    def failed(self, life: int, reason: str) -> None:
        """The life could not be prepared or started, or all its replicas ended."""
        found = self._lives.get(life)
        if found is not None and found.state is not AssignmentState.DRAINING:
            found.state, found.running, found.reason = AssignmentState.FAILED, 0, reason[:MAX_REASON]

    def drained(self, life: int) -> None:
        """The life's last call has ended."""
        found = self._lives.get(life)
        if found is not None and found.state is AssignmentState.DRAINING:
            del self._lives[life]

    def compiled(self, digest: str) -> None:
        """The node can start this at once."""
        self._compiled.add(digest)

    def is_compiled(self, digest: str) -> bool:
        """Whether the node can start this at once."""
        return digest in self._compiled

    def evicted(self, digest: str) -> None:
        """It no longer can."""
        self._compiled.discard(digest)

    def offer(self, offers: Iterable[Offer]) -> None:
        """Take these as all providers that the node offers now."""
        self._offers = tuple(sorted(offers, key=lambda offer: offer.name))

    def link_job(self, job: str, links: Iterable[Link]) -> None:
        """Take these as the links of a job that runs here; none when it has ended."""
        if found := tuple(links):
            self._job_links[job] = found
        else:
            self._job_links.pop(job, None)

    def reports(self) -> dict[tuple[str, str], Assignment]:
        """One report per component and revision; a life that drains yields to a newer one of its revision."""
        lives = sorted(
            self._lives.values(),
            key=lambda life: (life.state is not AssignmentState.DRAINING, life.number),
        )
        return {(life.component, life.revision): life.report() for life in lives}

    def take_delta(self) -> Delta | None:
        """What has changed since the last delta, as the next version, to be sent at once; None if nothing."""
        reports = self.reports()
        changed = [item for key, item in sorted(reports.items()) if self._reported.get(key) != item]
        removed = sorted(self._reported.keys() - reports.keys())
        added, gone = self._compiled - self._reported_compiled, self._reported_compiled - self._compiled
        offers = self._offers if self._offers != self._reported_offers else None
        begun = [links for job, links in self._job_links.items() if job not in self._reported_job_links]
        ended = self._reported_job_links.keys() - self._job_links.keys()
        if not (changed or removed or added or gone or begun or ended) and offers is None:
            return None
        self._reported, self._reported_compiled = reports, set(self._compiled)
        self._reported_offers, self._reported_job_links = self._offers, dict(self._job_links)
        self.inventory += 1
        return Delta(
            node=self._node,
            boot=self._boot,
            inventory=self.inventory,
            changed=tuple(changed),
            removed=tuple(removed),
            compiled=tuple(sorted(added)),
            evicted=tuple(sorted(gone)),
            offers=offers,
            job_links=tuple(link for links in begun for link in links),
            ended_jobs=tuple(sorted(ended)),
        )

    def pages(self, info: NodeInfo) -> list[InventoryPage]:
        """The whole inventory, as of the last delta."""
        assignments = [item for _, item in sorted(self._reported.items())]
        compiled = sorted(self._reported_compiled)
        links = [link for links in self._reported_job_links.values() for link in links]
        sizes = ((assignments, PAGE_ITEMS), (compiled, PAGE_ITEMS), (links, PAGE_LINKS))
        pages = max(1, *(-(-len(items) // size) for items, size in sizes))
        return [
            InventoryPage(
                info=info,
                inventory=self.inventory,
                page=page,
                pages=pages,
                assignments=_part(assignments, page, PAGE_ITEMS),
                compiled=_part(compiled, page, PAGE_ITEMS),
                offers=() if page else self._reported_offers,
                job_links=_part(links, page, PAGE_LINKS),
            )
            for page in range(pages)
        ]

    def _assign(self, order: Order) -> list[Step]:
        current = self._current(order.component, order.revision)
        if current is None or current.state is AssignmentState.FAILED:
            steps = self._begin(order)
        else:
            steps = self._resize(current, order)
        newest = self._current(order.component, order.revision)
        assert newest is not None
        for other in self._others(newest):
            if other.state in (*_BEGINNING, AssignmentState.FAILED) or newest.running >= newest.count:
                steps += self._end(other)
        return steps

    def _begin(self, order: Order) -> list[Step]:
        assert order.spec is not None
        for life in self._of(order.component):
            if life.revision == order.revision and life.state is AssignmentState.FAILED:
                del self._lives[life.number]
        number = self._next_life
        self._next_life += 1
        self._lives[number] = _Life(
            number, order.component, order.revision, order.spec.digest, order.count, order.version
        )
        return [Prepare(life=number, spec=order.spec, links=order.links, revision=order.revision)]

    def _resize(self, life: _Life, order: Order) -> list[Step]:
        life.count, life.order = order.count, order.version
        if life.state is AssignmentState.PREPARING or life.asked == life.running == life.count:
            return []
        return life.run()

    def _stop(self, order: Order) -> list[Step]:
        return [step for life in self._of(order.component) for step in self._end(life, order.version)]

    def _end(self, life: _Life, stop: OrderVersion | None = None) -> list[Step]:
        """Drain or cancel a life: because of an order to stop, or since another revision serves instead."""
        if life.state in (*_BEGINNING, AssignmentState.FAILED):
            del self._lives[life.number]
            return [Cancel(life=life.number, component=life.component)]
        life.count, life.order = 0, stop or life.order
        if life.state is AssignmentState.DRAINING:
            return []
        life.state = AssignmentState.DRAINING
        return [Drain(life=life.number, component=life.component)]

    def _of(self, component: str) -> list[_Life]:
        return [life for life in self._lives.values() if life.component == component]

    def _current(self, component: str, revision: str) -> _Life | None:
        """The life of the revision that does not drain."""
        for life in self._of(component):
            if life.revision == revision and life.state is not AssignmentState.DRAINING:
                return life
        return None

    def _others(self, life: _Life) -> Iterable[_Life]:
        return [other for other in self._of(life.component) if other.revision != life.revision]


def _part(items: Sequence[Item], page: int, size: int) -> tuple[Item, ...]:
    return tuple(items[page * size : (page + 1) * size])
