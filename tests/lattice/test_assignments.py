"""A node does what the latest order says, serves until the new revision runs, and reports every change."""

from __future__ import annotations

from lattice.assignments import Assignments, Cancel, Drain, Prepare, Run
from lattice.inventory import AssignmentState, NodeInfo
from lattice.orders import Order
from tests.lattice.lattices import spec


class Told:
    """Assignments and the orders for them, versions counted."""

    def __init__(self) -> None:
        self.assignments = Assignments("NA", 1)
        self.generation = 0

    def order(self, count: int, revision: str = "r1") -> list[object]:
        self.generation += 1
        _, steps = self.assignments.order(self.make(count, revision))
        return list(steps)

    def make(self, count: int, revision: str = "r1") -> Order:
        return Order(
            node="NA", boot=1, component="greeter", revision=revision, count=count,
            spec=spec() if count else None, fence=1, generation=self.generation,
        )  # fmt: skip

    def run(self, count: int, revision: str = "r1") -> int:
        """Order it and do all of it; returns the life."""
        (prepare,) = self.order(count, revision)
        assert isinstance(prepare, Prepare)
        self.assignments.prepared(prepare.life)
        self.assignments.running(prepare.life, count)
        return prepare.life

    def states(self) -> dict[str, tuple[str, int, int]]:
        reports = self.assignments.reports().values()
        return {item.revision: (item.state.value, item.count, item.running) for item in reports}


def test_order_is_prepared_then_run_then_reported_as_running() -> None:
    told = Told()

    (prepare,) = told.order(2)
    assert isinstance(prepare, Prepare)
    assert told.states() == {"r1": ("preparing", 2, 0)}
    assert told.assignments.prepared(prepare.life) == [Run(life=prepare.life, component="greeter", count=2)]
    assert told.assignments.running(prepare.life, 2) == []

    assert told.states() == {"r1": ("running", 2, 2)}


def test_repeated_order_does_nothing_again() -> None:
    told = Told()
    told.order(2)

    reply, steps = told.assignments.order(told.make(2))

    assert reply.is_accepted
    assert steps == []


def test_scaling_runs_another_count_of_the_same_life() -> None:
    told = Told()
    life = told.run(2)

    assert told.order(3) == [Run(life=life, component="greeter", count=3)]
    assert told.order(2) == [Run(life=life, component="greeter", count=2)]  # though three never ran


def test_old_revision_serves_until_the_new_one_runs() -> None:
    told = Told()
    old = told.run(2)

    (prepare,) = told.order(2, "r2")
    assert isinstance(prepare, Prepare)
    told.assignments.prepared(prepare.life)
    assert told.states() == {"r1": ("running", 2, 2), "r2": ("starting", 2, 0)}

    assert told.assignments.running(prepare.life, 2) == [Drain(life=old, component="greeter")]
    told.assignments.drained(old)
    assert told.states() == {"r2": ("running", 2, 2)}


def test_old_revision_goes_on_serving_when_the_new_one_fails() -> None:
    told = Told()
    told.run(2)

    (prepare,) = told.order(2, "r2")
    assert isinstance(prepare, Prepare)
    told.assignments.failed(prepare.life, "x" * 5_000)

    assert told.states() == {"r1": ("running", 2, 2), "r2": ("failed", 2, 0)}
    assert len(told.assignments.reports()["greeter", "r2"].reason) == 2_000


def test_failed_revision_is_prepared_again_when_ordered_again() -> None:
    told = Told()
    (first,) = told.order(1)
    assert isinstance(first, Prepare)
    told.assignments.failed(first.life, "no")

    (second,) = told.order(1)

    assert isinstance(second, Prepare)
    assert second.life != first.life
    told.assignments.failed(first.life, "late news of the first life")
    assert told.states() == {"r1": ("preparing", 1, 0)}


def test_order_for_a_third_revision_cancels_the_second() -> None:
    told = Told()
    told.run(1)
    (second,) = told.order(1, "r2")
    assert isinstance(second, Prepare)

    steps = told.order(1, "r3")

    assert Cancel(life=second.life, component="greeter") in steps
    assert set(told.states()) == {"r1", "r3"}


def test_going_back_to_the_revision_that_serves_cancels_the_new_one() -> None:
    told = Told()
    told.run(1)
    told.order(1, "r2")

    (cancel,) = told.order(1, "r1")

    assert isinstance(cancel, Cancel)
    assert told.states() == {"r1": ("running", 1, 1)}


def test_stop_drains_what_runs_and_cancels_what_begins() -> None:
    told = Told()
    life = told.run(1)
    told.order(1, "r2")

    steps = told.order(0)

    assert Drain(life=life, component="greeter") in steps
    assert told.states() == {"r1": ("draining", 0, 1)}
    assert told.assignments.reports()["greeter", "r1"].order == (1, 3)
    told.assignments.drained(life)
    assert len(told.assignments) == 0


def test_revision_that_drains_can_be_ordered_again() -> None:
    told = Told()
    old = told.run(1)
    told.order(0)

    told.run(1)

    assert told.states() == {"r1": ("running", 1, 1)}
    told.assignments.drained(old)
    assert told.states() == {"r1": ("running", 1, 1)}


def test_draining_node_begins_nothing_new() -> None:
    told = Told()
    told.run(2)
    told.assignments.is_draining = True

    assert told.order(1) != []
    told.generation += 1
    reply, steps = told.assignments.order(told.make(1, "r2"))

    assert not reply.is_accepted and "draining" in reply.reason
    assert steps == []


def test_each_change_is_one_version_of_the_inventory() -> None:
    told = Told()
    assert told.assignments.take_delta() is None
    told.run(1)
    told.assignments.compiled("sha256:x")

    first = told.assignments.take_delta()
    assert first is not None and first.inventory == 1
    assert [item.state for item in first.changed] == [AssignmentState.RUNNING]
    assert first.compiled == ("sha256:x",)
    assert told.assignments.take_delta() is None

    told.assignments.evicted("sha256:x")
    second = told.assignments.take_delta()
    assert second is not None and (second.inventory, second.evicted) == (2, ("sha256:x",))


def test_large_inventory_comes_in_pages_of_one_version() -> None:
    assignments = Assignments("NA", 1)
    for number in range(450):
        assignments.compiled(f"sha256:{number}")
    assignments.take_delta()

    pages = assignments.pages(NodeInfo(id="NA", name="a", boot=1))

    assert [(page.page, page.pages, page.inventory) for page in pages] == [(0, 3, 1), (1, 3, 1), (2, 3, 1)]
    assert sum(len(page.compiled) for page in pages) == 450
