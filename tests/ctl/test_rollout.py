"""When a component has come to rest."""

from __future__ import annotations

from typing import Any

import pytest

from ctl.models import ComponentDescription
from ctl.rollout import judge


def description(**fields: Any) -> ComponentDescription:
    data = {"name": "greeter", "generation": 3, "state": "ready", "replicas": {"desired": 2, "running": 2}}
    return ComponentDescription.from_dict({**data, **fields})


@pytest.mark.parametrize(
    ("fields", "generation", "replicas", "state"),
    [
        ({}, 0, None, "ready"),
        ({}, 3, None, "ready"),
        ({}, 4, None, "waiting"),
        ({"state": "progressing"}, 3, None, "waiting"),
        ({"state": "progressing"}, 3, 2, "ready"),
        ({"state": "progressing"}, 3, 3, "waiting"),
        ({"state": "pending"}, 3, None, "waiting"),
        ({"state": "failed"}, 3, None, "failed"),
        ({"state": "failed"}, 4, None, "waiting"),
        ({"replicas": {"desired": 0, "running": 0}}, 3, None, "ready"),
    ],
)
def test_rest_is_the_right_generation_with_enough_replicas(
    fields: dict[str, Any], generation: int, replicas: int | None, state: str
) -> None:
    assert judge(description(**fields), generation=generation, replicas=replicas).state == state


def test_the_right_generation_of_other_code_is_not_rest() -> None:
    found = description(digest="sha256:old")

    assert judge(found, generation=3, digest="sha256:new").state == "waiting"
    assert judge(found, generation=3, digest="sha256:old").state == "ready"
    assert judge(found, generation=2, digest="sha256:new").state == "superseded"


def test_each_reason_is_given_once() -> None:
    place = {"node": "N1", "node_name": "node-1", "reason": "out of memory"}

    verdict = judge(
        description(
            state="failed",
            reason="out of memory",
            placements=[place, place],
            pending=[{"count": 1, "reason": "no capacity"}],
        ),
        generation=0,
        replicas=None,
    )

    assert verdict.reason == "1 pending: no capacity; node-1: out of memory"
