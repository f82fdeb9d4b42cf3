"""Subjects: what is built can be parsed back exactly, and nothing else can be parsed."""

from __future__ import annotations

import contextlib
import string
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice import subjects
from lattice.errors import Invalid

NODE = "NBX7F4WTGJ6UBSWIBRVJDJMXOQ4PKCYCJD7ZZXGHHV6QX5V2YAWXNM3U"
STREAM = "0123456789abcdef0123456789abcdef"

names = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
words = st.from_regex(r"[a-z][a-z0-9]{0,6}(?:-[a-z0-9]{1,4}){0,2}", fullmatch=True)
versions = st.from_regex(
    r"[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{1,2}(?:-[a-z]{1,5}(?:\.[0-9])?)?(?:\+b\.1)?", fullmatch=True
)
interfaces = st.one_of(
    st.just("-"),
    words,
    st.builds("{}:{}/{}".format, words, words, words),
    st.builds("{}:{}/{}@{}".format, words, words, words, versions),
)
nodes = st.text(string.ascii_uppercase + "234567", min_size=56, max_size=56)
streams = st.text("0123456789abcdef", min_size=32, max_size=32)
lower = st.from_regex(r"[a-z]{1,8}(?:-[a-z]{1,4})?", fullmatch=True)


@given(names, names, interfaces, words)
def test_a_call_subject_round_trips(lattice: str, component: str, interface: str, function: str) -> None:
    built = subjects.call(lattice, component, interface, function)

    assert built.count(".") == 6
    assert subjects.parse_call(built) == subjects.Call(
        lattice=lattice, component=component, interface=interface, function=function
    )


@given(names, nodes, names, interfaces, words)
def test_a_node_call_subject_round_trips(
    lattice: str, node: str, component: str, interface: str, function: str
) -> None:
    built = subjects.node_call(lattice, node, component, interface, function)

    assert subjects.parse_call(built) == subjects.Call(
        lattice=lattice, node=node, component=component, interface=interface, function=function
    )


@given(names, nodes, names, lower, lower, streams)
def test_all_other_subjects_round_trip(
    lattice: str, node: str, component: str, noun: str, verb: str, stream: str
) -> None:
    name = f"{noun}.{verb}"
    of_node = {"lattice": lattice, "node": node}
    made: dict[str, subjects.Subject] = {
        subjects.control(lattice, name): subjects.Control(lattice=lattice, operation=name),
        subjects.control(lattice, noun): subjects.Control(lattice=lattice, operation=noun),
        subjects.node_control(lattice, node, name): subjects.Control(
            lattice=lattice, node=node, operation=name
        ),
        subjects.heartbeat(lattice, node): subjects.Announcement(
            lattice=lattice, kind="heartbeat", node=node
        ),
        subjects.delta(lattice, node): subjects.Announcement(**of_node, kind="delta"),
        subjects.order(lattice, node): subjects.Request(**of_node, kind="order"),
        subjects.inventory(lattice, node): subjects.Request(**of_node, kind="inventory"),
        subjects.ping(lattice, node): subjects.Request(**of_node, kind="ping"),
        subjects.event(lattice, name): subjects.Event(lattice=lattice, event=name),
        subjects.log(lattice, component): subjects.Log(lattice=lattice, component=component),
        subjects.stream_data(lattice, node, stream): subjects.Stream(
            lattice=lattice, owner=node, stream=stream, part="data"
        ),
        subjects.stream_credit(lattice, node, stream): subjects.Stream(
            lattice=lattice, owner=node, stream=stream, part="credit"
        ),
    }

    assert {built: subjects.parse(built) for built in made} == made


