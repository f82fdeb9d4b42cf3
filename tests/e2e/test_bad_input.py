"""Bad input through the real commands: one clear message, an exit code, no traceback; the lattice goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from tests.e2e.artifacts import core_module, missing_import
from tests.e2e.processes import FLOOD, GREETER, MISBEHAVE, NODE, TYPES, Done, Lattice, run
from tests.servers import NatsServer

pytestmark = pytest.mark.slow

SHORT = {"budget_seconds": 0.5}
REFUSED, USAGE, NOT_FOUND, UNREACHABLE = 1, 2, 4, 5


@pytest.fixture(scope="module")
async def lattice(shared_lattice: Lattice) -> AsyncIterator[Lattice]:
    """With a greeter and misbehaving components, as all tests here leave it."""
    for file, limits in ((GREETER, {}), (TYPES, {}), (MISBEHAVE, SHORT), (FLOOD, SHORT)):
        await shared_lattice.deploy(file, **limits)
    yield shared_lattice
    for node in shared_lattice.nodes.values():
        assert node.is_running and len(node.lines("node.ready")) == 1
    assert (await shared_lattice.ctl("call", "greeter", "hello", "World")).out.strip() == '"Hello, World!"'


def check(done: Done, code: int, *words: str) -> None:
    """One message that says these words, and nothing else on the way out."""
    assert done.code == code, done
    assert "Traceback" not in done.err and "Error(" not in done.err, done.err
    assert done.err.count("error: ") == 1, done.err
    for word in words:
        assert word in done.err, done.err


FILES: list[tuple[str, bytes, str]] = [
    ("empty.wasm", b"", "empty"),
    ("text.wasm", b"#!/bin/sh\necho hello\n", "not"),
    ("core.wasm", core_module(), "module"),
    ("truncated.wasm", GREETER.read_bytes()[:300], ""),
    ("old.wasm", b"\0asm\x0a\0\1\0", "version 10"),
    ("zeros.wasm", bytes(100_000_000), "not"),
]


@pytest.mark.parametrize(("name", "data", "word"), FILES, ids=[name for name, _, _ in FILES])
async def test_a_file_that_is_no_component_is_refused(
    lattice: Lattice, tmp_path: Path, name: str, data: bytes, word: str
) -> None:
    (tmp_path / name).write_bytes(data)

    deployed = await lattice.ctl("deploy", tmp_path / name)
    inspected = await lattice.ctl("inspect", tmp_path / name)

    check(deployed, REFUSED, word)
    check(inspected, REFUSED, word)


async def test_a_component_for_interfaces_that_nobody_has_is_refused(
    lattice: Lattice, tmp_path: Path
) -> None:
    file = missing_import(tmp_path, "wasi:cli/run@0.3.0-rc-2025-09-16")

    check(await lattice.ctl("deploy", file), REFUSED, "wasi:cli/run@0.3.0")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["deploy", "/nowhere/greeter.wasm"], REFUSED, ["/nowhere/greeter.wasm"]),
        (["deploy", str(GREETER), "--name", "a b"], USAGE, ["a b", "a-z"]),
        (["deploy", str(GREETER), "--name", "a.b"], USAGE, ["a.b"]),
        (["deploy", str(GREETER), "--name", "a>"], USAGE, ["a>"]),
        (["deploy", str(GREETER), "--replicas", "1000000"], USAGE, ["replicas", "100000"]),
        (["scale", "greeter", "--replicas", "-1"], USAGE, ["replicas"]),
        (["scale", "gretter", "--replicas", "1"], NOT_FOUND, ["did you mean `greeter`"]),
        (["deploy", str(GREETER), "--name", "other", "--link", "x=y"], REFUSED, ["x"]),
        (["call", "greeter", "helo", "World"], NOT_FOUND, ["did you mean `hello`"]),
        (["call", "nobody", "hello", "World"], NOT_FOUND, ["nobody"]),
        (["call", "greeter", "hello"], REFUSED, ["name"]),
        (["call", "greeter", "hello", "a", "b"], REFUSED, ["1", "2"]),
        (["call", "greeter", "hello", "--json-args", "[1]"], REFUSED, ["name", "string"]),
        (["call", "types", "echo-u8", "300"], REFUSED, ["value", "300", "255"]),
        (["call", "types", "echo-s64", "9223372036854775808"], REFUSED, ["out of range"]),
        (["call", "types", "echo-enum", "dark-bleu"], REFUSED, ["dark-blue"]),
        (["call", "misbehave", "trap"], REFUSED, ["unreachable"]),
        (["call", "misbehave", "recurse"], REFUSED, ["stack"]),
        (["call", "misbehave", "spin"], UNREACHABLE, ["budget"]),
        (["call", "flood", "forever"], UNREACHABLE, []),
        (["get", "nodes", "--nats", "nats://127.0.0.1:1", "--timeout", "1s"], UNREACHABLE, ["127.0.0.1:1"]),
        (["get", "nodes", "--lattice", "nowhere"], UNREACHABLE, ["lattice-node start --lattice nowhere"]),
        (["get", "nodes", "--lattice", "no where"], USAGE, ["no where"]),
        (["describe", "nobody"], NOT_FOUND, ["nobody"]),
        (["drain", "nobody"], NOT_FOUND, ["nobody"]),
        (["link", "put", "greeter", "a.b.c", "kv"], REFUSED, ["a.b.c"]),
        (["link", "put", "greeter", "demo:kv/store", "k v"], USAGE, ["k v"]),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
async def test_a_wrong_command_says_what_is_wrong(
    lattice: Lattice, arguments: list[str], code: int, words: list[str]
) -> None:
    check(await lattice.ctl(*arguments), code, *words)


async def test_zero_replicas_are_deployed_and_stopped(lattice: Lattice) -> None:
    done = await lattice.ctl("deploy", GREETER, "--name", "asleep", "--replicas", "0", "--output", "json")
    called = await lattice.ctl("call", "asleep", "hello", "World", "--deadline", "500ms")
    await lattice.ctl("delete", "asleep")

    assert done.code == 0, done.err
    check(called, UNREACHABLE, "asleep")


async def test_of_two_deployments_of_one_name_at_once_each_wins_or_says_that_it_lost(
    lattice: Lattice,
) -> None:
    done: list[Done] = []

    async def deploy(replicas: int) -> None:
        arguments = ("deploy", GREETER, "--name", "raced", "--replicas", str(replicas), "--no-wait")
        done.append(await lattice.ctl(*arguments))

    async with anyio.create_task_group() as tasks:
        for replicas in (1, 2, 3):
            tasks.start_soon(deploy, replicas)
    await lattice.ctl("delete", "raced")

    assert any(item.code == 0 for item in done)
    for item in done:
        if item.code:
            check(item, REFUSED, "raced")


# Nodes


def start(*options: str, **variables: str) -> tuple[list[str], dict[str, str]]:
    """A `lattice-node start` that is to fail, with its environment."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LATTICE_")}
    return [NODE, "start", *options], {**environment, **variables}


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--name", "a.b"], USAGE, ["a.b"]),
        (["--lattice", "a>"], USAGE, ["a>"]),
        (["--nats", "http://x"], REFUSED, ["http://x"]),
        (["--nats", "nats://127.0.0.1:1", "--connect-timeout", "500ms"], REFUSED, ["127.0.0.1:1"]),
        (["--label", "zone"], USAGE, ["zone"]),
        (["--capacity", "many"], USAGE, ["many"]),
        (["--creds", "/nowhere.creds", "--nats", "nats://127.0.0.1:1"], REFUSED, ["/nowhere.creds"]),
        (["--config", "/nowhere.toml"], USAGE, ["/nowhere.toml"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
async def test_a_node_with_wrong_settings_says_so_and_ends(
    tmp_path: Path, options: list[str], code: int, words: list[str]
) -> None:
    check(await run(*start(*options, LATTICE_STATE=str(tmp_path))), code, *words)


async def test_an_unknown_key_suggests_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("capacty = 3\n")
    state = str(tmp_path)

    in_file = await run(*start("--config", str(tmp_path / "node.toml"), LATTICE_STATE=state))
    in_environment = await run(*start(LATTICE_STATE=state, LATTICE_CAPACTY="3"))

    check(in_file, USAGE, "capacty", "did you mean `capacity`")
    check(in_environment, USAGE, "LATTICE_CAPACTY", "did you mean `LATTICE_CAPACITY`")


async def test_a_node_with_anothers_name_is_refused(lattice: Lattice) -> None:
    done = await run([NODE, "start", "--name", "a"], lattice.environment)

    check(done, REFUSED, "'a'", "--name")


async def test_an_explicit_data_folder_in_use_is_refused(lattice: Lattice) -> None:
    taken = next((lattice.folder / lattice.name).glob("node-*"))

    done = await run([NODE, "start", "--data", str(taken)], lattice.environment)

    check(done, REFUSED, str(taken))


async def test_wrong_credentials_are_refused(nats_server: NatsServer, tmp_path: Path) -> None:
    url = nats_server.url.replace("//", "//app:wrong@")
    node = await run(
        *start("--nats", url, "--connect-timeout", "2s", LATTICE_STATE=str(tmp_path)), seconds=20
    )
    environment = start(LATTICE_STATE=str(tmp_path))[1]
    client = await run(
        [NODE.replace("lattice-node", "latticectl"), "get", "nodes", "--nats", url], environment
    )

    check(node, REFUSED, "credentials")
    check(client, REFUSED, "credentials")
    assert "wrong" not in node.err and "app:" not in node.err


@pytest.fixture
def read_only_folder(tiny_folder: Path) -> Path:
    """A folder in which nobody can write."""
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_folder)], check=True)
    return tiny_folder


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of one megabyte, where that can be made."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_read_only_data_folder_is_refused(lattice: Lattice, read_only_folder: Path) -> None:
    command = [NODE, "start", "--data", str(read_only_folder / "data")]

    check(await run(command, lattice.environment), REFUSED, str(read_only_folder))


async def test_a_full_disk_of_one_node_is_said_and_harms_no_other(
    lattice: Lattice, tiny_folder: Path
) -> None:
    node = lattice.node("full", "--data", str(tiny_folder), "--label", "disk=full")
    node.start()
    try:
        await node.ready()
        (tiny_folder / "ballast").write_bytes(bytes(tiny_free(tiny_folder)))

        done = await lattice.ctl(
            "deploy", FLOOD, "--name", "cramped", "--label", "disk=full", "--timeout", "30s"
        )
        described = await lattice.ctl("describe", "cramped")
        await lattice.ctl("delete", "cramped")

        check(done, REFUSED, "disk", "full")
        assert "Traceback" not in node.text()
        assert described.code == 0
        assert node.is_running
    finally:
        if node.is_running:
            node.kill()
        del lattice.nodes["full"]


def tiny_free(folder: Path) -> int:
    """Bytes that are left on the folder's file system."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


async def test_the_embedded_server_on_a_read_only_disk_is_said(read_only_folder: Path) -> None:
    done = await run(*start(LATTICE_STATE=str(read_only_folder)))

    check(done, REFUSED, str(read_only_folder))
