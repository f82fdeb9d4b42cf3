"""Who leads first knows all nodes and all that was asked for; only then does it command."""

from __future__ import annotations

from typing import Any, TypeVar

from lattice import leadership as lead
from lattice.lease import ReadLease, WriteLease
from lattice.model import Application, LeaseValue, Marker
from lattice.orders import Order, OrderReply
from lattice.recovery import FetchCopies, Phase, ReadStore, Stored, WriteApplication, WriteMarker
from lattice.state import FetchInventory, NodeLeft
from tests.lattice.lattices import BOOT, Lattice, Node, application

A = TypeVar("A")
MARKER = Marker(incarnation=1)
WALL = 1_700_000_000_000


class Led(Lattice):
    """A lattice with the leadership of its node N0; remembers what must be done."""

    def __init__(self, *nodes: Node) -> None:
        super().__init__(*nodes)
        self.desired.is_complete = False
        self.leadership = lead.Leadership("N0", self.state)
        self.todo: list[Any] = []

    def handle(self, event: lead.Event) -> None:
        self.todo += self.leadership.handle(event, self.now)

    def turn(self, seconds: float = 0.0) -> None:
        self.pass_time(seconds)
        self.handle(lead.Turn(WALL))

    def take(self, kind: type[A]) -> list[A]:
        """Everything of this kind that must be done; it counts as begun."""
        found = [action for action in self.todo if isinstance(action, kind)]
        self.todo = [action for action in self.todo if not isinstance(action, kind)]
        return found

    def elect(self, revision: int = 1) -> None:
        """Let N0 take the lease."""
        self.turn()
        if self.take(ReadLease):
            self.handle(lead.LeaseRead(None))
            self.turn(0.3)
        (write,) = self.take(WriteLease)
        self.handle(lead.LeaseWritten(write, revision))

    def renew(self) -> None:
        for write in self.take(WriteLease):
            self.handle(lead.LeaseWritten(write, 2))

    def answer_inventories(self) -> None:
        for fetch in self.take(FetchInventory):
            self.report_inventory(self.nodes[fetch.node])

    def store_read(self, *stored: Application, marker: Marker | None = MARKER) -> None:
        assert self.take(ReadStore)
        found = {item.name: Stored(item, 5) for item in stored}
        self.handle(lead.StoreRead(found, marker))

    def orders(self) -> list[Order]:
        commands = [command for send in self.take(lead.SendCommands) for command in send.commands]
        return [command for command in commands if isinstance(command, Order)]


def leader(*stored: Application) -> Led:
    """N0 leads a lattice of two nodes, and knows everything."""
    led = Led(Node("N0"), Node("N1"))
    led.elect()
    led.answer_inventories()
    led.store_read(*stored)
    return led


def test_new_leader_asks_all_nodes_and_reads_the_store_before_it_commands() -> None:
    led = Led(Node("N0"), Node("N1"))
    led.elect()

    assert {fetch.node for fetch in led.take(FetchInventory)} == {"N0", "N1"}
    led.store_read(application())
    led.turn()
    assert led.orders() == []
    for node in led.nodes.values():
        led.report_inventory(node)
    led.turn()

    (order,) = led.orders()
    assert order.version == (1, 1)


def test_node_that_does_not_answer_is_waited_for_a_second() -> None:
    led = Led(Node("N0"), Node("N1"))
    led.elect()
    led.store_read(application())

    led.turn(0.9)
    led.renew()
    assert led.orders() == []
    led.turn(0.2)

    assert len(led.orders()) == 1


def test_leader_whose_renewals_fail_commands_nothing_after_two_seconds() -> None:
    led = leader()
    led.turn(2.1)
    led.state.apply(application(), led.now)
    led.turn()

    assert led.orders() == []
    assert not led.leadership.is_leading(led.now)


def test_each_order_has_the_next_generation() -> None:
    led = leader(application(replicas=2))
    led.turn()

    assert [order.version for order in led.orders()] == [(1, 1), (1, 2)]


def test_refusal_with_a_higher_fence_makes_the_leader_bid_above_it() -> None:
    led = leader()
    led.handle(lead.OrderAnswered(OrderReply(node="N1", is_accepted=False, fence=9)))
    led.turn()

    (write,) = led.take(WriteLease)
    assert write.value.fence == 10
    led.handle(lead.LeaseWritten(write, 2))
    assert led.leadership.is_leading(led.now)
    assert led.leadership.phase is Phase.READING  # as after any election


