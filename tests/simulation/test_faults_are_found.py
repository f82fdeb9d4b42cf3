"""The simulation finds what it is there for: each rule that is broken on purpose breaks some seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lattice.lease import Fencing
from lattice.model import Application
from lattice.orders import Order
from lattice.recovery import Recovery
from lattice.state import LatticeState
from tests.simulation.world import Violation, World

MAX_SEEDS = 1000
"""Far more than any of these faults needs."""


def _accept_all(fencing: Fencing, order: Order) -> None:
    return None


def _take_whatever_comes(application: Application, other: Application | None) -> bool:
    return application != other


def _trust_an_empty_store(recovery: Recovery, now: float) -> list[Any]:
    recovery._is_collected = True
    return recovery._read(now)


def _ignore_gaps(state: LatticeState, view: Any, now: float) -> list[Any]:
    return []


def _write_nothing_back(recovery: Recovery, stored: Any, now_ms: int) -> list[Any]:
    return []


FAULTS: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "nodes accept orders of any leader, in any order": (Fencing, "_refusal", _accept_all),
    "any copy replaces any other": (Application, "supersedes", _take_whatever_comes),
    "a lost store is taken for an empty one": (Recovery, "_collect", _trust_an_empty_store),
    "lost deltas are not noticed": (LatticeState, "_fetch_if_stale", _ignore_gaps),
    "nothing is written back": (Recovery, "_differences", _write_nothing_back),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_broken_rule_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*FAULTS[fault])

    assert any(_breaks(seed) for seed in range(MAX_SEEDS))


def _breaks(seed: int) -> bool:
    try:
        World(seed).live_through()
    except Violation:
        return True
    return False
