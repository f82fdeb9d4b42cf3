"""A node of the simulation: the lattice's own decisions; disk, connection and runtime are played."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lattice import leadership as lead
from lattice import recovery
from lattice.assignments import Assignments, Cancel, Drain, Prepare, Run, Step
from lattice.inventory import Heartbeat, InventoryPage, NodeInfo
from lattice.lease import ReadLease, WriteLease
from lattice.model import Application, Marker
from lattice.orders import CompileAhead, Order, OrderReply
from lattice.state import (
    HEARTBEAT_SECONDS,
    ApplicationChanged,
    FetchInventory,
    LatticeState,
    NodeLeft,
    Tick,
)

if TYPE_CHECKING:
    from tests.simulation.world import World

TICK_SECONDS = 0.2
LEASE_KEY, MARKER_KEY, APPLICATION_PREFIX = "lease", "marker", "app."


class SimulatedNode:
    """What is kept over restarts is in `disk`, `boot` and the skews; `process` names the present life."""

    def __init__(self, world: World, node_id: str, *, capacity: int, zone: str) -> None:
        self.world, self.id, self.capacity, self.zone = world, node_id, capacity, zone
        self.disk: dict[str, Application] = {}
        self.boot = 0
        self.process = 0
        self.is_up = False
        self.is_connected = False
        self.paused_until = 0.0
        self.client_id = 0
        self.clock_offset = world.random.uniform(0, 1e6)
        self.wall_skew_ms = world.random.randint(-300_000, 300_000)

    # Life

    def start(self) -> None:
        """Begin a new life with what is on the disk."""
        self.process += 1
        self.boot = max(self.boot + 1, self.now_ms)
        self.is_up, self.paused_until, self.beat = True, 0.0, 0
        self.clock_offset = self.world.random.uniform(0, 1e6)
        self.state = LatticeState()
        for application in self.disk.values():
            self.state.desired.merge(application)
        self.leadership = lead.Leadership(self.id, self.state)
        self.assignments = Assignments(self.id, self.boot)
        self.accepted_fence = 0
        self.accepted: dict[str, tuple[int, int]] = {}
        self.targets: dict[int, int] = {}
        self.connect()
        self.later(self.world.random.uniform(0, TICK_SECONDS), self._tick)
        self.later(self.world.random.uniform(0, 0.3), self._beat)

    def crash(self) -> None:
        """`kill -9`."""
        self.is_up = False
        self.process += 1
        self.disconnect(is_noticed=True)

    def drain(self) -> None:
        """Begin to leave: hand over the lead, begin nothing new, have others take over."""
        self.assignments.is_draining = True
        for action in self.leadership.resign(self.now):
            self.do(action)
        self._send_heartbeat()

    def leave(self) -> None:
        """End, as announced."""
        self.world.publish(self, NodeLeft(self.id, self.boot))
        self.crash()

    def connect(self) -> None:
        """Speak over a new connection; watches are made anew."""
        self.world.connections += 1
        self.client_id = self.world.connections
        self.is_connected = True
        self.world.connected(self)

    def disconnect(self, *, is_noticed: bool) -> None:
        """Lose the connection; if noticed, the server tells the others."""
        if not self.is_connected:
            return
        self.is_connected = False
        self.world.disconnected(self, is_noticed=is_noticed)

    @property
    def now(self) -> float:
        """The node's own monotonic clock."""
        return self.world.now + self.clock_offset

    @property
    def now_ms(self) -> int:
        """The node's own wall clock, which is wrong."""
        return 1_700_000_000_000 + int(self.world.now * 1000) + self.wall_skew_ms

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do it later if this life still lasts; a stopped process does it when it continues."""
        self.world.after(seconds, functools.partial(self._guarded, self.process, action))

    def _guarded(self, process: int, action: Callable[[], None]) -> None:
        if process != self.process:
            return
        if self.world.now < self.paused_until:
            self.world.after(
                self.paused_until - self.world.now, functools.partial(self._guarded, process, action)
            )
        else:
            action()

    # Regular work

    def _tick(self) -> None:
        self.later(TICK_SECONDS, self._tick)
        self.hear(Tick())
        self.lead(lead.Turn(self.now_ms))

    def _beat(self) -> None:
        self.later(HEARTBEAT_SECONDS, self._beat)
        self._send_heartbeat()

    def _send_heartbeat(self) -> None:
        self.beat += 1
        self.world.publish(
            self,
            Heartbeat(
                node=self.id,
                boot=self.boot,
                beat=self.beat,
                server_id="S",
                client_id=self.client_id,
                inventory=self.assignments.inventory,
                fence=self.assignments.fencing.highest,
                replicas=self.assignments.replicas,
                is_draining=self.assignments.is_draining,
                copies=self.state.desired.summary,
            ),
        )

    def hear(self, event: Any) -> None:
        """Apply what was heard, and do what follows."""
        for effect in self.state.apply(event, self.now):
            self.do(effect)

    def lead(self, event: lead.Event) -> None:
        """Let the leadership decide, and do what follows."""
        for action in self.leadership.handle(event, self.now):
            self.do(action)

    # What must be done

    def do(self, action: Any) -> None:
        """Carry out an effect or action over the network and the store."""
        match action:
            case ApplicationChanged(application):
                self.disk[application.name] = application
            case FetchInventory(node):
                self.world.request(self, node, lambda peer: peer.pages(), self._heard_pages)
            case recovery.FetchCopies(node):
                self.world.request(
                    self,
                    node,
                    lambda peer: tuple(peer.state.desired.applications.values()),
                    lambda found: self.lead(lead.CopiesReceived(node, found)),
                )
            case lead.SendCommands(commands):
                self._send(commands)
            case lead.LeadershipChanged(is_leading, fence):
                self.world.leadership_changed(self, is_leading, fence)
            case _:
                self._use_store(action)

    def pages(self) -> list[InventoryPage]:
        """The answer to a question for the inventory."""
        info = NodeInfo(
            id=self.id,
            name=self.id.lower(),
            boot=self.boot,
            capacity=self.capacity,
            labels={"zone": self.zone},
        )
        return self.assignments.pages(info)

    def _heard_pages(self, pages: list[InventoryPage]) -> None:
        for page in pages:
            self.hear(page)

    def _send(self, commands: tuple[Order | CompileAhead, ...]) -> None:
        for command in commands:
            self.world.check_command(self, command)
            self.world.request(
                self,
                command.node,
                functools.partial(_receive, command=command),
                self._heard_reply,
            )

    def _heard_reply(self, reply: OrderReply | None) -> None:
        if reply is not None:
            self.lead(lead.OrderAnswered(reply))

    def _use_store(self, action: Any) -> None:
        world = self.world
        match action:
            case ReadLease():
                world.use_store(
                    self,
                    lambda store: store.entries.get(LEASE_KEY, (None, 0)),
                    lambda entry: self.lead(lead.LeaseRead(*entry)),
                )
            case WriteLease(value=value, revision=revision):
                world.use_store(
                    self,
                    lambda store: store.write(LEASE_KEY, value, revision),
                    lambda written: self.lead(lead.LeaseWritten(action, written)),
                    on_conflict=lambda: self.lead(lead.LeaseRefused(action)),
                    on_unknown=lambda: self.lead(lead.LeaseUnknown(action)),
                )
            case recovery.ReadStore():
                world.use_store(
                    self,
                    _read_all,
                    lambda event: self.lead(event),
                    on_unknown=lambda: self.lead(lead.StoreFailed()),
                )
            case recovery.WriteApplication(application, revision):
                self._write_application(application, revision)
            case recovery.WriteMarker(marker):
                world.use_store(
                    self,
                    functools.partial(_write_marker, marker=marker),
                    lambda _: self.lead(lead.MarkerWritten(True)),
                    on_unknown=lambda: self.lead(lead.MarkerWritten(False)),
                )

    def _write_application(self, application: Application, revision: int | None) -> None:
        def answer(is_written: bool) -> None:
            self.lead(lead.ApplicationWritten(application.name, is_written))

        self.world.use_store(
            self,
            lambda store: store.write(APPLICATION_PREFIX + application.name, application, revision),
            lambda _: answer(True),
            on_conflict=lambda: answer(False),
            on_unknown=lambda: answer(False),
        )

    def watched(self, key: str, value: Any, revision: int) -> None:
        """The watch of the store told of a value."""
        if key == LEASE_KEY:
            self.lead(lead.LeaseSeen(value, revision))
        elif key.startswith(APPLICATION_PREFIX):
            self.hear(value)

    # Orders and the runtime that is played

    def receive(self, command: Order | CompileAhead) -> OrderReply | None:
        """Take a command as the node's runtime would; returns the reply."""
        if isinstance(command, CompileAhead):
            self.later(self.world.random.uniform(0.1, 1.0), lambda: self._compiled(command.digest))
            return None
        reply, steps = self.assignments.order(command)
        if reply.is_accepted:
            self.world.check_accepted(self, command)
        self._carry_out(steps)
        self.report()
        return reply

    def report(self) -> None:
        """Tell everyone what has changed."""
        delta = self.assignments.take_delta()
        if delta is not None:
            self.world.publish(self, delta)

    def _compiled(self, digest: str) -> None:
        self.assignments.compiled(digest)
        self.report()

    def _carry_out(self, steps: list[Step]) -> None:
        for step in steps:
            match step:
                case Prepare(spec=spec):
                    longest = 0.05 if self.assignments.is_compiled(spec.digest) else 0.8
                    delay = self.world.random.uniform(0.02, longest)
                    self.later(delay, functools.partial(self._prepared, step))
                case Run(life=life, count=count):
                    self.targets[life] = count
                    self.later(self.world.random.uniform(0.01, 0.1), functools.partial(self._run, life))
                case Drain(life=life):
                    self.later(self.world.random.uniform(0.01, 0.5), functools.partial(self._drained, life))
                case Cancel():
                    pass

    def _prepared(self, step: Prepare) -> None:
        if self.world.fails_to_prepare(step.spec):
            self.assignments.failed(step.life, "the compiler was shot")
        else:
            self.assignments.compiled(step.spec.digest)
            self._carry_out(self.assignments.prepared(step.life))
        self.report()

    def _run(self, life: int) -> None:
        self._carry_out(self.assignments.running(life, self.targets[life]))
        self.report()

    def _drained(self, life: int) -> None:
        self.assignments.drained(life)
        self.report()


def _receive(node: SimulatedNode, command: Order | CompileAhead) -> OrderReply | None:
    return node.receive(command)


def _read_all(store: Any) -> lead.StoreRead:
    marker = store.entries.get(MARKER_KEY)
    found = {
        value.name: recovery.Stored(value, revision)
        for key, (value, revision) in store.entries.items()
        if key.startswith(APPLICATION_PREFIX)
    }
    return lead.StoreRead(found, marker[0] if marker else None)


def _write_marker(store: Any, marker: Marker) -> None:
    if MARKER_KEY not in store.entries:
        store.write(MARKER_KEY, marker, None)
