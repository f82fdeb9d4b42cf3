"""Where a source's links are looked up, and what is said when it has none: for components and for jobs."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from lattice.caller import Caller
from lattice.errors import Denied
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.model import Link
from lattice.state import LatticeState
from node.links import Links

JOB = "tally-0123456789abcdef"
STORE = "wasi:keyvalue/store@0.2.0-draft"


def link(source: str, name: str = "default") -> Link:
    return Link(source=source, interface="wasi:keyvalue", target="keyvalue-nats", name=name)


class Known:
    """Links that a node has heard of, by source."""

    def __init__(self, **links: Sequence[Link]) -> None:
        self.links = links
        caller = Caller(
            MemoryBus(MemoryBroker()), "test", LatticeState(), name="test", knows_all=lambda: True
        )
        self.looked_up = Links(
            caller,
            links_of=lambda source: self.links.get(source),
            exports_of=lambda target: None,
            is_job=lambda source: source == JOB,
        )


def test_links_of_an_order_count_until_the_application_is_heard_of() -> None:
    known = Known()
    first, second = link("shop"), link("shop", name="other")

    known.looked_up.ordered("shop", [first])
    assert known.looked_up.of("shop") == (first,)
    known.links["shop"] = (second,)
    assert known.looked_up.of("shop") == (second,)
    del known.links["shop"]
    assert known.looked_up.of("shop") == ()


def test_nothing_is_kept_of_a_job_that_has_ended() -> None:
    known = Known()
    known.links[JOB] = (link(JOB),)

    known.looked_up.ordered(JOB, known.links[JOB])
    assert known.looked_up.find(JOB, STORE) == link(JOB)
    del known.links[JOB]

    assert known.looked_up.of(JOB) == ()
    with pytest.raises(Denied):
        known.looked_up.find(JOB, STORE)


@pytest.mark.parametrize(
    ("source", "name", "line"),
    [
        ("shop", "default", "latticectl link put shop wasi:keyvalue keyvalue-nats"),
        ("shop", "cash", "latticectl link put shop wasi:keyvalue keyvalue-nats --name cash"),
        (JOB, "default", "latticectl run ... --link wasi:keyvalue=keyvalue-nats,bucket=NAME"),
        (JOB, "cash", "latticectl run ... --link wasi:keyvalue=keyvalue-nats,bucket=NAME,name:cash"),
    ],
)
def test_a_missing_link_is_denied_with_the_command_that_grants_it(source: str, name: str, line: str) -> None:
    with pytest.raises(Denied, match=re.escape(f"grant it with `{line}`")):
        Known().looked_up.find(source, STORE, name)
