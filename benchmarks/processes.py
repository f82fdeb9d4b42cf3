"""A lattice of real processes in a temporary folder: an embedded server, nodes, and clients of both kinds."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio

from ctl.artifact import Artifact
from ctl.client import ControlClient
from ctl.deployment import Deployment
from ctl.rollout import release, wait_until_ready
from ctl.settings import ClientSettings
from lattice.connection import ConnectionSettings, find_server
from lattice.errors import Unreachable
from lattice.nats_bus import NatsBus

LATTICE = "bench"
STATE_VARIABLE = "LATTICE_STATE"
START_SECONDS = 20.0
BIN = Path(sys.executable).parent


class Processes:
    """The mutable state is the processes that run, by node name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str, options: Sequence[str] = ()) -> None:
        """Start nodes, which stay up until `stop` or the end, and return when they are ready."""
        for name in names:
            with open(self.folder / f"{name}.log", "ab") as log:
                command = [str(BIN / "lattice-node"), "start", "--lattice", LATTICE, "--name", name]
                command += ["--data", str(self.folder / f"data-{name}"), "--log-format", "json", *options]
                self._nodes[name] = subprocess.Popen(
                    command, stdout=log, stderr=log, env=self._environment(), start_new_session=True
                )
        for name in names:
            self._wait_until_ready(name)

    def pid(self, name: str) -> int:
        """The process id of a node."""
        return self._nodes[name].pid

    def kill(self, name: str) -> None:
        """End a node as `kill -9` does."""
        process = self._nodes.pop(name)
        (self.folder / f"{name}.log").unlink()
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End all; the last node stops the server."""
        for process in self._nodes.values():
            process.send_signal(signal.SIGTERM)
        for process in self._nodes.values():
            try:
                process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._nodes.clear()

    def connection(self) -> ConnectionSettings:
        """How to reach the server as an application."""
        return find_server(LATTICE, self.folder)

    def url(self) -> str:
        """The same for a plain NATS client."""
        found = self.connection()
        assert found.credentials is not None
        host = found.urls[0].removeprefix("nats://")
        return f"nats://{found.credentials.user}:{found.credentials.password}@{host}"

    @asynccontextmanager
    async def bus(self) -> AsyncIterator[NatsBus]:
        """A connection to the server."""
        async with NatsBus(self.connection()) as bus:
            yield bus

    @asynccontextmanager
    async def client(self, *, routes_calls: bool = False) -> AsyncIterator[ControlClient]:
        """A client that finds the server as users do, with the right to hear of lost nodes at once."""
        settings = ClientSettings(lattice=LATTICE, timeout_seconds=30.0)
        async with ControlClient.connect(settings, routes_calls=routes_calls) as client:
            yield client

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("LATTICE_")}
        return {**kept, STATE_VARIABLE: str(self.folder)}

    def _wait_until_ready(self, name: str) -> None:
        log, deadline = self.folder / f"{name}.log", time.monotonic() + START_SECONDS
        while "node.ready" not in log.read_text():
            if time.monotonic() > deadline or self._nodes[name].poll() is not None:
                raise Unreachable(f"node {name} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.02)


@contextmanager
def processes() -> Iterator[Processes]:
    """A folder for a lattice; whatever runs there is ended with the context."""
    with tempfile.TemporaryDirectory(prefix="lattice-bench-") as folder:
        running = Processes(Path(folder))
        former = os.environ.get(STATE_VARIABLE)
        os.environ[STATE_VARIABLE] = folder
        try:
            yield running
        finally:
            running.stop()
            if former is None:
                del os.environ[STATE_VARIABLE]
            else:
                os.environ[STATE_VARIABLE] = former


def artifact(data: bytes) -> Artifact:
    """Bytes and their digest."""
    return Artifact(data=data, digest=f"sha256:{hashlib.sha256(data).hexdigest()}")


async def deploy(client: ControlClient, name: str, data: bytes, **asked: Any) -> None:
    """Deploy and return when all replicas answer."""
    found = artifact(data)
    await release(
        client, found, Deployment(name=name, digest=found.digest, **asked), progress=lambda step, text: None
    )


async def wait_until_running(client: ControlClient, name: str, replicas: int, seconds: float) -> None:
    """Return when so many replicas answer."""
    await wait_until_ready(client, name, replicas=replicas, timeout_seconds=seconds)


async def node_id(client: ControlClient, name: str) -> str:
    """The id of the node of that name, once it is known."""
    with anyio.fail_after(START_SECONDS):
        while True:
            for node in await client.nodes():
                if node.name == name and node.state == "ready":
                    return node.id
            await anyio.sleep(0.05)
