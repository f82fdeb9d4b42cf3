"""The command line and the client against real nodes and a real component."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from ctl.calling import CallOptions
from ctl.client import ControlClient
from ctl.inspection import node_program
from ctl.settings import ClientSettings

GREETER = Path(__file__).parents[2] / "examples" / "greeter" / "wat" / "greeter.wasm"
LATTICECTL = [sys.executable, "-c", "from ctl.cli import main; main()"]
NODE = node_program()
START_SECONDS = 30.0
STOP_SECONDS = 15.0

pytestmark = pytest.mark.slow


@pytest.fixture
def environment(tmp_path: Path, lattice_name: str) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("LATTICE_")}
    return {**others, "LATTICE_STATE": str(tmp_path), "LATTICE_LATTICE": lattice_name}


@pytest.fixture
async def nodes(environment: dict[str, str]) -> AsyncIterator[None]:
    """Two nodes on an embedded server of their own."""
    async with AsyncExitStack() as stack:
        for name in ("one", "two"):
            await stack.enter_async_context(node(name, environment))
        with anyio.fail_after(START_SECONDS):
            while await count_nodes(environment) < 2:  # noqa: ASYNC110 - another process sets no event here
                await anyio.sleep(0.1)
        yield


async def count_nodes(environment: dict[str, str]) -> int:
    _, nodes, _ = await latticectl(environment, "get", "nodes", check=False)
    return len(json.loads(nodes or "[]"))


@asynccontextmanager
async def node(name: str, environment: dict[str, str]) -> AsyncIterator[None]:
    command = [str(NODE), "start", "--name", name, "--log-level", "error"]
    async with await anyio.open_process(command, env=environment, stdout=None, stderr=None) as process:
        yield
        if process.returncode is None:
            process.terminate()
        with anyio.move_on_after(STOP_SECONDS):
            await process.wait()
        if process.returncode is None:
            process.kill()


async def latticectl(environment: dict[str, str], *args: str, check: bool = True) -> tuple[int, str, str]:
    command = [*LATTICECTL, *args, "--output", "json"]
    done = await anyio.run_process(command, env=environment, check=False)
    if check and done.returncode not in (0, 3):
        raise AssertionError(done.stderr.decode())
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_a_component_is_deployed_called_moved_and_deleted(
    nodes: None, environment: dict[str, str]
) -> None:
    _, deployed, _ = await latticectl(environment, "deploy", str(GREETER), "--replicas", "2")
    assert json.loads(deployed)["nodes"] == ["one", "two"]

    for name in ("one", "two"):
        _, result, _ = await latticectl(environment, "call", "greeter", "hello", "World", "--node", name)
        assert json.loads(result) == "Hello, World!"

    _, drained, _ = await latticectl(environment, "drain", "two")
    assert json.loads(drained)["moved"] == 1
    _, replicas, _ = await latticectl(environment, "get", "replicas", "greeter")
    assert {replica["node_name"] for replica in json.loads(replicas)} == {"one"}

    await latticectl(environment, "delete", "greeter")
    code, _, error = await latticectl(environment, "call", "greeter", "hello", "World", check=False)
    assert code == 4
    assert "greeter" in error


async def test_a_client_routes_its_calls_by_itself(
    nodes: None, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await latticectl(environment, "deploy", str(GREETER), "--replicas", "1")
    monkeypatch.setenv("LATTICE_STATE", environment["LATTICE_STATE"])
    settings = ClientSettings(lattice=environment["LATTICE_LATTICE"])

    async with ControlClient.connect(settings, routes_calls=True) as client:
        hello = await client.function("greeter", "hello")
        entering = [(await client.describe_node(name)).id for name in ("one", "two")]
        options = [CallOptions(), *(CallOptions(node=node) for node in entering)]
        greetings = [await client.invoke(hello, ["World"], option) for option in options]

    assert greetings == ["Hello, World!"] * 3


def test_a_component_is_inspected_without_a_lattice(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [*LATTICECTL, "inspect", str(GREETER), "--output", "json"],
        env=environment,
        capture_output=True,
        check=True,
    )

    (export,) = json.loads(done.stdout)["type"]["exports"]
    assert "hello" in export["functions"]
