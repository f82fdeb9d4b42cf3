"""The world of one seed: nodes, a network that loses and reorders, a store that is lost, people who change
things.

First comes a time of faults and changes, then a time in which all faults have ended and nobody changes
anything: in it the lattice has to converge. What must never happen is checked whenever it could.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from lattice.inventory import AssignmentState, Delta, Heartbeat
from lattice.model import Application, ComponentSpec, new_application
from lattice.orders import CompileAhead, Order
from lattice.state import ConnectionEnded, NodeLeft
from tests.simulation.clockwork import Clock, Store, StoreConflict
from tests.simulation.nodes import APPLICATION_PREFIX, SimulatedNode

FAULT_SECONDS = 15.0
CONVERGE_SECONDS = 60.0
"""Virtual time within which the lattice converges after the last fault: a lease and a recovery take 3 s
each, the
longest backoff of a node that failed to prepare 30 s."""
SETTLED_SECONDS = 2.0
"""For which it has to stay converged."""
NAMES = ("alpha", "beta", "gamma", "delta")


class Violation(AssertionError):
    """Raised when something happened that must not happen in a lattice."""


class World(Clock):
    """Everything of one seed."""

    def __init__(self, seed: int, *, nodes: int | None = None) -> None:
        super().__init__(seed)
        self.seed = seed
        self.store = Store()
        self.connections = 0
        self.is_faulty = True
        self.bad_share = self.random.choice((0.0, 0.0, 0.2))
        self.loss_share = self.random.choice((0.0, 0.05, 0.2))
        self.history: list[str] = []
        self.acknowledged: dict[str, Application] = {}
        self.attempted_deletes: set[str] = set()
        self.orders = 0
        self.baseless: set[tuple[int, int]] = set()
        count = nodes or self.random.randint(2, 6)
        self.nodes = {
            node_id: SimulatedNode(self, node_id, capacity=self.random.randint(4, 12), zone="ab"[index % 2])
            for index, node_id in enumerate(f"N{number}" for number in range(count))
        }

    def log(self, text: str) -> None:
        """Note what happened, for whoever looks at a failing seed."""
        self.history.append(f"{self.now:8.3f} {text}")

    def fail(self, text: str) -> None:
        """Something happened that must not."""
        raise Violation(f"seed {self.seed}: {text}\n" + "\n".join(self.history[-60:]))

    # The network

    def publish(self, sender: SimulatedNode, event: Heartbeat | Delta | NodeLeft) -> None:
        """Send to all nodes; the sender hears itself at once."""
        sender.hear(event)
        for node in self.nodes.values():
            if node is not sender:
                self._deliver(sender, node, functools.partial(node.hear, event))

    def request(
        self,
        sender: SimulatedNode,
        target_id: str,
        serve: Callable[[SimulatedNode], Any],
        answer: Callable[[Any], None],
    ) -> None:
        """Send a request, and the answer back; either may be lost, late or repeated."""
        target = self.nodes[target_id]

        def serve_and_answer() -> None:
            reply = serve(target)
            self._deliver(target, sender, functools.partial(answer, reply))

        self._deliver(sender, target, serve_and_answer)

    def _deliver(self, sender: SimulatedNode, target: SimulatedNode, action: Callable[[], None]) -> None:
        if not (sender.is_connected and target.is_up and target.is_connected):
            return
        copies = 1
        if self.is_faulty and self.random.random() < self.loss_share:
            copies = self.random.choice((0, 0, 2))
        for _ in range(copies):
            arrive = functools.partial(self._arrive, target, target.client_id, action)
            target.later(self._delay(), arrive)

    def _arrive(self, target: SimulatedNode, client_id: int, action: Callable[[], None]) -> None:
        if target.is_connected and target.client_id == client_id:
            action()

    def _delay(self) -> float:
        if self.is_faulty and self.random.random() < self.loss_share / 2:
            return self.random.uniform(0.1, 3.0)
        return self.random.uniform(0.001, 0.01)

    def connected(self, node: SimulatedNode) -> None:
        """Make the node's watches: all present values, then changes."""
        client_id = node.client_id
        line = _Line(self, node, client_id)
        self.store.watchers.append(line.changed)
        for key, (value, revision) in sorted(self.store.entries.items()):
            line.changed(key, value, revision)

    def disconnected(self, node: SimulatedNode, *, is_noticed: bool) -> None:
        """Tell the others, if the server saw the connection end."""
        if is_noticed:
            event = ConnectionEnded("S", node.client_id)
            for other in self.nodes.values():
                if other is not node and other.is_connected:
                    other.later(self.random.uniform(0.002, 0.02), functools.partial(other.hear, event))

    # The store

    def use_store(
        self,
        node: SimulatedNode,
        operation: Callable[[Store], Any],
        answer: Callable[[Any], None],
        *,
        on_conflict: Callable[[], None] = lambda: None,
        on_unknown: Callable[[], None] = lambda: None,
    ) -> None:
        """Ask the store; when no answer comes the operation may have happened or not."""
        client_id = node.client_id

        def is_reachable() -> bool:
            return node.is_connected and node.client_id == client_id and self.store.is_up

        def serve() -> None:
            if not is_reachable():
                node.later(1.0, on_unknown)
                return
            try:
                result = operation(self.store)
            except StoreConflict:
                node.later(self._delay(), on_conflict)
                return
            is_lost = self.is_faulty and self.random.random() < self.loss_share / 2
            node.later(
                1.0 if is_lost else self._delay(),
                on_unknown if is_lost else functools.partial(answer, result),
            )

        self.after(self._delay(), serve)

    # What must never happen

    def leadership_changed(self, node: SimulatedNode, is_leading: bool, fence: int) -> None:
        """Note who leads."""
        self.log(f"{node.id} {'leads' if is_leading else 'follows'} (fence {fence})")

    def check_command(self, leader: SimulatedNode, command: Order | CompileAhead) -> None:
        """Note orders that stop what the leader does not know and nobody deleted: none may be accepted."""
        if not isinstance(command, Order):
            return
        self.orders += 1
        self.log(
            f"{leader.id} orders {command.node}: {command.component} {command.count} "
            f"of {command.revision[:4]} {command.version}"
        )
        is_unknown = command.component not in leader.state.desired.components
        if command.count == 0 and is_unknown and command.component not in self.attempted_deletes:
            self.baseless.add(command.version)

    def check_accepted(self, node: SimulatedNode, order: Order) -> None:
        """A node never applies an order of a lower fence after a higher, nor an older one after a later.

        And it stops nothing because the store forgot it.
        """
        if order.fence < node.accepted_fence:
            self.fail(f"{node.id} applied an order of fence {order.fence} after one of {node.accepted_fence}")
        if order.version < node.accepted.get(order.component, (0, 0)):
            self.fail(f"{node.id} applied order {order.version} after a later one")
        if order.version in self.baseless:
            self.fail(f"{node.id} stops {order.component}, which nobody deleted, by order {order.version}")
        node.accepted_fence = order.fence
        node.accepted[order.component] = order.version

    def fails_to_prepare(self, spec: ComponentSpec) -> bool:
        """Whether this attempt fails: only while there are faults, so that the lattice can converge."""
        return self.is_faulty and self.random.random() < self.bad_share

    # People

    def change_something(self) -> None:
        """One person deploys, scales, updates or deletes over one node."""
        node = self.random.choice(list(self.nodes.values()))
        name = self.random.choice(NAMES)
        kind = self.random.choice(("deploy", "scale", "scale", "update", "delete"))
        if node.is_up and node.is_connected and self.now >= node.paused_until:
            self._begin_change(node, name, kind)

    def _begin_change(self, node: SimulatedNode, name: str, kind: str) -> None:
        key = APPLICATION_PREFIX + name

        def read(entry: tuple[Application | None, int]) -> None:
            stored, revision = entry
            own = node.state.desired.applications.get(name)
            base = own if own and own.supersedes(stored) else stored
            changed = self._changed(base, name, kind, node.now_ms)
            if changed is None:
                return
            if changed.is_deleted:
                self.attempted_deletes.add(name)
            self.use_store(
                node,
                lambda store: store.write(key, changed, revision if stored else None),
                lambda _: self._acknowledge(node, kind, changed),
            )

        self.use_store(node, lambda store: store.entries.get(key, (None, 0)), read)

    def _changed(self, base: Application | None, name: str, kind: str, now_ms: int) -> Application | None:
        if base is None or base.is_deleted:
            if kind != "deploy":
                return None
            return new_application(name, base, now_ms, components=[self._spec(name)])
        if kind == "delete":
            return base.tombstone(now_ms)
        spec = base.components[0]
        fresh = self._spec(name)
        digest = fresh.digest if kind == "update" else spec.digest
        return base.changed(
            components=[ComponentSpec(name=name, digest=digest, replicas=fresh.replicas, spread=spec.spread)],
            links=[],
        )

    def _spec(self, name: str) -> ComponentSpec:
        digest = f"sha256:{self.random.randrange(16):064x}"
        spread = self.random.choice((None, "zone"))
        return ComponentSpec(name=name, digest=digest, replicas=self.random.randint(0, 5), spread=spread)

    def _acknowledge(self, node: SimulatedNode, kind: str, application: Application) -> None:
        node.hear(application)
        self.log(f"{kind} {application.name} acknowledged by {node.id}: {_shown(application)}")
        known = self.acknowledged.get(application.name)
        if application.supersedes(known):
            self.acknowledged[application.name] = application

    # Faults

    def break_something(self) -> None:
        """One fault, which ends by itself."""
        node = self.random.choice(list(self.nodes.values()))
        fault = self.random.choice(
            (
                self._crash,
                self._crash,
                self._cut_off,
                self._cut_off,
                self._stop,
                self._crash_leader,
                self._lose_store,
                self._restart_server,
                self._slander,
                self._drain,
                self._drain,
            )
        )
        fault(node)

    def _crash(self, node: SimulatedNode) -> None:
        if node.is_up:
            self.log(f"{node.id} crashes")
            node.crash()
            self.after(self.random.uniform(0.1, 6.0), node.start)

    def _drain(self, node: SimulatedNode) -> None:
        if not (node.is_up and node.is_connected) or node.assignments.is_draining:
            return
        self.log(f"{node.id} drains")
        node.drain()
        self.after(self.random.uniform(0.5, 3.0), functools.partial(self._leave, node, node.process))

    def _leave(self, node: SimulatedNode, process: int) -> None:
        if node.process == process:
            self.log(f"{node.id} leaves")
            node.leave()
            self.after(self.random.uniform(0.1, 3.0), node.start)

    def _crash_leader(self, node: SimulatedNode) -> None:
        leader = self.leader()
        self._crash(leader or node)

    def _cut_off(self, node: SimulatedNode) -> None:
        if not (node.is_up and node.is_connected):
            return
        is_noticed = self.random.random() < 0.5
        self.log(f"{node.id} is cut off{'' if is_noticed else ' silently'}")
        node.disconnect(is_noticed=is_noticed)
        self.after(self.random.uniform(0.05, 6.0), functools.partial(self._reconnect, node, node.process))

    def _reconnect(self, node: SimulatedNode, process: int) -> None:
        if node.process == process and not node.is_connected:
            self.log(f"{node.id} connects again")
            node.connect()

    def _stop(self, node: SimulatedNode) -> None:
        if node.is_up:
            self.log(f"{node.id} stands still")
            node.paused_until = self.now + self.random.uniform(0.5, 6.0)

    def _lose_store(self, node: SimulatedNode) -> None:
        self.lose_store()

    def _restart_server(self, node: SimulatedNode) -> None:
        self.restart_server()

    def write(self, application: Application) -> None:
        """Put a new application into the store."""
        self.store.write(APPLICATION_PREFIX + application.name, application, None)

    def lose_store(self) -> None:
        """The server restarts without its data."""
        self.log("the store is lost")
        self.store.lose()
        self.restart_server()

    def restart_server(self) -> None:
        """All connections end, without a word to anybody; nodes connect again."""
        self.log("the server restarts")
        self.store.is_up = False
        self.store.watchers.clear()
        for other in self.nodes.values():
            if other.is_up:
                other.disconnect(is_noticed=False)
                delay = self.random.uniform(0.1, 1.5)
                self.after(delay, functools.partial(self._reconnect, other, other.process))
        self.after(0.1, functools.partial(setattr, self.store, "is_up", True))

    def _slander(self, node: SimulatedNode) -> None:
        """A node is wrongly believed gone by some of the others."""
        event = ConnectionEnded("S", node.client_id)
        for other in self.nodes.values():
            if other.is_up and other is not node and self.random.random() < 0.5:
                other.later(0.0, functools.partial(other.hear, event))

    # The end

    def live_through(self) -> float:
        """Run the time of faults and the time after; returns how long it took to converge."""
        for node in self.nodes.values():
            self.after(self.random.uniform(0, 1.0), node.start)
        for _ in range(self.random.randint(2, 20)):
            self.after(self.random.uniform(1.0, FAULT_SECONDS), self.change_something)
        for _ in range(self.random.randint(0, 24)):
            self.after(self.random.uniform(1.0, FAULT_SECONDS), self.break_something)
        self.run(FAULT_SECONDS)
        self._end_faults()
        return self._converge()

    def _end_faults(self) -> None:
        self.log("faults end")
        self.run(self.now + 6.1)  # each fault ends by itself within 6 s
        self.is_faulty = False
        for node in self.nodes.values():
            if not node.is_connected:
                self.fail(f"the simulation left {node.id} disconnected")

    def _converge(self) -> float:
        begun = self.now
        converged_at: float | None = None
        complaint, orders = None, self.orders
        while self.now - begun < CONVERGE_SECONDS:
            self.run(self.now + 0.5)
            complaint = self.complaint()
            if complaint or self.orders != orders:
                converged_at, orders = None, self.orders
            elif converged_at is None:
                converged_at = self.now
            elif self.now - converged_at >= SETTLED_SECONDS:
                return converged_at - begun
        self.fail(
            f"not converged after {CONVERGE_SECONDS:g} s: {complaint or 'orders are sent again and again'}"
        )
        raise AssertionError

    def leader(self) -> SimulatedNode | None:
        """The node that leads, if there is exactly one."""
        up = (node for node in self.nodes.values() if node.is_up)
        leaders = [node for node in up if node.leadership.is_leading(node.now)]
        return leaders[0] if len(leaders) == 1 else None

    def complaint(self) -> str | None:
        """What is not yet as it should be."""
        leader = self.leader()
        if leader is None or not leader.state.desired.is_complete:
            return "nobody leads"
        if len({node.state.desired.summary for node in self.nodes.values()}) > 1:
            return "nodes know different applications"
        return (
            self._complaint_of_store(leader)
            or self._complaint_of_acknowledged(leader)
            or self._complaint_of_replicas(leader)
        )

    def _complaint_of_store(self, leader: SimulatedNode) -> str | None:
        desired = leader.state.desired.applications
        stored = {
            value.name: value
            for key, (value, _) in self.store.entries.items()
            if key.startswith(APPLICATION_PREFIX)
        }
        return None if stored == desired else "the store differs from what the leader knows"

    def _complaint_of_acknowledged(self, leader: SimulatedNode) -> str | None:
        for name, application in self.acknowledged.items():
            present = leader.state.desired.applications.get(name)
            if present is None or present.version < application.version:
                shown = _shown(present) if present else "nothing"
                return f"{name} is {shown} though {_shown(application)} was acknowledged"
            if application.is_deleted and present.version == application.version and not present.is_deleted:
                return f"{name} came back"
        return None

    def _complaint_of_replicas(self, leader: SimulatedNode) -> str | None:
        components = leader.state.desired.components
        running: dict[str, int] = {}
        places = 0
        for node in self.nodes.values():
            for item in node.assignments.reports().values():
                if item.state is not AssignmentState.RUNNING:
                    return f"{node.id} is {item.state} {item.component}"
                if item.component not in components:
                    return f"{node.id} still runs {item.component}"
                if item.revision != components[item.component].revision:
                    return f"{node.id} runs an older revision of {item.component}"
                running[item.component] = running.get(item.component, 0) + item.running
                places += item.running
        capacity = sum(node.capacity for node in self.nodes.values())
        for name, wanted in components.items():
            count = running.get(name, 0)
            if count > wanted.spec.replicas:
                return f"{count} replicas of {name} run, {wanted.spec.replicas} are asked for"
            if count < wanted.spec.replicas and places < capacity:
                return f"only {count} of {wanted.spec.replicas} replicas of {name} run"
        return None


class _Line:
    """One watch: values arrive late, but in order; they end with the connection."""

    def __init__(self, world: World, node: SimulatedNode, client_id: int) -> None:
        self._world, self._node, self._client_id = world, node, client_id
        self._last = 0.0

    def changed(self, key: str, value: Any, revision: int) -> None:
        world, node = self._world, self._node
        if not node.is_connected or node.client_id != self._client_id:
            world.store.watchers = [item for item in world.store.watchers if item != self.changed]
            return
        self._last = max(self._last, world.now + world._delay())
        arrive = functools.partial(node.watched, key, value, revision)
        node.later(self._last - world.now, functools.partial(world._arrive, node, self._client_id, arrive))


def _shown(application: Application) -> str:
    incarnation = application.incarnation % 10_000_000
    counts = [f"{component.replicas} x {component.digest[-1]}" for component in application.components]
    return f"v{incarnation}.{application.generation} {'deleted' if application.is_deleted else counts}"
