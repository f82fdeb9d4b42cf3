"""The plan: which commands bring what runs to what is asked for. Pure: no clock, no randomness, no I/O.

`plan` looks at everything each time and forgets everything after: a lost, late or repeated command, a node
that comes back and a leader that dies need no special case. Its rules, per component:

- Nodes keep what they hold. Only what is missing is placed, only what is surplus is given up.
- Only *usable* nodes count towards the replicas asked for: live, known, not draining, with the labels asked
  for, and not in backoff after they failed to prepare this revision. What others still serve is given up
  when enough is served without it.
- A node that serves an older revision is *rolled*: it prepares the new one and then swaps. A quarter of the
  nodes, at least one, roll at a time, so that a bad revision stops early and the old one goes on serving.
- What is not asked for is stopped only if desired state is complete.

A command in flight counts as done until a report confirms it or it expires: so nothing is sent twice, and
nothing is placed twice.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass

from lattice import placing
from lattice.desired import Desired, DesiredComponent
from lattice.imports import Catalog, missing_imports
from lattice.inventory import AssignmentState
from lattice.observed import Holding, NodeView, Observed
from lattice.orders import Command, CompileAhead, Order

ORDER_SECONDS = 2.0
"""After which an order that no report confirmed is sent again."""
COMPILE_SECONDS = 30.0
"""The same for a request to compile ahead; a node that is at it already ignores it."""
ROLL_DIVISOR = 4
"""Of the nodes that serve an older revision, one in so many rolls at a time."""
MAX_FAILING_NODES = 5
"""So many nodes in backoff for one revision: trying more of them would not help."""


MAX_COMMANDS = 500
"""After so many a plan looks at no further component: the rest waits for the next, which keeps each short."""


@dataclass(frozen=True, slots=True)
class SentOrder:
    """An order that no report has confirmed yet."""

    order: Order
    sent_at: float


class InFlight:
    """Commands that were sent and neither confirmed nor given up.

    The mutable state is the commands; the leader's controller owns it.
    """

    def __init__(self) -> None:
        self._orders: dict[str, dict[str, SentOrder]] = {}
        self._compiles: dict[str, dict[str, float]] = {}

    def __repr__(self) -> str:
        orders = sum(len(nodes) for nodes in self._orders.values())
        return f"<InFlight {orders} orders, {len(self) - orders} compiles>"

    def __len__(self) -> int:
        return sum(len(nodes) for kind in (self._orders, self._compiles) for nodes in kind.values())

    @property
    def orders(self) -> Mapping[str, Mapping[str, SentOrder]]:
        """By component and node."""
        return self._orders

    def compiling(self, digest: str) -> Collection[str]:
        """Nodes that were asked to compile it ahead."""
        return self._compiles.get(digest, {})

    def sent(self, commands: Iterable[Command], now: float) -> None:
        """These are on their way."""
        for command in commands:
            if isinstance(command, Order):
                self._orders.setdefault(command.component, {})[command.node] = SentOrder(command, now)
            else:
                self._compiles.setdefault(command.digest, {})[command.node] = now

    def refused(self, node: str) -> None:
        """The node refused an order: plan anew what it shall do."""
        for component in list(self._orders):
            self._drop(component, node)

    def settle(self, observed: Observed, now: float) -> bool:
        """Drop what reports confirm and what expired; returns whether anything was dropped."""
        before = len(self)
        for component, nodes in list(self._orders.items()):
            for node, sent in list(nodes.items()):
                if now - sent.sent_at > ORDER_SECONDS or _is_answered(sent.order, observed):
                    self._drop(component, node)
        for digest, asked in list(self._compiles.items()):
            self._compiles[digest] = {
                node: sent_at
                for node, sent_at in asked.items()
                if now - sent_at <= COMPILE_SECONDS and _may_compile(node, digest, observed)
            }
            if not self._compiles[digest]:
                del self._compiles[digest]
        return len(self) < before

    def clear(self) -> None:
        """Forget everything: another leads."""
        self._orders.clear()
        self._compiles.clear()

    def _drop(self, component: str, node: str) -> None:
        nodes = self._orders.get(component, {})
        nodes.pop(node, None)
        if not nodes:
            self._orders.pop(component, None)


def _may_compile(node: str, digest: str, observed: Observed) -> bool:
    view = observed.nodes.get(node)
    return view is not None and view.is_live and digest not in view.compiled


def _is_answered(order: Order, observed: Observed) -> bool:
    """Whether the node reports this order or a later one, or is no longer the one that was asked."""
    view = observed.nodes.get(order.node)
    if view is None or not view.is_live or view.boot != order.boot:
        return True
    holding = observed.holdings.get(order.component, {}).get(order.node)
    if holding is None:
        return order.count == 0
    return holding.ordered.order >= order.version


def plan(
    desired: Desired, observed: Observed, in_flight: InFlight, now: float, catalog: Catalog | None = None
) -> list[Command]:
    """The commands that are due now, in a fixed order; orders have no version yet (see `Order.stamped`).

    With MAX_COMMANDS or more there may be others: plan again when these are in flight.
    """
    planner = _Planner(desired, observed, in_flight, now, catalog or Catalog())
    commands: list[Command] = []
    for name in sorted(desired.components):
        commands += planner.commands(desired.components[name])
        if len(commands) >= MAX_COMMANDS:
            return commands
    if desired.is_complete:
        commands += planner.stop_unknown()
    return commands


@dataclass(slots=True)
class Held:
    """What a node holds of the component at hand, or will when it has done what it was told."""

    node: NodeView
    revision: str
    count: int
    serving: int
    serving_new: int
    """Of the revision asked for."""
    is_failed: bool


class _Planner:
    """One run of `plan`. The mutable state is the room taken so far and caches of what is read often."""

    def __init__(
        self, desired: Desired, observed: Observed, in_flight: InFlight, now: float, catalog: Catalog
    ) -> None:
        self.desired, self.observed, self.in_flight, self.catalog = desired, observed, in_flight, catalog
        self.room = placing.Room(observed.nodes)
        self._eligible: dict[Hashable, dict[str, NodeView]] = {}
        self._backoff: dict[tuple[str, str], set[str]] = {}
        for (node, component, revision), failure in observed.failures.items():
            if now < failure.retry_at:
                self._backoff.setdefault((component, revision), set()).add(node)
        self._take_in_flight()

    def commands(self, wanted: DesiredComponent) -> list[Command]:
        """Everything that is due for one component."""
        if self._is_settled(wanted):
            return []
        orders = self.orders(wanted)
        return [*orders, *self._compile_ahead(wanted, {order.node for order in orders if order.count})]

    def eligible(self, wanted: DesiredComponent) -> dict[str, NodeView]:
        """Nodes that may hold the component as far as their state, labels and folders go."""
        needs = tuple(sorted(wanted.spec.labels.items())), wanted.spec.folders
        found = self._eligible.get(needs)
        if found is None:
            found = self._eligible[needs] = {
                view.id: view
                for view in sorted(self.observed.live(), key=lambda view: view.id)
                if view.is_known and not view.is_draining and placing.fits(view, wanted.spec)
            }
        return found

    def backoff(self, wanted: DesiredComponent) -> set[str]:
        """Nodes that failed to prepare the revision and are not to be asked yet."""
        return self._backoff.get((wanted.spec.name, wanted.revision), set())

    def missing(self, wanted: DesiredComponent) -> list[str]:
        """Imports that nothing satisfies."""
        imports = self.catalog.imports.get(wanted.spec.digest, ())
        return missing_imports(imports, wanted.links, self.catalog.is_builtin)

    def orders(self, wanted: DesiredComponent) -> list[Order]:
        """The orders that are due for one component."""
        held = self.held(wanted)
        usable = self.eligible(wanted)
        failing = self.backoff(wanted)
        ours = {node: item for node, item in held.items() if node in usable and node not in failing}
        others = [item for node, item in sorted(held.items()) if node not in ours]
        counts = {node: item.count for node, item in ours.items() if item.serving or not item.is_failed}
        self._balance(wanted, counts, ours)
        return [*self._turn(wanted, counts, ours), *self._give_up(wanted, counts, ours, others)]

    def held(self, wanted: DesiredComponent) -> dict[str, Held]:
        """What each live node holds of the component, orders in flight counted as done."""
        name, revision = wanted.spec.name, wanted.revision
        found = {
            node: _held(holding, revision) for node, holding in self.observed.holdings.get(name, {}).items()
        }
        for node, sent in self.in_flight.orders.get(name, {}).items():
            if _is_answered(sent.order, self.observed):
                continue
            item = found.get(node) or Held(self.observed.nodes[node], "", 0, 0, 0, False)
            item.revision, item.count, item.is_failed = sent.order.revision, sent.order.count, False
            found[node] = item
        return found

    def stop_unknown(self) -> list[Order]:
        """Orders that stop components that no application has."""
        orders = []
        for name in sorted(self.observed.holdings.keys() - self.desired.components.keys()):
            sent = self.in_flight.orders.get(name, {})
            for node, holding in sorted(self.observed.holdings[name].items()):
                is_stopping = node in sent and sent[node].order.count == 0
                if not is_stopping and holding.ordered.count:
                    orders.append(_stop(holding.node, name))
        return orders

    # What is due

    def _is_settled(self, wanted: DesiredComponent) -> bool:
        """Whether a look at the nodes that hold the component shows that nothing is due: the usual case."""
        name = wanted.spec.name
        usable = self.eligible(wanted)
        holdings = self.observed.holdings.get(name, {})
        total = 0
        for node, holding in holdings.items():
            ordered = holding.ordered
            if ordered.revision != wanted.revision or not holding.is_settled or node not in usable:
                return False
            total += ordered.count
        if total != wanted.spec.replicas or name in self.in_flight.orders:
            return False
        return self._lacking_spares(wanted, holdings) <= 0

    def _balance(self, wanted: DesiredComponent, counts: dict[str, int], ours: Mapping[str, Held]) -> None:
        """Bring the sum of `counts` to the replicas asked for, as far as there is room."""
        spec = wanted.spec
        difference = spec.replicas - sum(counts.values())
        if difference < 0:
            idle = {node: max(item.count - item.serving, 0) for node, item in ours.items()}
            left = placing.shed(counts, -difference, idle, room=self.room, spread=spec.spread)
            placing.shed(counts, left, dict(counts), room=self.room, spread=spec.spread)
        elif difference > 0 and not self._is_blocked(wanted):
            failing, ready = self.backoff(wanted), self.observed.compiled.get(spec.digest, set())
            candidates = (view for node, view in self.eligible(wanted).items() if node not in failing)
            placing.add(
                counts,
                difference,
                candidates,
                room=self.room,
                spread=spec.spread,
                is_ready=ready.__contains__,
            )

    def _is_blocked(self, wanted: DesiredComponent) -> bool:
        return len(self.backoff(wanted)) >= MAX_FAILING_NODES or bool(self.missing(wanted))

    def _turn(
        self, wanted: DesiredComponent, counts: Mapping[str, int], ours: Mapping[str, Held]
    ) -> list[Order]:
        """Orders for usable nodes whose revision or count is not as it should be."""
        name = wanted.spec.name
        may_roll = self._may_roll(wanted, counts, ours)
        orders = []
        for node in sorted(counts.keys() | ours.keys()):
            item, count = ours.get(node), counts.get(node, 0)
            if count == 0:
                if item and item.count:
                    orders.append(_stop(item.node, name))
            elif item and (item.revision, item.count, item.is_failed) == (wanted.revision, count, False):
                continue
            elif item is None or item.revision == wanted.revision or node in may_roll:
                orders.append(self._order(wanted, node, count))
        return orders

    def _may_roll(
        self, wanted: DesiredComponent, counts: Mapping[str, int], ours: Mapping[str, Held]
    ) -> set[str]:
        """Nodes with an older revision that may begin to prepare the new one."""
        if self._is_blocked(wanted):
            return set()
        others = [node for node, item in sorted(ours.items()) if item.revision != wanted.revision]
        waiting = [node for node in others if _is_old(ours[node]) and counts.get(node)]
        rolling = sum(_is_old(item) and item.revision == wanted.revision for item in ours.values())
        allowed = max(1, len(ours) // ROLL_DIVISOR) - rolling
        return {*waiting[: max(allowed, 0)], *(node for node in others if not _is_old(ours[node]))}

    def _give_up(
        self,
        wanted: DesiredComponent,
        counts: Mapping[str, int],
        ours: Mapping[str, Held],
        others: list[Held],
    ) -> list[Order]:
        """Orders that empty nodes that are not usable, as far as enough is served without them."""
        serving = sum(min(item.serving, counts.get(node, 0)) for node, item in ours.items())
        excess = serving + sum(item.serving for item in others if item.count) - wanted.spec.replicas
        orders = []
        for item in sorted(others, key=lambda item: (item.serving, item.node.id)):
            is_idle = item.serving == 0 and not item.is_failed
            if item.count and (is_idle or 0 <= excess >= item.serving):
                excess -= item.serving
                orders.append(_stop(item.node, wanted.spec.name))
        return orders

    def _order(self, wanted: DesiredComponent, node: str, count: int) -> Order:
        return Order(
            node=node,
            boot=self.observed.nodes[node].boot,
            component=wanted.spec.name,
            revision=wanted.revision,
            count=count,
            spec=wanted.spec,
            links=wanted.links,
        )

    # Spares

    def _lacking_spares(self, wanted: DesiredComponent, holders: Iterable[str]) -> int:
        """How many more nodes should be ready to take over."""
        usable, digest = self.eligible(wanted), wanted.spec.digest
        holding = set(holders)
        lacking = min(wanted.spec.spares, len(usable) - len(holding & usable.keys()))
        for node in self.observed.compiled.get(digest, ()):
            if lacking <= 0:
                break
            lacking -= node in usable and node not in holding
        if lacking > 0:
            asked = self.in_flight.compiling(digest)
            lacking -= sum(node in usable and node not in holding for node in asked)
        return lacking

    def _compile_ahead(self, wanted: DesiredComponent, ordered: set[str]) -> list[CompileAhead]:
        name, digest = wanted.spec.name, wanted.spec.digest
        holders = ordered | set(self.held(wanted))
        lacking = self._lacking_spares(wanted, holders)
        if lacking <= 0 or self.backoff(wanted) or self._is_blocked(wanted):
            return []
        busy = {*holders, *self.observed.compiled.get(digest, ()), *self.in_flight.compiling(digest)}
        candidates = [view for node, view in self.eligible(wanted).items() if node not in busy]
        chosen = placing.spares(
            candidates, lacking, spread=wanted.spec.spread, start=int(wanted.revision, base=16)
        )
        return [CompileAhead(node=view.id, boot=view.boot, component=name, digest=digest) for view in chosen]

    def _take_in_flight(self) -> None:
        for component, nodes in self.in_flight.orders.items():
            holdings = self.observed.holdings.get(component, {})
            for node, sent in nodes.items():
                if not _is_answered(sent.order, self.observed):
                    before = holdings[node].places if node in holdings else 0
                    self.room.take(node, sent.order.count - before)


def _held(holding: Holding, revision: str) -> Held:
    ordered = holding.ordered
    new = holding.node.assignments[ordered.component].get(revision)
    serving_new = new.serving if new else 0
    is_failed = ordered.state is AssignmentState.FAILED
    return Held(holding.node, ordered.revision, ordered.count, holding.serving, serving_new, is_failed)


def _is_old(item: Held) -> bool:
    """Whether the node serves replicas of another revision."""
    return item.serving > item.serving_new


def _stop(view: NodeView, component: str) -> Order:
    return Order(node=view.id, boot=view.boot, component=component, revision="", count=0)
