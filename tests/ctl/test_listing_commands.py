"""`get`, `describe`, `link`, `drain`, `version` and what all commands share."""

from __future__ import annotations

import json

import pytest

from lattice.errors import Failed, Unreachable
from tests.ctl.conftest import CommandLine
from tests.ctl.fake_node import GREET, NODE_ID

LINKED = ("link", "put", "greeter", "demo:stock/items", "stock")


def test_tables_have_a_heading_and_aligned_columns(latticectl: CommandLine) -> None:
    result = latticectl("get", "nodes")

    heading, row = result.stdout.splitlines()
    assert heading.split()[:4] == ["NAME", "ID", "STATE", "CONTROLLER"]
    assert row.split()[:4] == ["node-1", NODE_ID[:8], "ready", "yes"]
    assert heading.index("STATE") == row.index("ready")
    assert "zone=a" in row
    assert result.exit_code == 0 and result.stderr == ""


def test_json_is_an_array_of_documented_fields(latticectl: CommandLine) -> None:
    result = latticectl("get", "nodes", "--output", "json")

    (node,) = json.loads(result.stdout)
    assert node["id"] == NODE_ID
    assert node["labels"] == {"zone": "a"}
    assert "from_the_future" not in node


def test_jsonl_is_one_object_a_line(latticectl: CommandLine) -> None:
    for name in ("greeter", "shop"):
        latticectl.node.deployed(name)

    result = latticectl("get", "components", "--output", "jsonl")

    assert [json.loads(line)["name"] for line in result.stdout.splitlines()] == ["greeter", "shop"]


def test_an_empty_listing_says_so_on_stderr_and_is_an_empty_array_for_programs(
    latticectl: CommandLine,
) -> None:
    people, programs = latticectl("get", "components"), latticectl("get", "components", "--output", "json")

    assert (people.stdout, people.exit_code) == ("", 0)
    assert "latticectl deploy" in people.stderr
    assert json.loads(programs.stdout) == []


def test_a_link_that_leads_nowhere_is_made_with_a_warning(latticectl: CommandLine) -> None:
    latticectl.node.deployed("greeter")

    good, lost = latticectl(*LINKED), latticectl(*LINKED[:-1], "stok", "--output", "json")

    assert "warning" not in good.stderr
    assert "warning: 'stok' is neither deployed nor offered" in lost.stderr
    assert json.loads(lost.stdout)["warnings"]


def test_replicas_of_one_component_are_listed(latticectl: CommandLine) -> None:
    latticectl.node.deployed("greeter")
    latticectl.node.deployed("shop")

    result = latticectl("get", "replicas", "shop", "--output", "json")

    assert [replica["id"] for replica in json.loads(result.stdout)] == ["shop-0"]


def test_global_options_stand_before_or_after_the_command(latticectl: CommandLine) -> None:
    before = latticectl("--output", "json", "get", "nodes")
    between = latticectl("get", "--output", "json", "nodes")
    after = latticectl("get", "nodes", "--output", "json")

    assert json.loads(before.stdout) == json.loads(between.stdout) == json.loads(after.stdout)


def test_the_environment_stands_in_for_options_and_options_win(latticectl: CommandLine) -> None:
    env = {"LATTICE_NATS": "nats://one", "LATTICE_LATTICE": "default", "LATTICE_TIMEOUT": "3s"}

    latticectl("get", "nodes", "--nats", "nats://two", env=env)

    assert latticectl.settings is not None
    assert latticectl.settings.nats == "nats://two"
    assert latticectl.settings.timeout_seconds == 3


def test_control_characters_are_not_sent_to_the_terminal(latticectl: CommandLine) -> None:
    latticectl.node.deployed(state="failed", reason="\x1b[2Jgone")

    result = latticectl("get", "components")

    assert "\x1b" not in result.stdout
    assert "\\x1b[2Jgone" in result.stdout


def test_describe_shows_functions_limits_and_placements_of_a_component(latticectl: CommandLine) -> None:
    latticectl.node.deployed(reason="because", pending=[{"count": 1, "reason": "no node has zone=b"}])
    latticectl(*LINKED)

    text = latticectl("describe", "greeter").stdout

    assert "greet: func(name: string) -> string" in text
    assert "enum mood { happy, sad }" in text
    assert "node-1  2 of 2 running" in text
    assert "1 pending: no node has zone=b" in text
    assert "demo:stock/items -> stock  local" in text
    assert "ready to take over:  node-2" in text


@pytest.mark.parametrize("name", ["node-1", NODE_ID, NODE_ID[:6]])
def test_describe_finds_a_node_by_name_id_or_beginning_of_it(latticectl: CommandLine, name: str) -> None:
    result = latticectl("describe", name, "--output", "json")

    assert json.loads(result.stdout)["id"] == NODE_ID
    assert latticectl("describe", name).stdout.startswith("node:")


def test_providers_are_listed_with_why_they_cannot_be_called(latticectl: CommandLine) -> None:
    heading, row = latticectl("get", "providers").stdout.splitlines()

    assert heading.split() == ["NAME", "KIND", "STATE", "NODES", "LINKED", "INTERFACES", "REASON"]
    assert row.split()[:5] == ["cache", "keyvalue-redis", "unhealthy", "0/1", "1"]
    assert row.endswith("no server")
    (provider,) = json.loads(latticectl("get", "providers", "--output", "json").stdout)
    assert provider["nodes"][0]["reason"] == "no server"


def test_describe_finds_a_provider(latticectl: CommandLine) -> None:
    text = latticectl("describe", "cache").stdout

    assert "node-1  unhealthy: no server  calls 7  errors interrupted 2" in text
    assert "shop wasi:keyvalue" in text
    assert "size: func() -> u32" in text


