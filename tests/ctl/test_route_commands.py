"""`route put`, `route delete`, `get routes` and `deploy --http`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ctl.conftest import CommandLine


def trigger(component: str, name: str = "default", **configuration: str) -> dict[str, Any]:
    """A trigger as a node tells of it."""
    return {"component": component, "kind": "http", "name": name, "configuration": configuration}


def test_a_route_becomes_a_trigger_under_a_name_of_its_own(latticectl: CommandLine) -> None:
    latticectl.node.replies["trigger.get"] = {"triggers": []}
    latticectl.node.replies["trigger.put"] = trigger("shop", "x", host="a.example.org", prefix="/api")

    result = latticectl("route", "put", "A.example.org/api/", "shop")

    asked = latticectl.node.request_of("trigger.put")
    assert (asked["component"], asked["kind"]) == ("shop", "http")
    assert asked["configuration"] == {"host": "a.example.org", "prefix": "/api"}
    assert asked["name"].startswith("a-example-org-api-")
    assert result.exit_code == 0 and "a.example.org/api goes to `shop`" in result.stderr


def test_a_route_that_another_component_has_is_made_with_a_warning(latticectl: CommandLine) -> None:
    latticectl.node.replies["trigger.get"] = {"triggers": [trigger("older", prefix="/api")]}
    latticectl.node.replies["trigger.put"] = trigger("shop", prefix="/api")

    result = latticectl("route", "put", "/api", "shop")

    assert result.exit_code == 0 and "`older` has this route too" in result.stderr


def test_a_route_to_what_is_not_deployed_is_made_with_a_warning(latticectl: CommandLine) -> None:
    latticectl.node.deployed("shop")
    latticectl.node.replies["trigger.get"] = {"triggers": []}
    latticectl.node.replies["trigger.put"] = trigger("shop", prefix="/api")

    known, unknown = latticectl("route", "put", "/api", "shop"), latticectl("route", "put", "/api", "shpo")

    assert "warning" not in known.stderr
    assert unknown.exit_code == 0 and "warning: there is no component `shpo` yet" in unknown.stderr


def test_the_same_route_deletes_the_same_trigger(latticectl: CommandLine) -> None:
    latticectl.node.replies["trigger.get"] = {"triggers": []}
    latticectl.node.replies["trigger.put"] = trigger("shop")
    latticectl.node.replies["trigger.delete"] = {**trigger("shop"), "changed": True}

    latticectl("route", "put", "*.example.org", "shop")
    result = latticectl("route", "delete", "*.EXAMPLE.org/", "shop")

    node = latticectl.node
    assert node.request_of("trigger.delete")["name"] == node.request_of("trigger.put")["name"]
    assert "*.example.org/ goes no longer to `shop`" in result.stderr


@pytest.mark.parametrize("route", ["a:80/", "a b/", "/a?b", "http://a/"])
def test_what_is_no_route_is_wrong_usage(latticectl: CommandLine, route: str) -> None:
    result = latticectl("route", "put", route, "shop")

    assert result.exit_code == 2 and "HOST/PREFIX" in result.stderr


def test_routes_are_listed_as_people_write_them(latticectl: CommandLine) -> None:
    found = [trigger("shop", host="a", prefix="/b"), trigger("any")]
    latticectl.node.replies["trigger.get"] = {"triggers": found}

    people, programs = latticectl("get", "routes"), latticectl("get", "routes", "--output", "json")

    assert [line.split()[:2] for line in people.stdout.splitlines()[1:]] == [["*/", "any"], ["a/b", "shop"]]
    assert {item["component"] for item in json.loads(programs.stdout)} == {"any", "shop"}


def test_deploying_brings_routes_along(latticectl: CommandLine, greeter_file: Path) -> None:
    latticectl("deploy", str(greeter_file), "--http", "/", "--http", "a/b", "--no-wait")

    [every, one] = latticectl.node.request_of("deploy")["triggers"]
    assert (every["kind"], every["name"], every["configuration"]) == ("http", "default", {})
    assert one["configuration"] == {"host": "a", "prefix": "/b"}
