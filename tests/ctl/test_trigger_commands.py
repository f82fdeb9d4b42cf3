"""`trigger put`, `trigger delete`, `get triggers`, and `deploy --cron`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ctl.conftest import COMPONENT_BYTES, CommandLine

SCHEDULE = "*/5 * * * *"


def trigger(name: str = "default", **configuration: str) -> dict[str, Any]:
    """A trigger as a node tells of it."""
    return {"component": "report", "kind": "cron", "name": name, "configuration": configuration}


def test_a_trigger_is_put_with_its_configuration(latticectl: CommandLine) -> None:
    latticectl.node.replies["trigger.put"] = {**trigger("often", schedule=SCHEDULE), "changed": True}

    done = latticectl("trigger", "put", "report", "cron", f"schedule={SCHEDULE}", "--name", "often")

    assert latticectl.node.request_of("trigger.put") == trigger("often", schedule=SCHEDULE)
    assert "the cron trigger `often` of `report` is set" in done.stderr


def test_a_trigger_of_what_is_not_deployed_is_put_with_a_warning(latticectl: CommandLine) -> None:
    latticectl.node.replies["trigger.put"] = {**trigger(schedule=SCHEDULE), "changed": True}

    done = latticectl("trigger", "put", "report", "cron", f"schedule={SCHEDULE}")

    assert done.exit_code == 0 and "warning: there is no component `report` yet" in done.stderr


def test_a_trigger_is_deleted(latticectl: CommandLine) -> None:
    latticectl.node.replies["trigger.delete"] = {**trigger(), "changed": True}

    done = latticectl("trigger", "delete", "report", "cron")

    assert latticectl.node.request_of("trigger.delete")["name"] == "default"
    assert "is deleted" in done.stderr


def test_triggers_are_listed_by_component_kind_and_name(latticectl: CommandLine) -> None:
    latticectl.node.replies["trigger.get"] = {"triggers": [trigger("b"), trigger("a", schedule=SCHEDULE)]}

    found = json.loads(latticectl("get", "triggers", "report", "--output", "json").stdout)

    assert [item["name"] for item in found] == ["a", "b"]
    assert f"schedule={SCHEDULE}" in latticectl("get", "triggers").stdout


def test_a_kind_that_is_not_known_is_wrong_usage(latticectl: CommandLine) -> None:
    done = latticectl("trigger", "put", "report", "hourly")

    assert done.exit_code == 2
    assert "cron" in done.stderr


@pytest.mark.parametrize("count", [1, 3])
def test_each_schedule_of_a_deployment_has_a_name_of_its_own(
    latticectl: CommandLine, tmp_path: Path, count: int
) -> None:
    file = tmp_path / "report.wasm"
    file.write_bytes(COMPONENT_BYTES)
    schedules = [f"every {number}m" for number in range(1, count + 1)]

    done = latticectl("deploy", str(file), *(word for text in schedules for word in ("--cron", text)))

    assert done.exit_code == 0, done.stderr
    triggers = latticectl.node.request_of("deploy")["triggers"]
    assert [item["configuration"]["schedule"] for item in triggers] == schedules
    assert [item["name"] for item in triggers] == ["default", "schedule-2", "schedule-3"][:count]