def test_another_holder_ends_everything_at_once() -> None:
    led = leader(application())
    led.todo.clear()

    led.handle(lead.LeaseSeen(LeaseValue(holder="N1", fence=2), 2))
    led.turn()

    assert led.take(lead.LeadershipChanged) == [lead.LeadershipChanged(False, 2)]
    assert led.orders() == []
    assert not led.desired.is_complete
    assert led.leadership.controller == "N1"


def test_resigning_frees_the_lease_and_takes_it_no_more() -> None:
    led = leader(application())

    (write,) = [action for action in led.leadership.resign(led.now) if isinstance(action, WriteLease)]
    led.handle(lead.LeaseWritten(write, 2))
    led.turn(1.0)

    assert write.value.holder == ""
    assert led.take(WriteLease) == []
    assert led.orders() == []


# Recovery


def test_store_without_marker_is_filled_from_what_nodes_keep_and_marked_last() -> None:
    led = Led(Node("N0"), Node("N1"))
    led.elect()
    led.answer_inventories()
    led.store_read(marker=None)
    assert {fetch.node for fetch in led.take(FetchCopies)} == {"N0", "N1"}

    old = application()
    led.handle(lead.CopiesReceived("N0", (old,)))
    led.handle(lead.CopiesReceived("N1", (old.tombstone(WALL), application("other"))))
    for _ in range(3):
        led.turn(1.0)
        led.renew()
    led.store_read(old, marker=None)
    writes = {write.application.name: write for write in led.take(WriteApplication)}

    assert writes["greeter"].application.is_deleted and writes["greeter"].revision == 5
    assert writes["other"].revision is None
    assert not led.desired.is_complete
    for name in writes:
        led.handle(lead.ApplicationWritten(name, True))
    led.store_read(*(write.application for write in writes.values()), marker=None)
    assert led.take(WriteMarker) == [WriteMarker(Marker(incarnation=1))]
    led.handle(lead.MarkerWritten(True))
    assert led.desired.is_complete


def test_nothing_is_planned_while_the_store_is_lost() -> None:
    led = leader(application())
    led.todo.clear()

    led.handle(lead.StoreLost())
    led.store_read(marker=None)
    led.turn()

    assert led.leadership.phase is Phase.COLLECTING
    assert led.orders() == []


def test_node_that_joins_while_copies_are_collected_is_asked_too() -> None:
    led = leader()
    led.handle(lead.StoreLost())
    led.store_read(marker=None)
    led.take(FetchCopies)

    led.join(Node("N2"))
    led.turn()

    assert FetchCopies("N2") in led.take(FetchCopies)


def test_application_that_a_marked_store_lacks_is_written_back() -> None:
    led = Led(Node("N0"))
    led.state.apply(application(), 0.0)
    led.elect()

    led.store_read()

    assert [write.application.name for write in led.take(WriteApplication)] == ["greeter"]


def test_lost_race_of_a_write_reads_the_store_again() -> None:
    led = Led(Node("N0"))
    led.state.apply(application(), 0.0)
    led.elect()
    led.store_read()
    led.handle(lead.ApplicationWritten("greeter", False))

    led.turn(0.6)
    newer = application().changed(components=[], links=[])
    led.store_read(newer)

    assert led.desired.is_complete
    assert led.desired.applications["greeter"] == newer


def test_node_that_lastingly_knows_something_else_is_asked_for_its_copies() -> None:
    led = leader()
    led.nodes["N1"].copies = 77

    asked: list[FetchCopies] = []
    for _ in range(9):
        led.turn(1.0)
        led.renew()
        asked += led.take(FetchCopies)
    assert set(asked) == {FetchCopies("N1")}

    deleted = application().tombstone(WALL)
    led.handle(lead.CopiesReceived("N1", (deleted,)))
    assert led.desired.applications["greeter"] == deleted
    assert led.take(ReadStore)


def test_old_tombstone_is_removed_from_the_store_and_from_what_is_known() -> None:
    deleted = application().tombstone(WALL - 8 * 24 * 3600 * 1000)
    led = leader(deleted)

    for _ in range(61):
        led.turn(1.0)
        led.renew()

    assert led.take(lead.RemoveTombstone) == [lead.RemoveTombstone(deleted, in_store=True)]
    assert led.desired.applications == {}


def test_lost_node_is_replaced_at_the_next_turn() -> None:
    led = leader(application())
    led.turn()
    (order,) = led.orders()
    led.carry_out([order])

    led.state.apply(NodeLeft(order.node, BOOT), led.now)
    led.turn()

    (again,) = led.orders()
    assert again.node != order.node
    assert again.version > order.version
