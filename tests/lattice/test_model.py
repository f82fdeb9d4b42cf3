"""Values are checked wherever they come from, survive their dict form, and know which version wins."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.errors import Invalid
from lattice.fields import refuse_unknown
from lattice.inventory import Assignment, AssignmentState, Heartbeat, InventoryPage, NodeInfo
from lattice.model import Application, ComponentSpec, Limits, Link, new_application, revision_of
from lattice.orders import Order
from tests.lattice.lattices import application, digest, spec

LINK = Link(source="greeter", interface="demo:store/keys@0.1.0", target="store")

VALUES = [
    application(labels={"zone": "a"}, spread="zone", environment={"A": "b"}, limits={"reuse": 7}),
    new_application("x", None, 5, components=[spec()], links=[LINK]),
    application().tombstone(12),
    Assignment(component="x", revision="r", digest=digest(1), count=2, state=AssignmentState.FAILED),
    InventoryPage(info=NodeInfo(id="NA", name="a", boot=1, labels={"zone": "b"}), inventory=3),
    Order(node="NA", boot=1, component="greeter", revision="r", count=1, spec=spec(), links=(LINK,), fence=3),
    Heartbeat(node="NA", boot=1, beat=1, load=0.5),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_value_survives_msgpack(value: Any) -> None:
    packed = msgpack.packb(value.to_dict())

    assert type(value).from_dict(msgpack.unpackb(packed)) == value


def test_fields_of_newer_peers_are_ignored_and_missing_ones_get_defaults() -> None:
    data = {"name": "x", "digest": digest(1), "colour": "blue", "limits": {"reuse": 2, "gravity": 9}}

    assert ComponentSpec.from_dict(data) == ComponentSpec(name="x", digest=digest(1), limits=Limits(reuse=2))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": "Not A Name"}, "component name"),
        ({"name": 3}, "components[0].name must be a string"),
        ({"digest": "sha256:12"}, "64 hexadecimal"),
        ({"replicas": -1}, "use 0 to 100000"),
        ({"replicas": 1_000_000}, "use 0 to 100000"),
        ({"replicas": True}, "must be an integer"),
        ({"replicas": None}, "not nothing"),
        ({"labels": {"zo ne": "a"}}, "label key"),
        ({"labels": ["a"]}, "components[0].labels must be a map"),
        ({"spread": "a b"}, "label key"),
        ({"limits": {"memory_bytes": 1}}, "limits.memory_bytes"),
        ({"limits": {"budget_seconds": "long"}}, "components[0].limits.budget_seconds must be a number"),
        ({"limits": {"budget_seconds": float("nan")}}, "must be a number"),
        ({"environment": {"A=B": "c"}}, "environment variable"),
        ({"environment": {"A": "\0"}}, "environment variable"),
    ],
)
def test_wrong_field_is_named_with_its_rule(change: dict[str, Any], named: str) -> None:
    component = {"name": "x", "digest": digest(1), **change}

    with pytest.raises(Invalid) as error:
        Application.from_dict({"name": "x", "incarnation": 1, "components": [component]})

    assert named in error.value.message


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"name": "x"}, "incarnation is missing"),
        ({"name": "x", "incarnation": 0}, "incarnation"),
        ({"name": "x", "incarnation": 1, "components": [spec().to_dict()] * 2}, "twice"),
        ({"name": "x", "incarnation": 1, "links": [LINK.to_dict()]}, "not a component"),
        ("x", "must be a map"),
    ],
)
def test_wrong_application_is_refused(data: Any, named: str) -> None:
    with pytest.raises(Invalid) as error:
        Application.from_dict(data)

    assert named in error.value.message


def test_link_interface_must_be_an_interface() -> None:
    with pytest.raises(Invalid, match="namespace:package/interface"):
        Link(source="a", interface="not an interface", target="b")


def test_two_links_of_one_identity_are_refused_whatever_their_versions() -> None:
    other = Link(source="greeter", interface="demo:store/keys@0.2.0", target="other")

    with pytest.raises(Invalid, match="twice"):
        new_application("x", None, 1, components=[spec()], links=[LINK, other])


def test_mistyped_setting_suggests_the_nearest() -> None:
    with pytest.raises(Invalid, match="did you mean `memory_bytes`"):
        refuse_unknown(Limits, {"memory_byte": 1}, "limits")


def test_revision_changes_with_what_changes_how_it_runs_and_with_nothing_else() -> None:
    base = revision_of(spec())

    for same in (
        spec(replicas=9, labels={"zone": "a"}, spread="zone", spares=0),
        spec(configuration={"a": "b"}, secrets={"a": "b"}, allow_hosts=["example.com"]),
    ):
        assert revision_of(same) == base
    folder = {"folder": "data", "path": "/data"}
    for changed in (
        spec(digest=2),
        spec(limits={"reuse": 2}),
        spec(environment={"A": "b"}),
        spec(folders=[folder]),
        spec(folders=[{**folder, "writable": True}]),
        spec(network=["tcp:10.0.0.1:80"]),
    ):
        assert revision_of(changed) != base


def test_new_application_is_above_all_that_had_its_name() -> None:
    deleted = new_application("x", None, 5_000, components=[]).tombstone(9_000)

    again = new_application("x", deleted, 1_000, components=[spec()])  # by a clock that is behind

    assert again.incarnation == 5_001
    assert again.supersedes(deleted)


def test_tombstone_is_forgettable_after_seven_days() -> None:
    deleted = application().tombstone(1_000)

    assert not deleted.is_forgettable(1_000 + 7 * 24 * 3600 * 1000)
    assert deleted.is_forgettable(1_001 + 7 * 24 * 3600 * 1000)
    assert not application().is_forgettable(10**15)


copies = st.builds(
    lambda incarnation, generation, replicas, is_deleted: Application(
        name="x",
        incarnation=incarnation,
        generation=generation,
        components=() if is_deleted else (spec(replicas=replicas),),
        deleted_at=1 if is_deleted else None,
    ),
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(0, 2),
    st.booleans(),
)


@given(copies, copies, copies)
def test_supersedes_is_a_total_order(a: Application, b: Application, c: Application) -> None:
    assert not a.supersedes(a)
    assert a == b or a.supersedes(b) != b.supersedes(a)
    if a.supersedes(b) and b.supersedes(c):
        assert a.supersedes(c)


def test_heartbeat_is_under_a_kilobyte() -> None:
    large = 2**62
    counters = ("boot", "beat", "client_id", "inventory", "fence", "calls_in_flight", "replicas", "copies")
    ids = {"node": "N" * 56, "server_id": "N" * 56}
    heartbeat = Heartbeat.from_dict({**ids, **dict.fromkeys(counters, large), "memory_bytes": large})

    assert len(msgpack.packb(heartbeat.to_dict())) < 1024


def test_an_order_for_one_component_does_not_bring_the_spec_of_another() -> None:
    with pytest.raises(Invalid, match="spec is of 'greeter' in an order for 'x'"):
        Order(node="NA", boot=1, component="x", revision="r", count=1, spec=spec())
