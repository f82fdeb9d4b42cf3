"""A worker runs what its node runs, of what has routes, in the revision that serves there."""

from __future__ import annotations

from collections.abc import Mapping

from lattice.assignments import Assignments, Prepare
from lattice.inventory import Assignment, AssignmentState, Heartbeat
from lattice.model import Application, ComponentSpec, Trigger, TriggerKind, revision_of
from lattice.state import LatticeState
from node.http.mirror import Mirror

NODE = "N" + "A" * 55
WEB = ComponentSpec(name="web", digest="sha256:" + "0" * 64)
NEWER = ComponentSpec(name="web", digest="sha256:" + "1" * 64)


def desire(state: LatticeState, spec: ComponentSpec, *, generation: int = 1, has_route: bool = True) -> None:
    """Have a component wanted."""
    trigger = Trigger(component=spec.name, kind=TriggerKind.HTTP)
    application = Application(
        name=spec.name,
        incarnation=1,
        generation=generation,
        components=(spec,),
        triggers=(trigger,) if has_route else (),
    )
    state.desired.merge(application)


def run(state: LatticeState, running: Mapping[str, tuple[ComponentSpec, int]]) -> None:
    """Have the node run so many replicas of these revisions; by name of nothing."""
    view = state.observed.nodes.get(NODE)
    assert view is not None
    assignments = [
        Assignment(
            component=spec.name,
            revision=revision_of(spec),
            digest=spec.digest,
            count=count,
            running=count,
            state=AssignmentState.RUNNING if count else AssignmentState.PREPARING,
        )
        for spec, count in running.values()
    ]
    state.observed.replace(view, assignments, 0.0)


def known() -> LatticeState:
    """A state that has heard of the node."""
    state = LatticeState()
    state.apply(Heartbeat(node=NODE, boot=1, beat=1), 0.0)
    return state


def test_what_serves_on_the_node_is_ordered_once() -> None:
    state, mirror = known(), Mirror(NODE, 1)
    desire(state, WEB)
    assert mirror.orders(state) == []

    run(state, {"a": (WEB, 2)})
    [order] = mirror.orders(state)

    assert (order.component, order.count, order.spec, order.revision) == ("web", 2, WEB, revision_of(WEB))
    assert mirror.orders(state) == []


def test_what_has_no_route_is_not_run() -> None:
    state = known()
    desire(state, WEB, has_route=False)
    run(state, {"a": (WEB, 1)})

    assert Mirror(NODE, 1).orders(state) == []


def test_a_new_revision_is_taken_when_the_node_serves_it() -> None:
    state, mirror = known(), Mirror(NODE, 1)
    desire(state, WEB)
    run(state, {"a": (WEB, 1)})
    mirror.orders(state)

    desire(state, NEWER, generation=2)
    run(state, {"a": (WEB, 1), "b": (NEWER, 0)})
    assert mirror.orders(state) == []
    run(state, {"b": (NEWER, 1)})
    [order] = mirror.orders(state)

    assert order.spec == NEWER and order.version > (1, 1)


def test_what_the_node_stops_is_stopped() -> None:
    state, mirror = known(), Mirror(NODE, 1)
    desire(state, WEB)
    run(state, {"a": (WEB, 1)})
    mirror.orders(state)

    run(state, {})
    [order] = mirror.orders(state)

    assert (order.component, order.count) == ("web", 0)


def test_what_loses_its_route_is_stopped() -> None:
    state, mirror = known(), Mirror(NODE, 1)
    desire(state, WEB)
    run(state, {"a": (WEB, 1)})
    mirror.orders(state)
    desire(state, WEB, generation=2, has_route=False)

    assert [order.count for order in mirror.orders(state)] == [0]


def test_its_own_assignments_take_the_orders() -> None:
    state, mirror, assignments = known(), Mirror(NODE, 1), Assignments(NODE, 1)
    desire(state, WEB)
    run(state, {"a": (WEB, 1)})

    replies = [assignments.order(order) for order in mirror.orders(state)]
    run(state, {})
    replies += [assignments.order(order) for order in mirror.orders(state)]

    assert all(reply.is_accepted for reply, _ in replies)
    assert isinstance(replies[0][1][0], Prepare)
