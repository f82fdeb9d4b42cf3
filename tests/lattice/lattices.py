"""Lattices for tests of state and plan: nodes that report, and do what they are told at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lattice.assignments import Assignments, Drain, Prepare, Run, Step
from lattice.desired import Desired
from lattice.imports import Catalog
from lattice.inventory import Delta, Heartbeat, NodeInfo
from lattice.model import Application, ComponentSpec, new_application
from lattice.observed import Observed
from lattice.orders import Command, CompileAhead, Order
from lattice.plan import InFlight, plan
from lattice.state import Effect, FetchInventory, LatticeState, NodeLeft, Tick

BOOT = 1


def digest(number: int) -> str:
    """The digest of some component."""
    return f"sha256:{number:064x}"


def spec(name: str = "greeter", **changes: object) -> ComponentSpec:
    """A component; `digest` may be a number."""
    number = changes.pop("digest", 1)
    return ComponentSpec.from_dict({"name": name, "digest": digest(int(str(number))), **changes})


def application(name: str = "greeter", **changes: object) -> Application:
    """An application of one component."""
    return new_application(name, None, 1, components=[spec(name, **changes)])


class Node:
    """A node that reports; `fails` says of which digests it can't prepare."""

    def __init__(self, node_id: str, *, capacity: int = 100, labels: Mapping[str, str] | None = None) -> None:
        self.id = node_id
        self.beat = 0
        self.fails: set[str] = set()
        self.is_draining = False
        self.copies = 0
        self.assignments = Assignments(node_id, BOOT)
        self.info = NodeInfo(
            id=node_id, name=node_id.lower(), boot=BOOT, capacity=capacity, labels=dict(labels or {})
        )

    def heartbeat(self, **changes: object) -> Heartbeat:
        """The next heartbeat."""
        self.beat += 1
        return Heartbeat.from_dict(
            {
                "node": self.id,
                "boot": BOOT,
                "beat": self.beat,
                "server_id": "S",
                "client_id": 7,
                "inventory": self.assignments.inventory,
                "is_draining": self.is_draining,
                "copies": self.copies,
                **changes,
            }
        )

    def obey(self, order: Order) -> None:
        """Do all of it at once."""
        _, steps = self.assignments.order(order)
        self.carry_out(steps)

    def carry_out(self, steps: Iterable[Step]) -> None:
        """What the runtime does."""
        for step in steps:
            match step:
                case Prepare(life=life, spec=wanted) if wanted.digest in self.fails:
                    self.assignments.failed(life, "it does not compile")
                case Prepare(life=life, spec=wanted):
                    self.assignments.compiled(wanted.digest)
                    self.carry_out(self.assignments.prepared(life))
                case Run(life=life, count=count):
                    self.carry_out(self.assignments.running(life, count))
                case Drain(life=life):
                    self.assignments.drained(life)


class Lattice:
    """A state that hears of everything at once, and a plan that is carried out step by step."""

    def __init__(self, *nodes: Node) -> None:
        self.state = LatticeState()
        self.state.desired.is_complete = True
        self.in_flight = InFlight()
        self.catalog = Catalog()
        self.nodes = {node.id: node for node in nodes}
        self.now = 0.0
        self.generation = 0
        for node in nodes:
            self.join(node)

    @property
    def desired(self) -> Desired:
        return self.state.desired

    @property
    def observed(self) -> Observed:
        return self.state.observed

    def join(self, node: Node) -> None:
        """The node reports for the first time."""
        self.nodes[node.id] = node
        for effect in self.state.apply(node.heartbeat(), self.now):
            if isinstance(effect, FetchInventory):
                self.report_inventory(node)

    def report_inventory(self, node: Node) -> None:
        """All pages of its inventory."""
        for page in node.assignments.pages(node.info):
            self.state.apply(page, self.now)

    def report(self, node: Node) -> Delta | None:
        """What has changed on the node."""
        delta = node.assignments.take_delta()
        if delta is not None:
            self.state.apply(delta, self.now)
        return delta

    def pass_time(self, seconds: float) -> list[Effect]:
        """Nothing but time passes; nodes that are live go on beating."""
        effects: list[Effect] = []
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + 0.1, end)
            for view in list(self.observed.live()):
                if self.now - view.heard_at >= 1.0:
                    effects += self.state.apply(self.nodes[view.id].heartbeat(), self.now)
            effects += self.state.apply(Tick(), self.now)
        return effects

    def plan(self) -> list[Command]:
        """The commands that are due, which count as sent."""
        self.in_flight.settle(self.observed, self.now)
        commands: list[Command] = []
        for command in plan(self.desired, self.observed, self.in_flight, self.now, self.catalog):
            if isinstance(command, Order):
                self.generation += 1
                command = command.stamped(1, self.generation)
            commands.append(command)
        self.in_flight.sent(commands, self.now)
        return commands

    def carry_out(self, commands: Iterable[Command]) -> None:
        """The nodes do it and report."""
        for command in commands:
            node = self.nodes[command.node]
            if isinstance(command, CompileAhead):
                node.assignments.compiled(command.digest)
            else:
                node.obey(command)
            self.report(node)

    def settle(self, rounds: int = 30) -> int:
        """Plan and carry out until nothing is due; returns the rounds that took."""
        for number in range(rounds):
            commands = self.plan()
            if not commands:
                return number
            self.carry_out(commands)
        raise AssertionError(f"still not settled after {rounds} rounds: {commands}")

    def running(self, component: str = "greeter") -> dict[str, int]:
        """Replicas that take calls, by node."""
        placements = self.state.placements(component)
        return {placement.node: placement.running for placement in placements}


def orders(commands: Iterable[Command]) -> dict[str, int]:
    """Counts by node."""
    return {command.node: command.count for command in commands if isinstance(command, Order)}


def nodes(count: int, **changes: Any) -> list[Node]:
    return [Node(f"N{index}", **changes) for index in range(count)]


def zoned(*zones: str) -> list[Node]:
    return [Node(f"N{index}", labels={"zone": zone}) for index, zone in enumerate(zones)]


def ask(lattice: Lattice, **changes: Any) -> None:
    """Ask for this of the greeter, as the next generation."""
    name = changes.pop("name", "greeter")
    present = lattice.desired.applications.get(name)
    if present is None:
        lattice.state.apply(application(name, **changes), lattice.now)
    else:
        lattice.state.apply(present.changed(components=[spec(name, **changes)], links=[]), lattice.now)


def lose(lattice: Lattice, node: str) -> None:
    lattice.state.apply(NodeLeft(node, BOOT), lattice.now)
