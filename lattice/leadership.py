"""What a node does to lead the lattice, or to be ready to: lease, recovery, plan behind one `handle`. Pure.

Every node has one. `handle(event, now)` takes what happened and returns what must be done; the caller does
it and comes back with the answers. Reports of nodes do not pass through here: they are applied to the
`LatticeState` that is shared with this object, by whoever hears them, and `Turn` (every 100 ms, and at once
after a change that matters) looks at the result.

    follower --lease--> elected: ask all nodes, recover desired state --> commanding: plan on every change

A leader whose last renewal is too old commands nothing until the next one succeeds; one that sees another
holder is a follower again at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from lattice.imports import Catalog
from lattice.lease import Lease, ReadLease, WriteLease
from lattice.model import Application, LeaseValue, Marker
from lattice.orders import Command, Order, OrderReply
from lattice.plan import MAX_COMMANDS, InFlight, plan
from lattice.recovery import FetchCopies, Phase, ReadStore, Recovery, Stored, WriteApplication, WriteMarker
from lattice.state import Effect, LatticeState

REPLAN_SECONDS = 5.0
"""The plan is made on every change, and this often without one."""
INFORM_SECONDS = 1.0
"""How long a new leader waits for nodes that do not answer; it plans without them then."""
REFRESH_SECONDS = 3.0
"""How often the leader looks which nodes know something else than it does, by their heartbeats."""
FORGET_SECONDS = 60.0
"""How often each node looks for tombstones that are old enough."""
STORE_REFRESHES = 10
"""Every so many of these it reads the store, too."""


# Events


@dataclass(frozen=True, slots=True)
class Turn:
    """Time has passed. `now_ms` is milliseconds since 1970: it only decides when tombstones are forgotten."""

    now_ms: int


@dataclass(frozen=True, slots=True)
class LeaseSeen:
    """The watch of the store told of the lease; `value` is None when there is none."""

    value: LeaseValue | None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class LeaseRead:
    """The answer to `ReadLease`. If the store did not answer, say nothing: it is asked again."""

    value: LeaseValue | None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class LeaseWritten:
    """The store took the write."""

    write: WriteLease
    revision: int


@dataclass(frozen=True, slots=True)
class LeaseRefused:
    """Another write came first."""

    write: WriteLease


@dataclass(frozen=True, slots=True)
class LeaseUnknown:
    """The store did not answer: the write may have happened."""

    write: WriteLease


@dataclass(frozen=True, slots=True)
class StoreLost:
    """A watch was made anew and found no marker."""


@dataclass(frozen=True, slots=True)
class StoreRead:
    """The answer to `ReadStore`."""

    applications: Mapping[str, Stored]
    marker: Marker | None


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The store could not be read."""


@dataclass(frozen=True, slots=True)
class CopiesReceived:
    """The answer to `FetchCopies`."""

    node: str
    applications: tuple[Application, ...]


@dataclass(frozen=True, slots=True)
class ApplicationWritten:
    """The answer to `WriteApplication`; False on a conflict or when the store could not be reached."""

    name: str
    is_written: bool


@dataclass(frozen=True, slots=True)
class MarkerWritten:
    """The answer to `WriteMarker`; a marker that exists already counts as written."""

    is_written: bool


@dataclass(frozen=True, slots=True)
class OrderAnswered:
    """A node's answer to an order."""

    reply: OrderReply


LeaseEvent: TypeAlias = LeaseSeen | LeaseRead | LeaseWritten | LeaseRefused | LeaseUnknown
Event: TypeAlias = (
    Turn
    | LeaseEvent
    | StoreLost
    | StoreRead
    | StoreFailed
    | CopiesReceived
    | ApplicationWritten
    | MarkerWritten
    | OrderAnswered
)


# Actions, beside those of `lattice.lease`, `lattice.recovery` and the effects of `lattice.state`


@dataclass(frozen=True, slots=True)
class SendCommands:
    """Send each to its node: what is lost is sent again by a later plan."""

    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class RemoveTombstone:
    """Delete the own copy and, `in_store`, the key if it still holds this tombstone; needs no answer."""

    application: Application
    in_store: bool