def test_a_provider_that_does_not_answer_is_said_to_be_unreachable(latticectl: CommandLine) -> None:
    text = latticectl("describe", "lost").stdout
    called = latticectl("call", "lost", "size")

    assert "node-1  healthy: it does not answer at the moment" in text
    assert called.exit_code == 5
    assert "can't be called now: it does not answer at the moment" in called.stderr


def test_all_that_a_link_tells_its_provider_is_listed(latticectl: CommandLine) -> None:
    latticectl.node.links = [
        {
            "source": "shop", "interface": "wasi:keyvalue", "target": "cache", "route": "local",
            "configuration": {"bucket": "a"}, "configuration_from": ["shop"], "secrets": {"password": "pw"},
        }
    ]  # fmt: skip

    row = latticectl("link", "get", "shop").stdout.splitlines()[1]

    assert row.endswith("bucket=a, configuration shop, secret pw as password")


def test_describe_of_neither_exits_with_4_and_a_hint(latticectl: CommandLine) -> None:
    result = latticectl("describe", "ghost")

    assert result.exit_code == 4
    assert "no component, provider or node `ghost`" in result.stderr
    assert "hint: `latticectl get components`" in result.stderr


def test_links_are_put_listed_and_deleted(latticectl: CommandLine) -> None:
    latticectl.node.deployed()

    settings = ("--config", "bucket=a", "--config-from", "shared", "--secret", "password=redis")
    put = latticectl(*LINKED, "--idempotent", *settings, "--output", "json")
    listed = latticectl("link", "get", "greeter", "--output", "json")
    deleted = latticectl("link", "delete", "greeter", "demo:stock/items")

    assert json.loads(put.stdout)["target"] == "stock"
    (link,) = json.loads(listed.stdout)
    assert link == {
        "source": "greeter", "interface": "demo:stock/items", "name": "default", "target": "stock",
        "idempotent": True, "route": "local", "configuration": {"bucket": "a"},
        "configuration_from": ["shared"], "secrets": {"password": "redis"},
    }  # fmt: skip
    assert "no longer linked" in deleted.stderr
    assert latticectl.node.links == []


def test_drain_says_how_many_replicas_moved(latticectl: CommandLine) -> None:
    result = latticectl("drain", "node-1")

    assert "2 replicas moved" in result.stderr
    assert latticectl("drain", "ghost").exit_code == 4


def test_version_is_data(latticectl: CommandLine) -> None:
    assert json.loads(latticectl("version", "--output", "json").stdout).keys() == {
        "version",
        "python",
        "wire",
    }
    assert latticectl("version").stdout.startswith("latticectl ")


@pytest.mark.parametrize(
    ("error", "exit_code", "hint"),
    [
        (Unreachable("nobody there"), 5, "lattice-node start"),
        (Failed("it broke", error_id="E17"), 1, "under the id E17"),
    ],
)
def test_errors_have_an_exit_code_and_a_hint(
    latticectl: CommandLine, error: Failed | Unreachable, exit_code: int, hint: str
) -> None:
    latticectl.node.refusals["get.nodes"] = [error] * 100

    result = latticectl("get", "nodes", "--timeout", "150ms")

    assert result.exit_code == exit_code
    assert f"error: {error.message}\n\nhint: " in result.stderr
    assert hint in result.stderr
    assert result.stdout == ""


def test_no_node_at_all_is_told_apart_from_a_slow_one(latticectl: CommandLine) -> None:
    result = latticectl("get", "nodes", "--lattice", "elsewhere")

    assert result.exit_code == 5
    assert "hint: " in result.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("get", "node"), "did you mean `nodes`?"),
        (("deploi",), "did you mean `deploy`?"),
        (("get", "nodes", "--outptu", "json"), "--output"),
        (("get", "nodes", "--output", "xml"), "'table', 'json', 'jsonl'"),
        (("get", "nodes", "--timeout", "soon"), "--timeout: 'soon' is not understood; use for example 250ms"),
        (("get", "nodes", "--timeout", "0s"), "--timeout: '0s' is no time at all"),
        (("get", "nodes", "--lattice", "a.b"), "--lattice 'a.b' is not a valid name: use"),
        (("delete", "My Component"), "not a valid name: use"),
        (("scale", "greeter", "--replicas", "1000000"), "0<=x<=100000"),
        (("scale", "greeter"), "--replicas"),
    ],
)
def test_wrong_usage_exits_with_2_names_the_cure_and_asks_nobody(
    latticectl: CommandLine, args: tuple[str, ...], says: str
) -> None:
    result = latticectl(*args)

    assert result.exit_code == 2
    assert says in result.stderr
    assert "\n\nhint: `latticectl" in result.stderr
    assert latticectl.node.requests == []


def test_a_reply_that_is_not_understood_is_a_failure_with_its_field(latticectl: CommandLine) -> None:
    latticectl.node.replies["get.nodes"] = {"nodes": [{"id": 5}]}

    result = latticectl("get", "nodes")

    assert result.exit_code == 1
    assert "id must be a string" in result.stderr


def test_a_fault_of_the_program_is_one_line_without_a_traceback(latticectl: CommandLine) -> None:
    latticectl.node.at_request["get.nodes"] = lambda: [][0]

    result = latticectl("get", "nodes")

    assert result.exit_code == 1
    assert "latticectl itself failed: IndexError" in result.stderr
    assert "Traceback" not in result.stderr


def test_exports_are_listed_by_name(latticectl: CommandLine) -> None:
    latticectl.node.deployed()

    assert GREET in latticectl("get", "components").stdout
