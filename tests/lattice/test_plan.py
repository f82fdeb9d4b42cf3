"""The plan brings what runs to what is asked for, and moves nothing without need."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lattice.errors import Invalid
from lattice.explain import explain
from lattice.imports import Catalog, check_offer, grant_line, missing_imports
from lattice.inventory import Offer
from lattice.model import Link
from lattice.orders import CompileAhead, Order
from tests.lattice.lattices import Lattice, Node, ask, digest, lose, nodes, orders, zoned

# Placing


def test_replicas_are_spread_over_nodes() -> None:
    lattice = Lattice(*nodes(3))
    ask(lattice, replicas=7)

    lattice.settle()

    assert sorted(lattice.running().values()) == [2, 2, 3]


def test_replicas_are_balanced_over_a_label() -> None:
    lattice = Lattice(*zoned("a", "a", "a", "b"))
    ask(lattice, replicas=6, spread="zone")

    lattice.settle()

    assert lattice.running() == {"N0": 1, "N1": 1, "N2": 1, "N3": 3}


def test_the_least_full_node_is_chosen() -> None:
    lattice = Lattice(Node("N0", capacity=10), Node("N1", capacity=100))
    ask(lattice, replicas=4)
    lattice.settle()

    ask(lattice, name="other", digest=2)
    lattice.settle()

    assert lattice.running("other") == {"N1": 1}


def test_only_nodes_with_the_labels_are_chosen() -> None:
    lattice = Lattice(*zoned("a", "b"))
    ask(lattice, replicas=3, labels={"zone": "b"})

    lattice.settle()

    assert lattice.running() == {"N1": 3}


def test_capacity_is_never_exceeded() -> None:
    lattice = Lattice(*nodes(2, capacity=3))
    ask(lattice, replicas=10)

    lattice.settle()

    assert lattice.running() == {"N0": 3, "N1": 3}


def test_node_whose_inventory_is_unknown_is_not_planned_with() -> None:
    lattice = Lattice(Node("N0"))
    lattice.state.apply(Node("N1").heartbeat(), 0.0)
    ask(lattice, replicas=2)

    lattice.settle()

    assert lattice.running() == {"N0": 2}


def test_what_runs_stays_when_a_node_joins() -> None:
    lattice = Lattice(*nodes(1))
    ask(lattice, replicas=4)
    lattice.settle()

    lattice.join(Node("N9"))
    lattice.settle()

    assert lattice.running() == {"N0": 4}


def test_lost_replicas_are_placed_again_on_a_node_that_is_ready() -> None:
    lattice = Lattice(*nodes(5))
    ask(lattice, replicas=1, spares=1)
    lattice.settle()
    (holder,) = lattice.running()
    ready = lattice.observed.compiled[digest(1)] - {holder}

    lose(lattice, holder)
    lattice.settle()

    assert set(lattice.running()) == ready


def test_surplus_of_a_node_that_came_back_is_dropped() -> None:
    lattice = Lattice(*nodes(3))
    ask(lattice, replicas=4)
    lattice.settle()
    lose(lattice, "N0")
    lattice.observed.nodes["N0"].lost_reason = "silent"
    lattice.settle()
    assert sum(lattice.running().values()) == 4

    lattice.state.apply(
        lattice.nodes["N0"].heartbeat(inventory=lattice.nodes["N0"].assignments.inventory), 1.0
    )
    assert sum(lattice.running().values()) == 6
    lattice.settle()

    assert sorted(lattice.running().values()) == [1, 1, 2]


def test_scaling_down_keeps_the_spread() -> None:
    lattice = Lattice(*zoned("a", "a", "b"))
    ask(lattice, replicas=8, spread="zone")
    lattice.settle()

    ask(lattice, replicas=2, spread="zone")
    lattice.settle()

    zones = {lattice.nodes[node].info.labels["zone"]: count for node, count in lattice.running().items()}
    assert zones == {"a": 1, "b": 1}


def test_scaling_to_zero_stops_all_and_back_starts_again() -> None:
    lattice = Lattice(*nodes(2))
    for replicas in (3, 0, 2):
        ask(lattice, replicas=replicas)
        lattice.settle()
        assert sum(lattice.running().values()) == replicas


# Commands in flight


def test_nothing_is_sent_twice_until_it_expires() -> None:
    lattice = Lattice(*nodes(2))
    ask(lattice, replicas=2)

    first = orders(lattice.plan())

    assert first == {"N0": 1, "N1": 1}
    assert lattice.plan() == []
    lattice.now += 2.1
    lattice.join(lattice.nodes["N0"])  # both are heard of again
    lattice.join(lattice.nodes["N1"])
    assert orders(lattice.plan()) == first


def test_report_of_an_order_confirms_it() -> None:
    lattice = Lattice(*nodes(1))
    ask(lattice, spares=0)

    lattice.carry_out(lattice.plan())

    assert lattice.in_flight.settle(lattice.observed, lattice.now)
    assert len(lattice.in_flight) == 0


def test_order_in_flight_to_a_node_that_is_lost_is_given_to_another() -> None:
    lattice = Lattice(*nodes(2))
    ask(lattice)
    (node,) = orders(lattice.plan())

    lose(lattice, node)

    assert set(orders(lattice.plan())) == {"N0", "N1"} - {node}


def test_capacity_counts_what_is_in_flight() -> None:
    lattice = Lattice(*nodes(1, capacity=3))
    ask(lattice, replicas=2)
    lattice.plan()

    ask(lattice, name="other", replicas=2)

    assert orders(lattice.plan()) == {"N0": 1}


# Spares


def test_spares_compile_ahead_on_other_nodes_of_different_groups() -> None:
    lattice = Lattice(*zoned("a", "a", "b", "b", "c", "c"))
    ask(lattice, spread="zone", spares=3)

    commands = lattice.plan()

    holders = set(orders(commands))
    ahead = {command.node for command in commands if isinstance(command, CompileAhead)}
    assert len(ahead) == 3 and not ahead & holders
    assert {lattice.nodes[node].info.labels["zone"] for node in ahead} == {"a", "b", "c"}


def test_lost_spare_is_replaced() -> None:
    lattice = Lattice(*nodes(4))
    ask(lattice, spares=1)
    lattice.settle()
    (spare,) = lattice.observed.compiled[digest(1)] - set(lattice.running())

    lose(lattice, spare)
    lattice.settle()

    assert len(lattice.observed.compiled[digest(1)]) == 2


# Draining


def test_draining_node_is_emptied_only_after_its_replacements_run() -> None:
    lattice = Lattice(*nodes(2))
    ask(lattice, replicas=2)
    lattice.settle()
    drain(lattice, "N0")

    commands = lattice.plan()
    assert orders(commands) == {"N1": 2}
    lattice.carry_out(commands)
    assert orders(lattice.plan()) == {"N0": 0}


def test_draining_node_keeps_serving_when_nobody_can_take_over() -> None:
    lattice = Lattice(*nodes(1))
    ask(lattice, replicas=2)
    lattice.settle()

    drain(lattice, "N0")
    lattice.settle()

    assert lattice.running() == {"N0": 2}


def drain(lattice: Lattice, node_id: str) -> None:
    node = lattice.nodes[node_id]
    node.is_draining = True
    lattice.state.apply(node.heartbeat(), lattice.now)


def test_node_that_no_longer_matches_the_labels_is_emptied_after_others_serve() -> None:
    lattice = Lattice(*zoned("a", "b"))
    ask(lattice, labels={"zone": "a"})
    lattice.settle()
    assert lattice.running() == {"N0": 1}

    ask(lattice, labels={"zone": "b"})
    lattice.settle()

    assert lattice.running() == {"N1": 1}


# Updates and failures


def test_new_revision_rolls_one_node_of_four_at_a_time() -> None:
    lattice = Lattice(*nodes(4))
    ask(lattice, replicas=8)
    lattice.settle()

    ask(lattice, replicas=8, digest=2)
    rounds = 0
    while commands := [command for command in lattice.plan() if isinstance(command, Order)]:
        assert len(commands) == 1
        lattice.carry_out(commands)
        assert sum(lattice.running().values()) == 8
        rounds += 1

    assert rounds == 4
    assert lattice.observed.running("greeter", lattice.desired.components["greeter"].revision) == 8


def test_old_revision_goes_on_serving_when_the_new_one_fails_everywhere() -> None:
    lattice = Lattice(*nodes(3))
    ask(lattice, replicas=3)
    lattice.settle()
    for node in lattice.nodes.values():
        node.fails = {digest(2)}

    ask(lattice, replicas=3, digest=2)
    for _ in range(20):
        lattice.carry_out(lattice.plan())
        lattice.pass_time(0.5)
        assert sum(lattice.running().values()) == 3


def test_node_that_fails_is_not_asked_again_before_its_backoff_and_another_is_tried() -> None:
    lattice = Lattice(*nodes(2))
    lattice.nodes["N0"].fails = {digest(1)}
    ask(lattice)

    lattice.settle()

    assert lattice.running() == {"N1": 1}
    assert lattice.observed.failures["N0", "greeter", lattice.desired.components["greeter"].revision]


def test_component_that_fails_everywhere_is_not_tried_on_every_node() -> None:
    lattice = Lattice(*nodes(20))
    for node in lattice.nodes.values():
        node.fails = {digest(1)}
    ask(lattice, spares=0)

    lattice.settle()

    assert len(lattice.observed.failures) == 5


# What is not asked for


def test_deleted_component_is_stopped() -> None:
    lattice = Lattice(*nodes(2))
    ask(lattice, replicas=2)
    lattice.settle()

    lattice.state.apply(lattice.desired.applications["greeter"].tombstone(1), 0.0)
    lattice.settle()

    assert lattice.running() == {}


def test_unknown_component_is_left_alone_while_desired_state_is_incomplete() -> None:
    lattice = Lattice(*nodes(1))
    ask(lattice)
    lattice.settle()
    forgetful = Lattice()
    forgetful.join(lattice.nodes["N0"])

    forgetful.desired.is_complete = False
    assert forgetful.plan() == []
    forgetful.desired.is_complete = True
    assert orders(forgetful.plan()) == {"N0": 0}


# Imports


def test_missing_import_keeps_a_component_from_being_placed() -> None:
    lattice = Lattice(*nodes(1))
    imports = {digest(1): ("wasi:io/streams@0.2.0", "demo:store/keys@0.1.0")}
    lattice.catalog = Catalog(imports=imports)
    ask(lattice)
    assert orders(lattice.plan()) == {}

    (pending,) = explain("greeter", lattice.desired, lattice.observed, 0.0, lattice.catalog)
    assert pending.count == 1
    assert "latticectl link put greeter demo:store/keys TARGET" in pending.reason

    link = Link(source="greeter", interface="demo:store/keys", target="store")
    present = lattice.desired.applications["greeter"]
    lattice.state.apply(present.changed(components=present.components, links=[link]), 0.0)
    assert orders(lattice.plan()) == {"N0": 1}


def test_a_component_runs_only_where_its_folders_are_open_wide_enough() -> None:
    first, second, third = nodes(3)
    first.info = replace(first.info, folders={"photos": "ro"})
    second.info = replace(second.info, folders={"photos": "rw"})
    lattice = Lattice(first, second, third)
    ask(lattice, replicas=4, folders=[{"folder": "photos", "path": "/data", "writable": True}])
    assert orders(lattice.plan()) == {"N1": 4}

    ask(lattice, replicas=4, folders=[{"folder": "music", "path": "/data"}])
    lattice.settle()
    (pending,) = explain("greeter", lattice.desired, lattice.observed, 0.0, lattice.catalog)
    assert "lattice-node start --folder music=PATH" in pending.reason


def test_provider_processes_hold_no_components_and_compile_none_ahead() -> None:
    lattice = Lattice(Node("N0"), Node("NP", capacity=0))
    ask(lattice, spares=2)

    assert {command.node for command in lattice.plan()} == {"N0"}


def test_a_link_of_a_package_satisfies_all_its_imports() -> None:
    link = Link(source="a", interface="wasi:keyvalue", target="keyvalue-nats")
    imports = [
        "wasi:keyvalue/store@0.2.0-draft",
        "wasi:keyvalue/atomics@0.2.0-draft",
        "wasi:blobstore/container",
    ]

    assert missing_imports(imports, [link], lambda name: False) == ["wasi:blobstore/container"]


def test_the_line_that_grants_an_import_names_a_provider_that_serves_it() -> None:
    assert (
        grant_line("a", "wasi:keyvalue/store@0.2.0-draft")
        == "latticectl link put a wasi:keyvalue keyvalue-nats"
    )
    assert grant_line("a", "demo:x/y@1.0.0") == "latticectl link put a demo:x/y TARGET"


@pytest.mark.parametrize(
    ("imported", "offered", "is_served"),
    [
        ("wasi:keyvalue/atomics@0.2.0-draft", "lattice:keyvalue/store", True),
        ("wasi:blobstore/container@0.2.0-draft", "lattice:keyvalue/store", False),
        ("demo:prices/quotes@1.0.0", "demo:prices/quotes@1.2.0", True),
        ("demo:prices/quotes@1.0.0", "demo:prices/orders@1.0.0", False),
    ],
)
def test_a_provider_must_serve_what_a_link_to_it_covers(imported: str, offered: str, is_served: bool) -> None:
    offer = Offer(name="p", kind="k", interfaces=(offered,))
    link = Link(source="a", interface=imported, target="p")

    if is_served:
        check_offer(link, [imported], offer)
    else:
        with pytest.raises(Invalid, match="does not serve"):
            check_offer(link, [imported], offer)


def test_links_satisfy_imports_of_any_version() -> None:
    link = Link(source="a", interface="demo:store/keys@0.1.0", target="b")

    missing = missing_imports(
        ["demo:store/keys@0.1.3", "demo:x/y", "wasi:a/b"], [link], {"wasi:a/b"}.__contains__
    )

    assert missing == ["demo:x/y"]