@dataclass(frozen=True, slots=True)
class LeadershipChanged:
    """This node leads now, or no longer does."""

    is_leading: bool
    fence: int


Action: TypeAlias = (
    ReadLease
    | WriteLease
    | ReadStore
    | FetchCopies
    | WriteApplication
    | WriteMarker
    | SendCommands
    | RemoveTombstone
    | LeadershipChanged
    | Effect
)


class Leadership:
    """One node's part in leading the lattice.

    The mutable state is the lease, the recovery, the commands in flight, and when and for what was planned
    last.
    """

    def __init__(self, node: str, state: LatticeState, *, catalog: Callable[[], Catalog] = Catalog) -> None:
        self._node = node
        self._state = state
        self._catalog = catalog
        self._lease = Lease(node)
        self._recovery = Recovery(state)
        self._in_flight = InFlight()
        self._led_fence = 0  # under which this node was elected; 0 when it was not
        self._elected_at = 0.0
        self._is_informed = False
        self._generation = 0
        self._planned_changes = -1
        self._plan_at = 0.0
        self._refresh_at = 0.0
        self._forget_at = 0.0
        self._turns_to_store = STORE_REFRESHES
        self._differing: dict[str, int] = {}  # node -> summary, at the last look
        self._now_ms = 0
        self.is_candidate = True
        """Cleared when the node drains: it neither takes the lease nor keeps it."""
        self._handlers: Mapping[type, Callable[[Any, float], Iterable[Action]]] = {
            Turn: self._turn,
            LeaseSeen: self._lease_event,
            LeaseRead: self._lease_event,
            LeaseWritten: self._lease_event,
            LeaseRefused: self._lease_event,
            LeaseUnknown: self._lease_event,
            StoreLost: lambda event, now: self._recovery.begin(now) if self._led_fence else (),
            StoreRead: self._store_read,
            StoreFailed: lambda event, now: self._recovery.store_failed(now),
            CopiesReceived: self._copies,
            ApplicationWritten: lambda event, now: self._recovery.written(
                event.name, is_written=event.is_written, now=now
            ),
            MarkerWritten: lambda event, now: self._recovery.marked(is_written=event.is_written, now=now),
            OrderAnswered: self._answered,
        }

    def __repr__(self) -> str:
        return f"<Leadership of {self._node[:8]} {self._lease!r} {self._recovery!r} {self._in_flight!r}>"

    @property
    def controller(self) -> str | None:
        """The node that leads, as far as is known."""
        return self._lease.holder

    @property
    def phase(self) -> Phase:
        """How far this leader is with desired state; `idle` for a follower."""
        return self._recovery.phase

    def is_leading(self, now: float) -> bool:
        """Whether this node may command."""
        return bool(self._led_fence) and self._lease.is_leading(now)

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take what happened at `now`; returns what must be done."""
        actions = list(self._handlers[type(event)](event, now))
        return [*actions, *self._follow_lease(now)]

    def resign(self, now: float) -> list[Action]:
        """Give up the lease because this node leaves, so that another takes it at once."""
        self.is_candidate = False
        write = self._lease.release(now)
        return [*([write] if write else []), *self._follow_lease(now)]

    # Leading and following

    def _follow_lease(self, now: float) -> list[Action]:
        """Become leader or follower as the lease says."""
        fence = self._lease.fence if self._lease.is_leading(now) else 0
        holds = self._lease.holder == self._node and self._lease.fence == self._led_fence
        if fence == self._led_fence or (not fence and holds):
            return []  # unchanged, or only too old to command
        self._in_flight.clear()
        self._recovery.stop()
        self._led_fence = fence
        if not fence:
            return [LeadershipChanged(False, self._lease.fence)]
        self._elected_at, self._is_informed = now, False
        self._generation, self._planned_changes, self._refresh_at = 0, -1, now + REFRESH_SECONDS
        return [LeadershipChanged(True, fence), *self._state.ask_all(now), *self._recovery.begin(now)]

    def _turn(self, event: Turn, now: float) -> list[Action]:
        self._now_ms = event.now_ms
        self._lease.heard_fence(self._state.observed.fence)
        actions = self._remove_tombstones(now)
        if self.is_candidate:
            step = self._lease.decide(now, is_gone=self._is_gone, rank=self._rank())
            actions += [step] if step else []
        if self._led_fence:
            actions += self._recovery.tick(now)
        if self.is_leading(now) and self._state.desired.is_complete:
            actions += self._housekeeping(now)
            actions += self._plan(now)
        return actions

    def _lease_event(self, event: LeaseEvent, now: float) -> Iterable[Action]:
        match event:
            case LeaseSeen(value, revision):
                self._lease.seen(value, revision, now)
            case LeaseRead(value, revision):
                self._lease.read(value, revision, now)
            case LeaseWritten(write, revision):
                self._lease.written(write, revision, now)
            case LeaseRefused(write):
                self._lease.refused(write)
            case LeaseUnknown(write):
                self._lease.unknown(write, now)
        return ()

    def _is_gone(self, node: str) -> bool:
        view = self._state.observed.nodes.get(node)
        return view is not None and not view.is_live

    def _rank(self) -> int:
        return sum(view.id < self._node and not view.is_draining for view in self._state.observed.live())

    # Desired state

    def _store_read(self, event: StoreRead, now: float) -> Iterable[Action]:
        fence = self._led_fence
        return self._recovery.store_read(event.applications, event.marker, fence, now, self._now_ms)

    def _copies(self, event: CopiesReceived, now: float) -> Iterable[Action]:
        if not self._led_fence:
            return ()
        present = [item for item in event.applications if not item.is_forgettable(self._now_ms)]
        return self._recovery.copies(event.node, present, now)

    def _housekeeping(self, now: float) -> list[Action]:
        """Compare with the store and with what nodes know, now and then."""
        if now < self._refresh_at:
            return []
        self._refresh_at = now + REFRESH_SECONDS
        actions = self._ask_who_differs()
        self._turns_to_store -= 1
        if self._turns_to_store <= 0:
            self._turns_to_store = STORE_REFRESHES
            actions += self._recovery.refresh(now)
        return actions

    def _remove_tombstones(self, now: float) -> list[Action]:
        if now < self._forget_at:
            return []
        self._forget_at = now + FORGET_SECONDS
        desired = self._state.desired
        old = [item for _, item in sorted(desired.applications.items()) if item.is_forgettable(self._now_ms)]
        for application in old:
            desired.forget(application.name, self._now_ms)
        return [RemoveTombstone(application, self.is_leading(now)) for application in old]

    def _ask_who_differs(self) -> list[Action]:
        """Fetch the copies of nodes that have known something else for a whole turn."""
        own = self._state.desired.summary
        views = self._state.observed.live()
        differing = {view.id: view.heartbeat.copies for view in views if view.heartbeat.copies != own}
        lasting = [node for node, summary in differing.items() if self._differing.get(node) == summary]
        self._differing = differing
        return [FetchCopies(node) for node in sorted(lasting)]

    # Commands

    def _plan(self, now: float) -> list[Action]:
        state = self._state
        if not self._is_informed:
            if not state.is_informed and now - self._elected_at < INFORM_SECONDS:
                return []
            self._is_informed = True
        was_settled = self._in_flight.settle(state.observed, now)
        if state.changes == self._planned_changes and not was_settled and now < self._plan_at:
            return []
        self._planned_changes = state.changes
        retries = (failure.retry_at for failure in state.observed.failures.values() if failure.retry_at > now)
        self._plan_at = min([now + REPLAN_SECONDS, *retries])
        commands = plan(state.desired, state.observed, self._in_flight, now, self._catalog())
        if len(commands) >= MAX_COMMANDS:
            self._plan_at = now
        return self._send(commands, now) if commands else []

    def _send(self, commands: Iterable[Command], now: float) -> list[Action]:
        stamped = tuple(self._stamp(command) for command in commands)
        self._in_flight.sent(stamped, now)
        return [SendCommands(stamped)]

    def _stamp(self, command: Command) -> Command:
        if not isinstance(command, Order):
            return command
        self._generation += 1
        return command.stamped(self._led_fence, self._generation)

    def _answered(self, event: OrderAnswered, now: float) -> list[Action]:
        self._lease.heard_fence(event.reply.fence)
        return []
