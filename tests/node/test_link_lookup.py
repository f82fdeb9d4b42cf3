"""Where a source's links are looked up, and what is said when it has none: for components and for jobs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from lattice.caller import Caller, CallRequest
from lattice.context import CallContext
from lattice.errors import Denied
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.model import Link
from lattice.state import LatticeState
from node.engine.host import GuestCall
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


class StrictCaller:
    """Providers that know of changed links before the node of the source does: the first call finds none."""

    def __init__(self, change: Callable[[], None]) -> None:
        self.asked: list[str] = []
        self._change = change

    async def call(self, request: CallRequest, args: Any) -> Any:
        self.asked.append(request.component)
        if len(self.asked) > 1:
            return f"{request.component} answers"
        self._change()
        raise Denied("no such link")


class Changing:
    """A source whose one link is changed while a call over it is under way."""

    def __init__(self, *links: Link, is_component: bool = False) -> None:
        self._links: Sequence[Link] = (link("shop"),)
        self._after = links
        self.caller = StrictCaller(self._change)
        self.looked_up = Links(
            self.caller,  # type: ignore[arg-type]
            links_of=lambda source: self._links,
            exports_of=lambda target: [STORE] if is_component else None,
        )

    def _change(self) -> None:
        self._links = self._after

    async def call(self) -> Any:
        guest = GuestCall("shop", CallContext(deadline=0), SimpleNamespace(state={}), lambda *_: None)
        return await self.looked_up.call(guest, interface=STORE, function=(STORE, "open"), args=[])


async def test_a_call_over_a_link_that_was_changed_meanwhile_goes_over_the_present_one() -> None:
    changing = Changing(Link(source="shop", interface="wasi:keyvalue", target="cache"))

    assert await changing.call() == "cache answers"
    assert changing.caller.asked == ["keyvalue-nats", "cache"]


async def test_what_a_provider_refuses_over_the_present_link_stays_refused() -> None:
    changing = Changing(link("shop"))

    with pytest.raises(Denied, match="no such link"):
        await changing.call()
    assert changing.caller.asked == ["keyvalue-nats"]


async def test_a_call_over_a_link_that_was_deleted_meanwhile_is_denied_with_its_cure() -> None:
    with pytest.raises(Denied, match="latticectl link put shop wasi:keyvalue"):
        await Changing().call()


async def test_what_a_component_refuses_is_not_asked_again() -> None:
    other = Link(source="shop", interface="wasi:keyvalue", target="cache")
    changing = Changing(other, is_component=True)

    with pytest.raises(Denied, match="no such link"):
        await changing.call()
    assert changing.caller.asked == ["keyvalue-nats"]
