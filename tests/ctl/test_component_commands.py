"""`deploy`, `update`, `scale`, `delete` and `wait`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from lattice.errors import Conflict, Denied, Invalid
from tests.ctl.conftest import COMPONENT_BYTES, CommandLine

DIGEST = f"sha256:{hashlib.sha256(COMPONENT_BYTES).hexdigest()}"


def test_deploy_uploads_compiles_places_and_says_so(latticectl: CommandLine, greeter_file: Path) -> None:
    result = latticectl("deploy", str(greeter_file), "--replicas", "3")

    steps = [line.split()[0] for line in result.stderr.splitlines()]
    assert steps == ["upload", "compile", "deploy", "place"]
    assert "3 of 3 replicas running on node-1" in result.stderr
    assert (result.exit_code, result.stdout) == (0, "")
    assert latticectl.node.stored == {DIGEST: COMPONENT_BYTES}
    operations = latticectl.node.operations()
    assert operations[:2] == ["prepare", "deploy"]


def test_deploy_tells_programs_what_came_of_it(latticectl: CommandLine, greeter_file: Path) -> None:
    result = latticectl("deploy", str(greeter_file), "--output", "json")

    deployed = json.loads(result.stdout)
    assert deployed["name"] == "greeter-1"
    assert deployed["digest"] == DIGEST
    assert deployed["replicas"] == {"desired": 1, "running": 1, "starting": 0, "failed": 0}
    assert deployed["nodes"] == ["node-1"]


def test_deploy_sends_what_was_asked_for_and_nothing_else(
    latticectl: CommandLine, greeter_file: Path
) -> None:
    latticectl(
        "deploy", str(greeter_file), "--name", "hello", "--label", "zone=a", "--label", "arch=x86_64",
        "--spread", "zone", "--max-concurrency", "4", "--memory", "32MiB", "--deadline", "5s",
        "--reuse", "10", "--idempotent", "--env", "MODE=fast=er", "--link", "demo:stock/items=stock",
        "--link", "wasi:keyvalue=keyvalue-nats,bucket=a",
    )  # fmt: skip

    assert latticectl.node.request_of("deploy") == {
        "name": "hello",
        "digest": DIGEST,
        "replicas": 1,
        "labels": {"zone": "a", "arch": "x86_64"},
        "spread": "zone",
        "idempotent": True,
        "environment": {"MODE": "fast=er"},
        "links": [
            {"interface": "demo:stock/items", "target": "stock"},
            {"interface": "wasi:keyvalue", "target": "keyvalue-nats", "configuration": {"bucket": "a"}},
        ],
        "limits": {"memory_bytes": 32 * 2**20, "budget_seconds": 5.0, "max_concurrency": 4, "reuse": 10},
    }


def test_bytes_that_are_there_are_not_uploaded_again(latticectl: CommandLine, greeter_file: Path) -> None:
    latticectl("deploy", str(greeter_file))

    assert "already there" in latticectl("deploy", str(greeter_file)).stderr


def test_no_wait_returns_when_the_deployment_is_accepted(latticectl: CommandLine, greeter_file: Path) -> None:
    result = latticectl("deploy", str(greeter_file), "--no-wait")

    assert result.exit_code == 0
    assert "describe.component" not in latticectl.node.operations()


@pytest.mark.parametrize(
    ("content", "says", "hint"),
    [
        (None, "there is no file", "build the component first"),
        (b"", "it is empty", "Build it again"),
        (b"(component)\n", "it is a text file", "wasm-tools parse"),
        ("größe".encode() * 1000, "it is a text file", "wasm-tools parse"),
        (b"\0asm\x01\0\0\0rest", "it is a core module", "wasm-tools component new"),
        (b"\0asm\x0c\0\x01\0rest", "its encoding has version 12 instead of 13", "current tools"),
        (b"\0asm\x0d", "it is cut off", "Copy or build it again"),
        (bytes(100_000), "it begins with zeros", "Copy or build it again"),
        (b"\x7fELF\x02\x01\xff\xfe", "it does not begin as WebAssembly does", "name the built .wasm file"),
    ],
)
def test_what_is_no_component_is_recognised_before_anything_is_sent(
    latticectl: CommandLine, tmp_path: Path, content: bytes | None, says: str, hint: str
) -> None:
    path = tmp_path / "thing.wasm"
    if content is not None:
        path.write_bytes(content)

    for args in (("deploy", str(path)), ("update", "thing", str(path)), ("inspect", str(path))):
        result = latticectl(*args)

        assert result.exit_code == 1
        assert says in result.stderr
        assert hint in result.stderr.partition("\n\nhint: ")[2]
    assert latticectl.node.requests == []


def test_a_folder_is_no_component(latticectl: CommandLine, tmp_path: Path) -> None:
    result = latticectl("deploy", str(tmp_path))

    assert "is a folder" in result.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--memory", "lots"), "--memory: 'lots' is not understood; use for example 65536, 64KiB"),
        (("--memory", "0"), "--memory: '0' is no memory at all"),
        (("--deadline", "-1s"), "--deadline: '-1s' is not understood; use for example 250ms"),
        (("--name", "my greeter"), "--name 'my greeter' is not a valid name"),
        (("--name", "a.>"), "--name 'a.>' is not a valid name"),
        (("--label", "zone"), "--label: 'zone' is not of the form KEY=VALUE"),
        (("--label", "z one=a"), "label key 'z one' is not valid"),
        (("--link", "demo:stock/items"), "--link: 'demo:stock/items' is not of the form INTERFACE=TARGET"),
        (("--replicas", "-1"), "0<=x<=100000"),
        (("--reuse", "0"), "x>=1"),
    ],
)
def test_wrong_options_of_deploy_name_field_and_cure(
    latticectl: CommandLine, greeter_file: Path, args: tuple[str, ...], says: str
) -> None:
    result = latticectl("deploy", str(greeter_file), *args)

    assert result.exit_code == 2
    assert says in result.stderr
    assert "hint: `latticectl deploy --help`" in result.stderr
    assert latticectl.node.requests == []


def test_a_file_whose_name_makes_no_name_needs_one(latticectl: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "___.wasm"
    path.write_bytes(COMPONENT_BYTES)

    assert "give one with --name" in latticectl("deploy", str(path)).stderr


def test_a_component_that_does_not_compile_is_not_deployed(
    latticectl: CommandLine, greeter_file: Path
) -> None:
    latticectl.node.refusals["prepare"] = [Invalid("the component is truncated at offset 8")]

    result = latticectl("deploy", str(greeter_file))

    assert result.exit_code == 1
    assert "truncated at offset 8" in result.stderr
    assert "deploy" not in latticectl.node.operations()
    assert latticectl.broker.objects == {"LATTICE_default_artifacts": {}}


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (Denied("import `demo:stock/items` is not satisfied"), "latticectl link put"),
        (Conflict("somebody else deployed `greeter-1` at the same time"), "latticectl describe"),
    ],
)
def test_a_refused_deployment_says_what_to_do(
    latticectl: CommandLine, greeter_file: Path, error: Denied | Conflict, hint: str
) -> None:
    latticectl.node.refusals["deploy"] = [error]

    result = latticectl("deploy", str(greeter_file))

    assert result.exit_code == 1
    assert error.message in result.stderr
    assert hint in result.stderr.partition("hint: ")[2]


def test_replicas_that_find_no_node_are_told_and_end_with_the_time(
    latticectl: CommandLine, greeter_file: Path
) -> None:
    latticectl.node.replies["describe.component"] = {
        "component": {
            "name": "greeter-1", "generation": 1, "state": "pending", "digest": DIGEST,
            "replicas": {"desired": 2, "running": 1},
            "pending": [{"count": 1, "reason": "no node has zone=b"}],
        }
    }  # fmt: skip

    result = latticectl("deploy", str(greeter_file), "--timeout", "200ms")

    assert result.exit_code == 5
    assert "not ready after 200 ms: 1 pending: no node has zone=b" in result.stderr


def test_replicas_that_cannot_be_started_end_the_wait_with_the_reason(
    latticectl: CommandLine, greeter_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctl.rollout.FAILED_GRACE_SECONDS", 0.1)
    place = {"node": "N1", "node_name": "node-1", "count": 1, "state": "failed", "reason": "out of memory"}
    failed = {"name": "greeter-1", "digest": DIGEST, "generation": 1, "state": "failed"}
    latticectl.node.replies["describe.component"] = {"component": {**failed, "placements": [place]}}

    result = latticectl("deploy", str(greeter_file))

    assert result.exit_code == 1
    assert "cannot be started: node-1: out of memory" in result.stderr


def test_a_deployment_that_another_one_replaced_is_a_conflict(
    latticectl: CommandLine, greeter_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctl.rollout.FAILED_GRACE_SECONDS", 0.1)
    other = {"name": "greeter-1", "digest": "sha256:" + "2" * 64, "generation": 2, "state": "ready"}
    latticectl.node.replies["describe.component"] = {"component": other}

    result = latticectl("deploy", str(greeter_file))

    assert result.exit_code == 1
    assert "was changed meanwhile: generation 2" in result.stderr


def test_a_failure_is_told_though_it_is_being_tried_again_when_the_time_is_over(
    latticectl: CommandLine,
) -> None:
    place = {"node": "N1", "node_name": "node-1", "count": 1, "state": "failed", "reason": "out of memory"}
    component = latticectl.node.deployed("greeter", state="failed", placements=[place])

    def try_again() -> None:
        beginning = {**place, "state": "preparing", "reason": "it is prepared"}
        latticectl.node.at_request["describe.component"] = lambda: component.update(
            state="progressing", placements=[beginning]
        )
        event = {"time": 1.0, "event": "replica.starting", "component": "greeter"}
        latticectl.node.published.append(("lattice.1.default.event.replica.starting", event))

    latticectl.node.at_request["describe.component"] = try_again

    result = latticectl("wait", "greeter", "--timeout", "1s")

    assert result.exit_code == 5
    assert "it is prepared; it failed before: node-1: out of memory" in result.stderr


def test_update_keeps_the_component_and_changes_its_digest(
    latticectl: CommandLine, greeter_file: Path
) -> None:
    latticectl.node.deployed("greeter")

    result = latticectl("update", "greeter", str(greeter_file), "--output", "json")

    assert json.loads(result.stdout)["generation"] == 2
    assert latticectl.node.request_of("update") == {"component": "greeter", "digest": DIGEST}
    assert latticectl.node.operations()[:2] == ["prepare", "update"]


def test_scale_waits_for_the_replicas(latticectl: CommandLine) -> None:
    latticectl.node.deployed("greeter")

    result = latticectl("scale", "greeter", "--replicas", "5")

    assert "`greeter` has now 5 replicas" in result.stderr
    assert latticectl.node.request_of("scale") == {"component": "greeter", "replicas": 5}


def test_a_component_may_have_no_replicas(latticectl: CommandLine) -> None:
    latticectl.node.deployed("greeter")

    assert latticectl("scale", "greeter", "--replicas", "0").exit_code == 0


def test_delete_deletes(latticectl: CommandLine) -> None:
    latticectl.node.deployed("greeter")

    result = latticectl("delete", "greeter", "--output", "json")

    assert json.loads(result.stdout)["name"] == "greeter"
    assert latticectl.node.components == {}


@pytest.mark.parametrize(
    "args", [("delete", "ghost"), ("scale", "ghost", "--replicas", "1"), ("wait", "ghost"), ("logs", "ghost")]
)
def test_a_component_that_is_not_there_exits_with_4(latticectl: CommandLine, args: tuple[str, ...]) -> None:
    result = latticectl(*args)

    assert result.exit_code == 4
    assert "there is no component `ghost`" in result.stderr
    assert "hint: " in result.stderr


def test_wait_returns_when_enough_replicas_run(latticectl: CommandLine) -> None:
    component = latticectl.node.deployed("greeter", state="progressing")
    component["replicas"] = {"desired": 4, "running": 0, "starting": 4, "failed": 0}

    def start_one() -> None:
        component["replicas"]["running"] += 1
        event = {"time": 1.0, "event": "replica.running", "component": "greeter"}
        latticectl.node.published.append(("lattice.1.default.event.replica.running", event))

    latticectl.node.at_request["describe.component"] = start_one

    result = latticectl("wait", "greeter", "--replicas", "3", "--timeout", "10s")

    assert result.exit_code == 0
    assert "`greeter` is ready: 3 of 4 replicas running" in result.stderr


def test_wait_ends_with_5_when_the_time_is_over(latticectl: CommandLine) -> None:
    latticectl.node.deployed("greeter", state="progressing", reason="a node compiles it")

    result = latticectl("wait", "greeter", "--timeout", "100ms")

    assert result.exit_code == 5
    assert "a node compiles it" in result.stderr
    assert "hint: `latticectl describe greeter`" in result.stderr
