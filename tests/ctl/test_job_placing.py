"""Which nodes a job is offered to."""

from __future__ import annotations

from typing import Any

import pytest

from ctl.jobs import fitting
from ctl.models import Node
from lattice.errors import NotFound, Unreachable


def node(name: str, **fields: Any) -> Node:
    return Node(id=f"N{name.upper()}000", name=name, **fields)


NODES = [
    node("a", load=0.5, labels={"zone": "east"}),
    node("b", load=0.1, labels={"zone": "west"}),
    node("c", load=0.0, labels={"zone": "east"}, state="draining"),
]


def test_the_least_loaded_of_those_that_are_ready_comes_first() -> None:
    assert fitting(NODES, {}, None) == ["NB000", "NA000"]


def test_labels_must_fit() -> None:
    assert fitting(NODES, {"zone": "east"}, None) == ["NA000"]
    with pytest.raises(Unreachable, match="no node that is ready has the labels zone=north"):
        fitting(NODES, {"zone": "north"}, None)


def test_a_node_is_named_by_its_name_or_the_beginning_of_its_id() -> None:
    assert fitting(NODES, {}, "b") == fitting(NODES, {}, "NB00") == ["NB000"]
    with pytest.raises(NotFound, match="there is no node `d`"):
        fitting(NODES, {}, "d")


def test_without_any_node_there_is_nobody_to_ask() -> None:
    assert fitting([], {}, None) == []
