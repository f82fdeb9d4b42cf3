"""The server configuration in `docs/operations.md` lets each role do its work, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctl.inspection import node_program
from lattice import subjects
from lattice.connection import ConnectionSettings, Credentials
from lattice.errors import LatticeError
from lattice.nats_bus import NatsBus
from node.server_process import find_binary
from tests.docs.pages import DOCS, ROOT, blocks, section
from tests.ports import own_port

GREETER = ROOT / "examples" / "greeter" / "wat" / "greeter.wasm"
LATTICECTL = [sys.executable, "-c", "from ctl.cli import main; main()"]
PASSWORD = "change-me"
SECONDS = 30.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]


@pytest.fixture
def port() -> int:
    return own_port()


@pytest.fixture
def server(tmp_path: Path, port: int) -> Iterator[None]:
    """A NATS server with the page's configuration; only port and folder are others."""
    (config,) = blocks(section(DOCS / "operations.md", "Credentials and permissions"), "nats")
    file = tmp_path / "nats.conf"
    file.write_text(f"listen: 127.0.0.1:{port}\n{config.replace('/var/lib/nats', str(tmp_path / 'nats'))}")
    process = subprocess.Popen([find_binary(), "-c", str(file), "-l", str(tmp_path / "nats.log")])
    yield
    process.kill()
    process.wait()


@pytest.fixture
def lattice(server: None, port: int, tmp_path: Path) -> Iterator[None]:
    """Two nodes under the page's user for nodes."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LATTICE_")}
    environment |= {"LATTICE_STATE": str(tmp_path), "LATTICE_NATS": url("node", port)}
    command = [str(node_program()), "start", "--log-format", "json", "--name"]
    with (tmp_path / "nodes.log").open("wb") as log:
        nodes = [subprocess.Popen([*command, name], env=environment, stderr=log) for name in ("one", "two")]
    deadline = time.monotonic() + SECONDS
    while latticectl(port, "get", "nodes", "--output", "jsonl").stdout.count("\n") < 2:
        assert time.monotonic() < deadline, (tmp_path / "nodes.log").read_text()
    yield
    for node in nodes:
        node.kill()
        node.wait()


def url(user: str, port: int) -> str:
    return f"nats://{user}:{PASSWORD}@127.0.0.1:{port}"


def latticectl(port: int, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LATTICE_NATS": url("operator", port)}
    return subprocess.run(
        [*LATTICECTL, *words], env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
    )


async def test_each_role_can_do_its_work_and_no_more(lattice: None, port: int, tmp_path: Path) -> None:
    deployed = latticectl(port, "deploy", str(GREETER), "--replicas", "2")
    called = latticectl(port, "call", "greeter", "hello", "Ada")
    caller = ConnectionSettings(
        urls=(f"nats://127.0.0.1:{port}",),
        credentials=Credentials(user="shop", password=PASSWORD),
        inbox_prefix="_INBOX_shop",
    )
    async with NatsBus(caller) as bus:
        greet = subjects.call("default", "greeter", "demo:greeter/greet", "hello")
        headers = {"content-type": "application/json"}
        answer = await bus.request(greet, b'["Bob"]', headers=headers, timeout_seconds=10)
        with pytest.raises(LatticeError):
            await bus.request(subjects.control("default", "get.nodes"), timeout_seconds=1)
        with pytest.raises(LatticeError):
            await bus.subscribe("_INBOX.>", lambda message: None)

    assert deployed.returncode == 0, deployed.stderr
    assert called.stdout == '"Hello, Ada!"\n', called.stderr
    assert answer.data == b'"Hello, Bob!"'
    refused = [line for line in (tmp_path / "nats.log").read_text().splitlines() if "Violation" in line]
    assert all("user:shop" in line for line in refused), refused
