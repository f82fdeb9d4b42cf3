"""The plan settles in any lattice, whatever it is asked for and loses; and it is quick."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lattice.plan import InFlight, plan
from tests.lattice.lattices import Lattice, Node, ask, lose

node_shapes = st.lists(st.tuples(st.integers(0, 6), st.sampled_from("abc")), min_size=0, max_size=6)
component_shapes = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from([None, "a", "b"]), st.sampled_from([None, "zone"])),
    min_size=1,
    max_size=4,
)


def some_lattice(shapes: list[tuple[int, str]]) -> Lattice:
    return Lattice(
        *(
            Node(f"N{index}", capacity=capacity, labels={"zone": zone})
            for index, (capacity, zone) in enumerate(shapes)
        )
    )


def ask_for(lattice: Lattice, components: list[tuple[int, str | None, str | None]], revision: int) -> None:
    for index, (replicas, zone, spread) in enumerate(components):
        labels = {"zone": zone} if zone else {}
        ask(lattice, name=f"c{index}", digest=revision, replicas=replicas, labels=labels, spread=spread)


def check_placed(lattice: Lattice, components: list[tuple[int, str | None, str | None]]) -> None:
    for node, view in lattice.observed.nodes.items():
        held = sum(item.running for item in lattice.nodes[node].assignments.reports().values())
        assert view.places <= view.capacity and (not view.is_live or held <= view.capacity)
    for index, (replicas, zone, _) in enumerate(components):
        placed = lattice.running(f"c{index}")
        assert sum(placed.values()) <= replicas
        assert all(lattice.nodes[node].info.labels["zone"] == zone for node in placed if zone)
        matching = [view for view in lattice.observed.live() if zone in (None, view.zone)]
        if sum(placed.values()) < replicas:
            assert all(view.places == view.capacity for view in matching)


@settings(max_examples=60)
@given(node_shapes, component_shapes, component_shapes)
def test_plan_settles_in_few_rounds_and_keeps_to_capacity_and_labels(
    shapes: list[tuple[int, str]], first: Any, second: Any
) -> None:
    lattice = some_lattice(shapes)

    ask_for(lattice, first, revision=1)
    assert lattice.settle() <= 3
    check_placed(lattice, first)

    # With other labels, what nobody else can hold would stay where it is.
    second = [
        (replicas, zone, spread) for (replicas, _, spread), (_, zone, _) in zip(second, first, strict=False)
    ]
    second += first[len(second) :]
    ask_for(lattice, second, revision=2)
    lattice.settle()
    check_placed(lattice, second)
    assert plan(lattice.desired, lattice.observed, InFlight(), lattice.now) == []


@settings(max_examples=40)
@given(node_shapes, component_shapes, st.sets(st.integers(0, 5)))
def test_plan_is_the_same_for_the_same_state_and_heals_after_losses(
    shapes: list[tuple[int, str]], components: Any, lost: set[int]
) -> None:
    lattice = some_lattice(shapes)
    ask_for(lattice, components, revision=1)
    lattice.settle()
    for index in lost:
        lose(lattice, f"N{index}")

    one, two = (plan(lattice.desired, lattice.observed, InFlight(), 0.0) for _ in range(2))
    assert one == two
    lattice.settle()
    check_placed(lattice, components)


@pytest.mark.slow
def test_change_in_a_large_lattice_is_planned_in_a_tenth_of_a_second() -> None:
    lattice = Lattice(*(Node(f"N{index:04}", capacity=50) for index in range(1000)))
    for index in range(500):
        ask(lattice, name=f"c{index}", digest=index, replicas=20)
    lattice.settle(rounds=100)
    times = []

    for index in range(5):
        lose(lattice, f"N{index:04}")
        begun = time.thread_time()  # others may have the cores for a while
        commands = lattice.plan()
        times.append(time.thread_time() - begun)
        assert commands
        lattice.carry_out(commands)
        lattice.settle()

    assert min(times) < 0.1
