"""Lattices of real processes: `lattice-node start` on an embedded or a given NATS server, and `latticectl`.

Whatever a test does to them, nothing is left running: `Lattice.close` kills the nodes and the server that
they shared.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import pytest

from ctl.artifact import name_for, read_artifact
from ctl.client import ControlClient, connection_settings
from ctl.deployment import Deployment
from ctl.inspection import node_program
from ctl.models import Deployed
from ctl.rollout import release
from ctl.settings import ClientSettings
from lattice.connection import SERVER_FILE, ServerFile, server_folder
from lattice.errors import LatticeError
from lattice.nats_bus import NatsBus
from tests.signals import resume, suspend

NODE = str(node_program())
LATTICECTL = [sys.executable, "-c", "from ctl.cli import main; main()"]
EXAMPLES = Path(__file__).parents[2] / "examples"
GREETER = EXAMPLES / "greeter" / "wat" / "greeter.wasm"
GREETER_C = EXAMPLES / "greeter" / "c" / "greeter.wasm"
MISBEHAVE = EXAMPLES / "misbehave" / "misbehave.wasm"
FLOOD = EXAMPLES / "flood" / "c" / "flood.wasm"
GREETER_KV = EXAMPLES / "greeter-kv" / "c" / "greeter-kv.wasm"
KV_STORE = EXAMPLES / "kv-store" / "c" / "kv-store.wasm"
TYPES = EXAMPLES / "types" / "rust" / "types.wasm"
BYTES = EXAMPLES / "bytes" / "c" / "bytes.wasm"

POLL_SECONDS = 0.02
READY_SECONDS = 30.0
END_SECONDS = 20.0
DEPLOY_SECONDS = 20.0

Found = TypeVar("Found")


async def until(find: Callable[[], Awaitable[Found]], *, seconds: float = 20.0, what: str = "") -> Found:
    """What `find` gives as soon as it is true; fails the test when it is not within the time.

    An error of the lattice counts as "not yet": what is asked may be the part that is just failing.
    """
    last: object = None
    with anyio.move_on_after(seconds):
        while True:
            try:
                found = await find()
            except LatticeError as error:
                last = error
            else:
                if found:
                    return found
                last = found
            await anyio.sleep(POLL_SECONDS)
    raise AssertionError(f"{what or find} did not come true within {seconds:g} s; last: {last!r}")


class NodeProcess:
    """One `lattice-node start`, with its log; its label `node` is its name, for placing by hand."""

    def __init__(
        self, name: str, folder: Path, environment: Mapping[str, str], options: tuple[str, ...]
    ) -> None:
        self.name = name
        self.log_file = folder / f"{name}.log"
        self._environment = environment
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def __repr__(self) -> str:
        return f"<NodeProcess {self.name} {self._process and self._process.pid}>"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"node {self.name} was not started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def id(self) -> str:
        """The node's id, as it says when it is ready."""
        return str(next(line["id"] for line in self.lines("node.ready")))

    def start(self) -> None:
        """Start the process; see `ready`."""
        self._log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        own = ("--name", self.name, "--label", f"node={self.name}", "--log-format", "json")
        command = [NODE, "start", *own, *self._options]
        with open(self.log_file, "ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def text(self) -> str:
        """What it has written since its start."""
        with open(self.log_file, "rb") as log:
            log.seek(self._log_start)
            return log.read().decode()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log about an event."""
        found = []
        for line in self.text().splitlines():
            with suppress(ValueError):
                if isinstance(parsed := json.loads(line), dict) and parsed.get("event") == event:
                    found.append(parsed)
        return found

    async def ready(self) -> None:
        """Return when the node says so; fails when the process ends instead."""
        await until(self._is_ready, seconds=READY_SECONDS, what=f"node {self.name} is ready")

    def check(self) -> None:
        """Fail the test when the process has ended."""
        if not self.is_running:
            pytest.fail(f"node {self.name} ended with {self.process.returncode}:\n{self.text()}")

    async def _is_ready(self) -> bool:
        self.check()
        return bool(self.lines("node.ready"))

    def kill(self) -> None:
        """As `kill -9`; the process is gone when this returns."""
        self.process.kill()
        self.process.wait()

    def suspend(self) -> None:
        """As SIGSTOP; the process stands still when this returns."""
        suspend(self.pid)

    def resume(self) -> None:
        """As SIGCONT."""
        resume(self.pid)

    def terminate(self) -> None:
        """As SIGTERM; see `ended`."""
        self.process.terminate()

    async def ended(self, seconds: float = END_SECONDS) -> int:
        """The exit code, when the process has ended."""

        async def has_ended() -> bool:
            return not self.is_running

        await until(has_ended, seconds=seconds, what=f"node {self.name} has ended")
        return int(self.process.returncode)


@dataclass(frozen=True, slots=True)
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The data that it printed; fails with what it said instead."""
        assert self.out, self.err
        return json.loads(self.out)


class Lattice:
    """A lattice of node processes; leaving it leaves nothing running.

    Without `nats` the nodes share an embedded server in `folder`.
    """

    def __init__(self, folder: Path, name: str, *, nats: str | None = None) -> None:
        self.folder = folder
        self.name = name
        self.nats = nats
        self.nodes: dict[str, NodeProcess] = {}

    @property
    def environment(self) -> dict[str, str]:
        """For commands: this lattice's variables and no others."""
        others = {key: value for key, value in os.environ.items() if not key.startswith("LATTICE_")}
        own = {"LATTICE_STATE": str(self.folder), "LATTICE_LATTICE": self.name, "NO_COLOR": "1"}
        return {**others, **own, **({"LATTICE_NATS": self.nats} if self.nats else {})}

    def __getitem__(self, name: str) -> NodeProcess:
        return self.nodes[name]

    async def __aenter__(self) -> Lattice:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.close()

    def node(self, name: str, *options: str, nats: str | None = None) -> NodeProcess:
        """A node that is not started yet; `nats` is a way to the server of its own."""
        extra = {"LATTICE_NATS": nats} if nats else {}
        node = NodeProcess(name, self.folder, {**self.environment, **extra}, options)
        self.nodes[name] = node
        return node

    async def add(self, *names: str, options: tuple[str, ...] = ()) -> None:
        """Start nodes side by side and return when all are ready and know each other."""
        for name in names:
            self.node(name, *options).start()
        await self.settled()

    async def restore(self) -> None:
        """Make the lattice as good as new: all its nodes run, and nothing is deployed."""
        for node in self.nodes.values():
            if node.lines("node.draining"):
                await node.ended()
            if not node.is_running:
                node.start()
            node.resume()
        await self.settled()
        async with self.connect() as client:
            for component in await client.components():
                await client.delete(component.name)
            await until(lambda: _nothing_runs(client), what="all replicas are stopped")

    async def settled(self) -> None:
        """Return when all nodes that run are ready, and each counts them all."""
        running = {name: node for name, node in self.nodes.items() if node.is_running}
        for node in running.values():
            await node.ready()
        async with self.connect() as client:
            await until(lambda: self._is_seen(client, running), what=f"{sorted(running)} make a lattice")

    async def _is_seen(self, client: ControlClient, running: Mapping[str, NodeProcess]) -> bool:
        for node in running.values():
            node.check()
        return {node.name for node in await client.nodes() if node.state == "ready"} == set(running)

    @asynccontextmanager
    async def connect(
        self, *, routes_calls: bool = False, timeout_seconds: float = 10.0
    ) -> AsyncIterator[ControlClient]:
        """A client as a user's program has it."""
        settings = ClientSettings(lattice=self.name, nats=self.nats, timeout_seconds=timeout_seconds)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LATTICE_STATE", str(self.folder))
            connection = ControlClient.connect(settings, routes_calls=routes_calls)
            client = await connection.__aenter__()
        try:
            yield client
        finally:
            await connection.__aexit__(None, None, None)

    @asynccontextmanager
    async def bus(self) -> AsyncIterator[NatsBus]:
        """A bare connection, for messages that no client sends."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LATTICE_STATE", str(self.folder))
            client = ClientSettings(lattice=self.name, nats=self.nats)
            settings = await anyio.to_thread.run_sync(connection_settings, client)
        async with NatsBus(settings) as bus:
            yield bus

    async def ctl(self, *args: str | Path, seconds: float = 60.0) -> Done:
        """Run a `latticectl` command; most print JSON with `--output json`."""
        return await run([*LATTICECTL, *map(str, args)], self.environment, seconds)

    async def deploy(self, file: Path, **fields: Any) -> Deployed:
        """Deploy a file, as the command does, and return when its replicas answer.

        `fields` are those of a `Deployment`; with `waits=False` the replicas are not waited for.
        """
        wait_seconds = DEPLOY_SECONDS if fields.pop("waits", True) else None
        artifact = await anyio.to_thread.run_sync(read_artifact, file)
        deployment = Deployment(digest=artifact.digest, **{"name": name_for(file), **fields})
        async with self.connect() as client:
            return await release(
                client, artifact, deployment, progress=lambda *_: None, wait_seconds=wait_seconds
            )

    async def close(self) -> None:
        """Kill all nodes, and the embedded server if there is one."""
        for node in self.nodes.values():
            if node.is_running:
                node.kill()
        await self.kill_server()

    async def kill_server(self) -> None:
        """Kill the embedded server, if there is one; a node that runs starts it again."""
        await anyio.to_thread.run_sync(self._kill_server)

    def _kill_server(self) -> None:
        file = server_folder(self.name, self.folder) / SERVER_FILE
        with suppress(FileNotFoundError):
            found = ServerFile(**json.loads(file.read_bytes()))
            if found.is_running:
                os.kill(found.pid, signal.SIGKILL)


async def run(command: list[str], environment: Mapping[str, str], seconds: float = 60.0) -> Done:
    """Run a command to its end; it is killed when the time is over."""
    with anyio.fail_after(seconds):
        done = await anyio.run_process(command, env=environment, stdin=subprocess.DEVNULL, check=False)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


async def _nothing_runs(client: ControlClient) -> bool:
    return not await client.components() and not await client.replicas()