def test_subjects_have_the_documented_shapes() -> None:
    assert subjects.call("prod", "greeter", "demo:greeter/greet@1.2.0", "hello") == (
        "lattice.1.prod.call.greeter.demo:greeter/greet@1_2_0.hello"
    )
    assert subjects.call("prod", "greeter", "-", "hello") == "lattice.1.prod.call.greeter.-.hello"
    assert subjects.node_call("prod", NODE, "greeter", "demo:greeter/greet", "hello") == (
        f"lattice.1.prod.node.{NODE}.call.greeter.demo:greeter/greet.hello"
    )
    assert subjects.event("prod", ">") == "lattice.1.prod.event.>"
    assert subjects.state_bucket("prod") == "LATTICE_prod_state"
    assert subjects.lease_bucket("prod") == "LATTICE_prod_lease"
    assert subjects.artifacts_bucket("prod") == "LATTICE_prod_artifacts"


@given(st.text(string.ascii_letters + string.digits + ".*>:/@_-[] \n", max_size=80))
def test_what_can_be_parsed_is_what_can_be_built(rest: str) -> None:
    subject = f"lattice.1.prod.call.{rest}"
    try:
        parsed = subjects.parse_call(subject)
    except Invalid:
        return

    assert subjects.call(parsed.lattice, parsed.component, parsed.interface, parsed.function) == subject


@given(st.text(max_size=100))
def test_hostile_subjects_raise_invalid_and_nothing_else(text: str) -> None:
    for subject in (text, f"lattice.1.{text}", f"lattice.1.prod.{text}", f"lattice.1.prod.node.{text}"):
        with contextlib.suppress(Invalid):
            subjects.parse(subject)


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "foo.bar",
        "_INBOX.abc",
        "lattice",
        "lattice.1",
        "lattice.2.prod.call.a.-.b",
        "lattice.1.prod.call.a.-",
        "lattice.1.prod.call.a.-.b.c",
        "lattice.1.prod.call.*.*.*",
        "lattice.1.prod.call.a.b_c.d",
        "lattice.1.prod.call.A.-.b",
        "lattice.1.prod.call.a.-.[method]r_f",
        "lattice.1.PROD.call.a.-.b",
        "lattice.1.prod.node..order",
        "lattice.1.prod.stream.N.short.data",
        "lattice.1.prod.stream.N." + STREAM + ".other",
        "lattice.1.prod.call." + "a" * 2000,
    ],
)
def test_foreign_and_malformed_subjects_are_refused(subject: str) -> None:
    with pytest.raises(Invalid):
        subjects.parse(subject)


@pytest.mark.parametrize("bad", ["", "a.b", "a*", ">", "a b", "*", "a\n", "ä", "a" * 300])
@pytest.mark.parametrize(
    "build",
    [
        lambda bad: subjects.call(bad, "c", "-", "f"),
        lambda bad: subjects.call("l", bad, "-", "f"),
        lambda bad: subjects.call("l", "c", "-", bad),
        lambda bad: subjects.call("l", "c", f"demo:x/{bad}", "f"),
        lambda bad: subjects.node_call("l", bad, "c", "-", "f"),
        lambda bad: subjects.event("l", f"node.{bad}"),
        lambda bad: subjects.control("l", f"link.{bad}"),
        lambda bad: subjects.stream_data("l", NODE, bad),
        lambda bad: subjects.state_bucket(bad),
    ],
)
def test_no_name_adds_a_token_or_a_wildcard(build: Callable[[str], str], bad: str) -> None:
    with pytest.raises(Invalid) as caught:
        build(bad)

    assert "is not" in caught.value.message


def test_functions_of_resources_are_refused_for_calls() -> None:
    with pytest.raises(Invalid, match="resource"):
        subjects.call("l", "c", "demo:x/y", "[method]thing.get")


def test_a_newer_wire_version_is_named() -> None:
    with pytest.raises(Invalid, match="wire version 2"):
        subjects.parse("lattice.2.prod.call.a.-.b")


def test_parsing_a_call_is_cheap() -> None:
    subject = subjects.node_call("prod", NODE, "greeter", "demo:greeter/greet@1.2.0", "hello")
    subjects.parse_call(subject)

    best = min(_seconds(lambda: subjects.parse_call(subject)) for _ in range(5))

    assert best < 2e-6


def _seconds(function: Callable[[], object], rounds: int = 1000) -> float:
    start = time.perf_counter()
    for _ in range(rounds):
        function()
    return (time.perf_counter() - start) / rounds
