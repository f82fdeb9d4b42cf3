"""What is heard leads to the same state in whatever order it comes, and to the effects that are due."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lattice.inventory import Assignment, AssignmentState, Delta, Heartbeat, InventoryPage, Offer
from lattice.model import Application
from lattice.observed import NodeStatus
from lattice.state import (
    ConnectionEnded,
    FetchInventory,
    LatticeState,
    NodeJoined,
    NodeLeft,
    NodeLost,
    NodeSuspected,
    NodeUnresponsive,
    Tick,
)
from tests.lattice.lattices import Lattice, Node, application, digest, spec


def assignment(component: str = "greeter", **changes: Any) -> Assignment:
    values = {
        "component": component,
        "revision": "r1",
        "digest": digest(1),
        "count": 1,
        "running": 1,
        "state": "running",
        "fence": 1,
        "generation": 1,
    }
    return Assignment.from_dict(values | changes)


def delta(inventory: int, *changed: Assignment, **changes: Any) -> Delta:
    return Delta(node="NA", boot=1, inventory=inventory, changed=changed, **changes)


def running(state: LatticeState, component: str = "greeter") -> dict[str, int]:
    return {placement.node: placement.running for placement in state.placements(component)}


# Desired


def test_component_of_two_applications_belongs_to_the_older() -> None:
    older = Application(name="zebra", incarnation=1, components=(spec("shared"),))
    newer = Application(name="ape", incarnation=2, components=(spec("shared", digest=2),))
    state = LatticeState()

    for copy in (newer, older):
        state.apply(copy, 0.0)
    assert state.desired.components["shared"].application == "zebra"

    state.apply(older.tombstone(1), 0.0)
    assert state.desired.components["shared"].application == "ape"


def test_only_an_old_tombstone_can_be_forgotten() -> None:
    desired = LatticeState().desired
    present = application()
    desired.merge(present)

    assert not desired.forget("greeter", 10**15)
    desired.merge(present.tombstone(0))
    assert not desired.forget("greeter", 1)
    assert desired.forget("greeter", 10**12)
    assert desired.summary == LatticeState().desired.summary


versions = st.lists(
    st.builds(
        lambda name, incarnation, generation, replicas, is_deleted: Application(
            name=name,
            incarnation=incarnation,
            generation=generation,
            components=() if is_deleted else (spec(name, replicas=replicas), spec("shared")),
            deleted_at=5 if is_deleted else None,
        ),
        st.sampled_from(["x", "y"]),
        st.integers(1, 3),
        st.integers(1, 3),
        st.integers(0, 2),
        st.booleans(),
    ),
    max_size=8,
)


@given(versions, st.randoms(use_true_random=False))
def test_merge_does_not_depend_on_order_or_duplicates(copies: list[Application], chance: Any) -> None:
    first, second = LatticeState().desired, LatticeState().desired
    shuffled = [*copies, *chance.sample(copies, len(copies) // 2)]
    chance.shuffle(shuffled)

    for copy in copies:
        first.merge(copy)
    for copy in shuffled:
        second.merge(copy)

    assert first.applications == second.applications
    assert first.components == second.components
    assert first.summary == second.summary


# Inventories


def test_new_node_is_asked_for_its_inventory() -> None:
    state, node = LatticeState(), Node("NA")

    effects = state.apply(node.heartbeat(), 0.0)

    assert effects == [NodeJoined("NA"), FetchInventory("NA")]


def test_delta_that_follows_is_applied_and_a_duplicate_is_not() -> None:
    lattice = Lattice(Node("NA"))

    for number, count in ((1, 1), (2, 3), (1, 1)):
        assert lattice.state.apply(delta(number, assignment(running=count)), 0.0) == []

    assert running(lattice.state) == {"NA": 3}


def test_gap_asks_for_the_inventory_and_what_came_early_follows_on_it() -> None:
    node = Node("NA")
    lattice = Lattice(node)

    effects = lattice.state.apply(delta(3, assignment(running=3)), 0.0)
    assert effects == [FetchInventory("NA")]
    assert running(lattice.state) == {}
    page = InventoryPage(info=node.info, inventory=2, assignments=(assignment("other"),))
    lattice.state.apply(page, 0.0)

    assert running(lattice.state) == {"NA": 3}
    assert running(lattice.state, "other") == {"NA": 1}


def test_heartbeat_with_a_later_inventory_shows_a_lost_delta() -> None:
    node = Node("NA")
    lattice = Lattice(node)

    effects = lattice.state.apply(node.heartbeat(inventory=1), 0.5)

    assert effects == [FetchInventory("NA")]


def test_inventory_that_does_not_come_is_asked_for_again_after_a_second() -> None:
    state, node = LatticeState(), Node("NA")
    state.apply(node.heartbeat(), 0.0)

    assert state.apply(Tick(), 0.9) == []
    assert state.apply(Tick(), 1.1) == [FetchInventory("NA")]


def test_pages_count_only_when_all_of_one_version_are_here() -> None:
    node = Node("NA")
    lattice = Lattice(node)
    one, two = assignment("one"), assignment("two")

    lattice.state.apply(InventoryPage(info=node.info, inventory=1, page=0, pages=2, assignments=(one,)), 0.0)
    lattice.state.apply(InventoryPage(info=node.info, inventory=2, page=1, pages=2, assignments=(two,)), 0.0)
    assert not running(lattice.state, "two")
    lattice.state.apply(InventoryPage(info=node.info, inventory=2, page=0, pages=2, assignments=(one,)), 0.0)

    assert running(lattice.state, "one") == running(lattice.state, "two") == {"NA": 1}


changes = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 3)), min_size=1, max_size=8)


@given(changes, st.randoms(use_true_random=False))
def test_deltas_lead_to_the_same_state_in_any_order_once_the_inventory_is_fetched(
    steps: list[tuple[str, int]], chance: Any
) -> None:
    node = Node("NA")
    deltas = [
        delta(number, assignment(component, running=count))
        for number, (component, count) in enumerate(steps, start=1)
    ]
    in_order, shuffled = Lattice(node), Lattice(node)
    for item in deltas:
        in_order.state.apply(item, 0.0)
    lossy = chance.sample(deltas, chance.randint(0, len(deltas))) * 2
    chance.shuffle(lossy)
    for item in lossy:
        shuffled.state.apply(item, 0.0)

    held = in_order.observed.nodes["NA"].assignments
    items = tuple(item for revisions in held.values() for item in revisions.values())
    page = InventoryPage(info=node.info, inventory=len(deltas), assignments=items)
    shuffled.state.apply(page, 0.0)

    assert shuffled.observed.nodes["NA"].assignments == held
    assert running(shuffled.state, "a") == running(in_order.state, "a")
    assert shuffled.observed.nodes["NA"].places == in_order.observed.nodes["NA"].places


# Life and death


def test_node_is_silent_after_three_missed_heartbeats_and_comes_back_as_it_was() -> None:
    node = Node("NA")
    lattice = Lattice(node)
    lattice.state.apply(delta(1, assignment()), 0.0)
    node.assignments.inventory = 1

    assert [lattice.state.apply(Tick(), at) for at in (1.0, 2.0, 2.9)] == [[], [], []]
    assert lattice.state.apply(Tick(), 3.1) == [NodeLost("NA", 1, "silent")]
    assert running(lattice.state) == {}
    assert lattice.observed.nodes["NA"].status is NodeStatus.SILENT

    assert lattice.state.apply(node.heartbeat(), 9.0) == [NodeJoined("NA")]
    assert running(lattice.state) == {"NA": 1}


def test_own_stall_is_nobodys_silence() -> None:
    lattice = Lattice(Node("NA"))
    lattice.state.apply(Tick(), 0.1)

    assert lattice.state.apply(Tick(), 8.0) == []


def test_advisory_counts_for_the_connection_of_the_last_heartbeat_only() -> None:
    lattice = Lattice(Node("NA"))

    assert lattice.state.apply(ConnectionEnded("S", 8), 0.0) == []
    assert lattice.state.apply(ConnectionEnded("T", 7), 0.0) == []
    assert lattice.state.apply(ConnectionEnded("S", 7), 0.0) == [NodeSuspected("NA")]


def test_who_claims_the_connection_of_another_does_not_hide_its_end() -> None:
    impostor, node = Node("N0"), Node("NA")
    lattice = Lattice(impostor, node)

    effects = lattice.state.apply(ConnectionEnded("S", 7), 0.0)

    assert effects == [NodeSuspected("N0"), NodeSuspected("NA")]


def test_suspected_node_is_not_called_at_once_and_is_lost_after_the_grace() -> None:
    lattice = Lattice(Node("NA"))
    lattice.state.apply(delta(1, assignment()), 0.0)

    lattice.state.apply(ConnectionEnded("S", 7), 1.0)
    assert running(lattice.state) == {}
    assert "NA" in lattice.observed.holdings["greeter"]

    assert lattice.state.apply(Tick(), 1.1) == []
    assert lattice.state.apply(Tick(), 1.25) == [NodeLost("NA", 1, "disconnected")]
    assert lattice.observed.holdings == {}


def test_new_connection_within_the_grace_clears_the_suspicion() -> None:
    node = Node("NA")
    lattice = Lattice(node)
    lattice.state.apply(delta(1, assignment()), 0.0)
    lattice.state.apply(NodeUnresponsive("NA"), 1.0)

    lattice.state.apply(node.heartbeat(client_id=9, inventory=1), 1.1)

    assert lattice.state.apply(Tick(), 1.5) == []
    assert running(lattice.state) == {"NA": 1}


def test_a_connection_that_is_replaced_unseen_ends_the_calls_that_were_sent_over_it() -> None:
    node = Node("NA")
    lattice = Lattice(node)

    assert lattice.state.apply(node.heartbeat(client_id=9), 0.5) == [NodeSuspected("NA")]
    assert lattice.state.apply(node.heartbeat(client_id=9), 0.6) == []
    assert lattice.observed.nodes["NA"].suspected_at is None


def test_late_heartbeat_over_the_ended_connection_brings_nobody_back() -> None:
    node = Node("NA")
    lattice = Lattice(node)
    lattice.state.apply(ConnectionEnded("S", 7), 1.0)
    lattice.state.apply(Tick(), 1.3)

    assert lattice.state.apply(node.heartbeat(), 1.4) == []
    assert NodeJoined("NA") in lattice.state.apply(node.heartbeat(client_id=8), 1.5)


def test_overtaken_heartbeat_changes_nothing() -> None:
    node = Node("NA")
    lattice = Lattice(node)
    early = node.heartbeat(client_id=6, load=0.1)
    lattice.state.apply(node.heartbeat(client_id=8, load=0.9), 1.0)

    lattice.state.apply(early, 1.1)

    assert lattice.observed.nodes["NA"].load == 0.9
    assert lattice.state.apply(ConnectionEnded("S", 6), 1.2) == []


def test_new_boot_is_another_life() -> None:
    lattice = Lattice(Node("NA"))
    lattice.state.apply(delta(1, assignment()), 0.0)
    beat = Heartbeat(node="NA", boot=2, beat=1)

    effects = lattice.state.apply(beat, 1.0)

    assert effects == [NodeLost("NA", 1, "restarted"), NodeJoined("NA"), FetchInventory("NA")]
    assert lattice.observed.holdings == {}
    assert lattice.state.apply(delta(2, assignment()), 1.0) == []


def test_node_that_left_is_gone_and_its_late_messages_count_for_nothing() -> None:
    node = Node("NA")
    lattice = Lattice(node)

    assert lattice.state.apply(NodeLeft("NA", 1), 1.0) == [NodeLost("NA", 1, "left")]
    assert lattice.state.apply(node.heartbeat(client_id=9), 1.1) == []
    assert lattice.observed.nodes["NA"].status is NodeStatus.GONE


def test_routers_see_running_replicas_load_zone_and_draining() -> None:
    node = Node("NA", labels={"zone": "east"})
    lattice = Lattice(node)
    lattice.state.apply(delta(1, assignment(running=2, count=3)), 0.0)
    before = lattice.state.placements("greeter")
    node.is_draining = True
    lattice.state.apply(node.heartbeat(load=0.75, inventory=1), 1.0)

    (placement,) = lattice.state.placements("greeter")

    assert before[0].node == "NA"
    assert (placement.running, placement.zone, placement.load, placement.is_draining) == (
        2,
        "east",
        0.75,
        True,
    )
    assert lattice.state.placements("unknown") == ()


def test_draining_and_failed_replicas_take_no_calls() -> None:
    lattice = Lattice(Node("NA"))
    new = assignment(revision="r2", state=AssignmentState.RUNNING.value, generation=2)

    lattice.state.apply(delta(1, assignment(state="draining"), new), 0.0)

    assert running(lattice.state) == {"NA": 1}


def test_calls_end_when_a_connection_that_was_replaced_ends_at_last() -> None:
    node = Node("NA")
    lattice = Lattice(node)
    lattice.state.apply(node.heartbeat(client_id=8), 0.5)

    assert lattice.state.apply(ConnectionEnded("S", 7), 1.0) == [NodeSuspected("NA")]
    assert lattice.state.apply(ConnectionEnded("S", 7), 1.1) == []
    assert lattice.observed.nodes["NA"].is_callable


# Offers


def test_healthy_offers_are_where_a_provider_can_be_called() -> None:
    node = Node("NA")
    lattice = Lattice(node)
    offer = Offer(name="cache", kind="keyvalue-memory", interfaces=("lattice:keyvalue/store",))

    node.assignments.offer([offer])
    lattice.report(node)
    assert [placement.node for placement in lattice.state.placements("cache")] == ["NA"]

    node.assignments.offer([replace(offer, is_healthy=False, reason="no answer")])
    lattice.report(node)
    assert lattice.state.placements("cache") == ()
    assert [found.reason for _, found in lattice.observed.offers["cache"].values()] == ["no answer"]

    node.assignments.offer([])
    lattice.report(node)
    assert lattice.observed.offers == {}


def test_offers_of_a_lost_node_count_again_when_it_is_back() -> None:
    node = Node("NA")
    node.assignments.offer([Offer(name="cache", kind="keyvalue-memory")])
    node.assignments.take_delta()
    lattice = Lattice(node)
    assert [placement.node for placement in lattice.state.placements("cache")] == ["NA"]

    lattice.state.apply(ConnectionEnded("S", 7), 0.1)
    assert lattice.state.placements("cache") == ()

    lattice.state.apply(node.heartbeat(client_id=8), 0.15)
    assert [placement.node for placement in lattice.state.placements("cache")] == ["NA"]


def test_an_offer_under_the_name_of_a_component_is_no_place_to_call_it_whichever_came_first() -> None:
    node = Node("NA")
    lattice = Lattice(node)
    deployed = application("cache")
    offer = Offer(name="cache", kind="keyvalue-memory")
    node.assignments.offer([offer])
    lattice.report(node)
    assert [placement.node for placement in lattice.state.placements("cache")] == ["NA"]

    lattice.state.apply(deployed, 0.0)
    assert lattice.state.placements("cache") == ()

    node.assignments.offer([])
    lattice.report(node)
    node.assignments.offer([offer])
    lattice.report(node)
    assert lattice.state.placements("cache") == ()

    lattice.state.apply(deployed.tombstone(1), 0.0)
    assert [placement.node for placement in lattice.state.placements("cache")] == ["NA"]
