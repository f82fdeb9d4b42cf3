"""The plan says what it waits for."""

from __future__ import annotations

from typing import Any

import pytest

from lattice.explain import explain
from lattice.orders import Order
from tests.lattice.lattices import Lattice, Node, ask, digest, nodes, zoned


def reasons(lattice: Lattice) -> list[tuple[int, str]]:
    found = explain("greeter", lattice.desired, lattice.observed, lattice.now, lattice.catalog)
    return [(pending.count, pending.reason) for pending in found]


def test_nothing_is_explained_when_all_run() -> None:
    lattice = Lattice(*nodes(1))
    ask(lattice)
    lattice.settle()

    assert reasons(lattice) == []
    assert explain("unknown", lattice.desired, lattice.observed, 0.0) == []


@pytest.mark.parametrize(
    ("members", "asked", "expected"),
    [
        ([], {}, "no node has reported"),
        (nodes(2, capacity=1), {"replicas": 3}, "no capacity: the 2 matching nodes have 2 places"),
        (zoned("a", "b"), {"labels": {"zone": "c"}}, "zone=c (nodes have zone=a, zone=b)"),
        (zoned("a"), {"labels": {"gpu": "yes"}}, "gpu=yes (no node has such a label)"),
    ],
)
def test_what_stands_in_the_way_is_named(members: list[Node], asked: dict[str, Any], expected: str) -> None:
    lattice = Lattice(*members)
    ask(lattice, **asked)
    lattice.settle()

    ((count, reason),) = reasons(lattice)

    assert count == 1
    assert expected in reason


def test_failure_is_explained_with_its_text() -> None:
    lattice = Lattice(*nodes(1))
    lattice.nodes["N0"].fails = {digest(1)}
    ask(lattice)
    lattice.settle()

    ((_, reason),) = reasons(lattice)

    assert "node n0 could not start it: it does not compile; next attempt in 1 s" in reason


def test_node_that_is_still_preparing_is_named() -> None:
    lattice = Lattice(*nodes(1))
    ask(lattice)
    for command in lattice.plan():
        assert isinstance(command, Order)
        lattice.nodes["N0"].assignments.order(command)
    lattice.report(lattice.nodes["N0"])

    assert reasons(lattice) == [(1, "waiting for node n0, which is preparing it")]
