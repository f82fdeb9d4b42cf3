"""Which node a caller asks."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from lattice.router import choose


@dataclass(frozen=True)
class Place:
    node: str
    zone: str | None = None
    load: float = 0.0
    is_draining: bool = False


def first(count: int) -> int:
    return 0


def test_own_node_comes_first() -> None:
    places = [Place("a", load=0.0), Place("b", load=9.0)]

    assert choose(places, own_node="b", own_zone=None, excluded=(), pick=first) == "b"


def test_own_zone_comes_before_less_load() -> None:
    places = [Place("a", zone="x"), Place("b", zone="y", load=5.0)]

    assert choose(places, own_node=None, own_zone="y", excluded=(), pick=first) == "b"


def test_another_zone_is_asked_when_the_own_has_no_replica_left() -> None:
    places = [Place("a", zone="x"), Place("b", zone="y")]

    assert choose(places, own_node=None, own_zone="y", excluded={"b"}, pick=first) == "a"


def test_the_less_loaded_of_two_is_asked() -> None:
    places = [Place("a", load=2.0), Place("b", load=1.0)]

    assert choose(places, own_node=None, own_zone=None, excluded=(), pick=first) == "b"


def test_a_draining_node_is_the_last_resort() -> None:
    draining, other = Place("a", is_draining=True), Place("b", load=99.0)

    assert choose([draining, other], own_node="a", own_zone=None, excluded=(), pick=first) == "b"
    assert choose([draining], own_node=None, own_zone=None, excluded=(), pick=first) == "a"


def test_nobody_is_left_when_all_were_asked() -> None:
    assert choose([Place("a")], own_node="a", own_zone=None, excluded={"a"}, pick=first) is None


@given(
    st.lists(
        st.builds(Place, st.text("abcdef", min_size=1), st.sampled_from([None, "x", "y"]), st.floats(0, 9))
    ),
    st.sets(st.text("abcdef", min_size=1)),
    st.randoms(),
)
def test_the_choice_is_a_candidate_that_was_not_excluded(
    places: list[Place], excluded: set[str], chance: random.Random
) -> None:
    chosen = choose(places, own_node=None, own_zone="x", excluded=excluded, pick=chance.randrange)

    usable = {place.node for place in places} - excluded
    assert chosen in usable if usable else chosen is None
