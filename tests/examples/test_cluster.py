"""The cluster of `compose.yaml`: its configuration and credentials, on three real servers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import anyio
import pytest

from lattice.connection import ConnectionSettings, Credentials
from lattice.errors import LatticeError
from lattice.nats_bus import NatsBus
from node.server_process import find_binary
from tests.ports import own_port

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "examples" / "cluster"
START_SECONDS = 20.0

Result = TypeVar("Result")


class Cluster:
    """Three servers with the very files that the containers get, on ports and in folders of this test."""

    def __init__(self, folder: Path) -> None:
        self.clients = folder / "clients"
        self.folders = [folder / f"nats-{number}" for number in (1, 2, 3)]
        self.ports = [own_port() for _ in self.folders]
        self._folder = folder
        self._routes = [own_port() for _ in self.folders]
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(f"nats://127.0.0.1:{port}" for port in self.ports)

    def write(self) -> None:
        """Make the credentials and one configuration for each server."""
        servers = self._folder / "credentials"
        routes = [f"127.0.0.1:{port}" for port in self._routes]
        make_credentials(servers, self.clients, *routes)
        for folder, port, route in zip(self.folders, self.ports, self._routes, strict=True):
            folder.mkdir()
            (folder / "credentials").symlink_to(servers)
            text = (CLUSTER / "nats.conf").read_text()
            text = text.replace("0.0.0.0:4222", f"127.0.0.1:{port}")
            text = text.replace("0.0.0.0:6222", f"127.0.0.1:{route}")
            text = text.replace("127.0.0.1:8222", f"127.0.0.1:{own_port()}")
            (folder / "nats.conf").write_text(text)

    def command(self, folder: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
        environment = {**os.environ, "SERVER_NAME": folder.name, "STORE_DIR": str(folder / "data")}
        return [find_binary(), "-c", str(folder / "nats.conf"), *arguments], environment

    def start(self) -> None:
        for folder in self.folders:
            command, environment = self.command(folder)
            with open(folder / "server.log", "wb") as log:
                process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            self._processes.append(process)
        deadline = time.monotonic() + START_SECONDS
        while not self._has_leader():
            if time.monotonic() > deadline:
                pytest.fail("\n".join((folder / "server.log").read_text() for folder in self.folders))
            time.sleep(0.05)

    def kill(self, index: int) -> None:
        self._processes[index].kill()
        self._processes[index].wait(10)

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait(10)

    def settings(self) -> ConnectionSettings:
        return ConnectionSettings(
            urls=self.urls,
            credentials=Credentials(file=self.clients / "lattice.creds"),
            system_credentials=Credentials(file=self.clients / "system.creds"),
        )

    def _has_leader(self) -> bool:
        logs = [(folder / "server.log").read_text() for folder in self.folders]
        return any("Self is new JetStream cluster metadata leader" in log for log in logs)


async def eventually(operation: Callable[[], Awaitable[Result]]) -> Result:
    """The operation's result, once the cluster has settled enough to give one."""
    deadline = anyio.current_time() + START_SECONDS
    while True:
        try:
            return await operation()
        except LatticeError:
            if anyio.current_time() > deadline:
                raise
        await anyio.sleep(0.05)


def make_credentials(*arguments: Path | str) -> str:
    script = CLUSTER / "credentials.py"
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    cluster.write()
    yield cluster
    cluster.stop()


def test_the_configuration_is_valid_for_each_server(cluster: Cluster) -> None:
    for folder in cluster.folders:
        command, environment = cluster.command(folder, "-t")

        checked = subprocess.run(command, env=environment, capture_output=True, text=True)

        assert checked.returncode == 0, checked.stderr


def test_credentials_are_made_once_and_private(tmp_path: Path) -> None:
    servers, clients = tmp_path / "servers", tmp_path / "clients"
    first = make_credentials(servers, clients)
    files = {path: path.read_text() for folder in (servers, clients) for path in folder.iterdir()}

    second = make_credentials(servers, clients)

    assert "new" in first
    assert "kept" in second
    assert {path.name for path in files} == {
        "accounts.conf", "routes.conf", "lattice.creds", "system.creds"
    }  # fmt: skip
    assert all(path.read_text() == text for path, text in files.items())
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)


@pytest.mark.slow
async def test_three_servers_keep_a_replicated_bucket_when_one_dies(cluster: Cluster) -> None:
    await anyio.to_thread.run_sync(cluster.start)
    async with NatsBus(cluster.settings()) as bus:
        bucket = await eventually(lambda: bus.key_value("TEST"))
        await eventually(lambda: bucket.put("key", b"before"))
        reply = await bus.request("$JS.API.STREAM.INFO.KV_TEST", timeout_seconds=5)
        sees_disconnects = await bus.watch_disconnects(lambda disconnect: None)

        cluster.kill(2)

        await eventually(lambda: bucket.put("key", b"after"))
        entry = await eventually(lambda: bucket.get("key"))
        assert entry is not None
        assert entry.value == b"after"
        assert json.loads(reply.data)["config"]["num_replicas"] == 3
        assert sees_disconnects


def test_compose_file_is_sound() -> None:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    services = compose["services"]
    servers = [name for name in services if name.startswith("nats-")]
    nodes = [name for name in services if name.startswith("node-")]

    assert len(servers) == len(nodes) == 3
    for name in servers:
        version = re.fullmatch(r"nats:(\d+)\.(\d+)\.(\d+)-alpine", services[name]["image"])
        assert version is not None
        assert tuple(map(int, version.groups())) >= (2, 12, 7)
        assert services[name]["environment"]["SERVER_NAME"] == name
    for name in nodes:
        environment = services[name]["environment"]
        assert environment["LATTICE_NAME"] == name
        assert all(f"nats://{server}:4222" in environment["LATTICE_NATS"] for server in servers)
        assert environment["LATTICE_DATA"]
    for service in services.values():
        used = {volume.split(":")[0] for volume in service.get("volumes", ())}
        assert {volume for volume in used if not volume.startswith(".")} <= set(compose["volumes"])
