"""The server that the nodes of one machine share, with real processes."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from anyio import Path as AsyncPath
from anyio import to_thread

from lattice.connection import (
    SERVER_FILE,
    ConnectionSettings,
    ServerFile,
    find_server,
    process_start,
    read_server_file,
)
from lattice.errors import Failed, Invalid, Unreachable
from lattice.nats_bus import NatsBus
from node.embedded_server import EmbeddedServer
from node.file_lock import FileLock
from node.server_process import free_port, stop_server

MEMBER = Path(__file__).with_name("lattice_member.py")
WAIT_SECONDS = 20.0


class Member:
    """A node's process, as far as the server is concerned."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(MEMBER), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(MEMBER.parents[2])},
        )

    def wait_until_up(self) -> tuple[str, int]:
        """The server's and the connection's id, once it is connected."""
        assert self._process.stdout is not None
        word, server, client = self._process.stdout.readline().split()
        assert word == "up"
        return server, int(client)

    def leave(self) -> None:
        """Let it end as it should."""
        self._process.communicate("\n", timeout=WAIT_SECONDS)
        assert self._process.returncode == 0

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._process.kill()
        self._process.communicate(timeout=WAIT_SECONDS)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "lattice" / "server"
    yield folder
    if folder.exists():
        stop_server(folder)


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[[], Member]]:
    members: list[Member] = []

    def start() -> Member:
        members.append(Member(folder))
        return members[-1]

    yield start
    for member in members:
        member.kill()


def _file(folder: Path) -> ServerFile:
    found = read_server_file(folder)
    assert found is not None
    return found


def _wait_for(condition: Callable[[], bool], seconds: float = WAIT_SECONDS) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds
        time.sleep(0.01)
    return time.monotonic() - started


async def _read(folder: Path) -> ServerFile:
    return await to_thread.run_sync(_file, folder)


async def _find(folder: Path) -> ConnectionSettings:
    return await to_thread.run_sync(find_server, "lattice", folder.parents[1])


def _is_restarted(folder: Path, before: ServerFile) -> bool:
    now = _file(folder)
    return now.pid not in (0, before.pid) and now.is_running


async def test_nodes_of_one_machine_share_one_server(folder: Path) -> None:
    async with (
        EmbeddedServer(folder, preferred_port=0) as first,
        EmbeddedServer(folder, preferred_port=0) as second,
        NatsBus(first.connection()) as one,
        NatsBus(second.connection()) as two,
    ):
        store = await one.key_value("shared")
        await store.put("key", b"value")
        assert [entry.value for entry in await (await two.key_value("shared")).entries()] == [b"value"]
        assert await one.watch_disconnects(lambda _: None)


async def test_the_server_leaves_half_of_the_cores_to_the_nodes(folder: Path) -> None:
    async with EmbeddedServer(folder, preferred_port=0):
        pid = json.loads(await AsyncPath(folder / SERVER_FILE).read_text())["pid"]
        environment = (await AsyncPath(f"/proc/{pid}/environ").read_bytes()).split(b"\0")

    assert f"GOMAXPROCS={max(1, len(os.sched_getaffinity(0)) // 2)}".encode() in environment


async def test_files_are_for_their_owner_only(folder: Path) -> None:
    async with EmbeddedServer(folder, preferred_port=0):
        assert stat.S_IMODE((await AsyncPath(folder).stat()).st_mode) == 0o700
        for name in (SERVER_FILE, "nats-server.conf"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        config = json.loads((folder / "nats-server.conf").read_text())
        assert config["jetstream"]["sync_interval"] == "always"
        assert config["listen"].startswith("127.0.0.1:")


async def test_the_last_to_leave_stops_the_server_and_data_remain(folder: Path) -> None:
    async with EmbeddedServer(folder, preferred_port=0):
        async with EmbeddedServer(folder, preferred_port=0) as second, NatsBus(second.connection()) as bus:
            await (await bus.key_value("kept")).put("key", b"value")
            pid = (await _read(folder)).pid
        found = await _read(folder)
        assert await to_thread.run_sync(lambda: found.is_running)
    assert await to_thread.run_sync(process_start, pid) is None
    assert await to_thread.run_sync(read_server_file, folder) is None

    async with EmbeddedServer(folder, preferred_port=0) as again, NatsBus(again.connection()) as bus:
        entry = await (await bus.key_value("kept")).get("key")
    assert entry is not None
    assert entry.value == b"value"


async def test_the_preferred_port_is_left_to_whoever_has_it(folder: Path, nats_server: object) -> None:
    taken = nats_server.port  # type: ignore[attr-defined]
    async with EmbeddedServer(folder, preferred_port=taken) as server, NatsBus(server.connection()):
        assert (await _read(folder)).port != taken


async def test_servers_that_want_one_port_at_once_each_get_one(tmp_path: Path) -> None:
    port = free_port()
    urls: list[str] = []
    all_run = anyio.Event()

    async def run(folder: Path) -> None:
        async with EmbeddedServer(folder, preferred_port=port) as server, NatsBus(server.connection()):
            urls.extend(server.connection().urls)
            if len(urls) == 4:
                all_run.set()
            with anyio.fail_after(WAIT_SECONDS):
                await all_run.wait()

    async with anyio.create_task_group() as tasks:
        for name in "abcd":
            tasks.start_soon(run, tmp_path / name / "server")

    assert len(set(urls)) == 4


async def test_a_stale_file_does_not_lead_to_another_process(folder: Path) -> None:
    await AsyncPath(folder).mkdir(parents=True)
    stale = ServerFile(
        url=f"nats://127.0.0.1:{free_port()}",
        pid=os.getpid(),
        started="another boot:1",
        user="lattice",
        password="p",
        system_user="system",
        system_password="s",
    )
    await to_thread.run_sync(stale.write, folder)
    with pytest.raises(Unreachable, match="stale"):
        await _find(folder)

    async with EmbeddedServer(folder, preferred_port=0) as server, NatsBus(server.connection()):
        found = await _find(folder)
        assert found.urls == (stale.url,)


async def test_a_damaged_file_is_replaced(folder: Path) -> None:
    await AsyncPath(folder).mkdir(parents=True)
    (folder / SERVER_FILE).write_text("{")
    with pytest.raises(Invalid, match="damaged"):
        await _find(folder)

    async with EmbeddedServer(folder, preferred_port=0) as server, NatsBus(server.connection()):
        assert (await _find(folder)).urls == server.connection().urls


def test_no_server_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="lattice-node start --lattice demo"):
        find_server("demo", tmp_path)


async def test_a_server_that_cannot_start_says_why(folder: Path) -> None:
    await AsyncPath(folder).mkdir(parents=True)
    (folder / "data").write_text("in the way")
    with pytest.raises(Failed, match="storage directory is not a directory"):
        async with EmbeddedServer(folder, preferred_port=0):
            pass


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Invalid, match="LATTICE_STATE"):
        async with EmbeddedServer(tmp_path / "file" / "server"):
            pass


async def test_errors_of_the_body_come_out_as_themselves(folder: Path) -> None:
    with pytest.raises(KeyError):
        async with EmbeddedServer(folder, preferred_port=0) as server, NatsBus(server.connection()):
            raise KeyError("mine")


@pytest.mark.fault
async def test_a_killed_server_is_back_within_a_second_with_its_data(folder: Path) -> None:
    async with EmbeddedServer(folder, preferred_port=0) as server, NatsBus(server.connection()) as bus:
        store = await bus.key_value("kept")
        revision = await store.put("key", b"value")
        before = await _read(folder)
        changes: list[bool] = []
        back = anyio.Event()

        def receive(is_connected: bool) -> None:
            changes.append(is_connected)
            if is_connected:
                back.set()

        bus.on_connection_change(receive)

        os.kill(before.pid, signal.SIGKILL)
        started = anyio.current_time()
        with anyio.fail_after(WAIT_SECONDS):
            await back.wait()
        seconds = anyio.current_time() - started

        assert seconds < 1.5
        assert changes == [False, True]
        assert (await _read(folder)).url == before.url
        entry = await store.get("key")
        assert entry is not None
        assert (entry.value, entry.revision) == (b"value", revision)


@pytest.mark.fault
async def test_a_server_whose_port_another_lattice_took_moves_and_is_found(
    folder: Path, tmp_path: Path
) -> None:
    async with EmbeddedServer(folder, preferred_port=0) as server, NatsBus(server.connection()) as bus:
        store = await bus.key_value("kept")
        await store.put("key", b"value")
        before = await _read(folder)
        start = FileLock(folder / "start.lock")
        assert start.take()

        os.kill(before.pid, signal.SIGKILL)
        await to_thread.run_sync(_wait_for, lambda: free_port(before.port) == before.port)
        async with EmbeddedServer(tmp_path / "other" / "server", preferred_port=before.port) as other:
            assert other.connection().urls == (before.url,)
            start.close()
            with anyio.fail_after(WAIT_SECONDS):
                await bus.wait_until_connected()
            entry = await store.get("key")

        assert entry is not None
        assert entry.value == b"value"
        assert (await _read(folder)).port != before.port


@pytest.mark.fault
@pytest.mark.slow
def test_three_nodes_that_start_at_once_start_one_server(folder: Path, start: Callable[[], Member]) -> None:
    members = [start() for _ in range(3)]
    servers = {member.wait_until_up()[0] for member in members}
    pid = _file(folder).pid

    for member in members:
        member.leave()

    assert len(servers) == 1
    assert process_start(pid) is None


@pytest.mark.fault
@pytest.mark.slow
def test_the_server_outlives_its_starter_and_another_node_keeps_it(
    folder: Path, start: Callable[[], Member]
) -> None:
    starter = start()
    starter.wait_until_up()
    other = start()
    other.wait_until_up()
    before = _file(folder)

    starter.kill()
    assert before.is_running
    os.kill(before.pid, signal.SIGKILL)
    _wait_for(lambda: _is_restarted(folder, before))

    assert _file(folder).url == before.url
    other.leave()
    assert read_server_file(folder) is None


@pytest.mark.fault
@pytest.mark.slow
def test_nodes_that_all_die_leave_a_server_that_the_next_takes_over(
    folder: Path, start: Callable[[], Member]
) -> None:
    first = start()
    server, _ = first.wait_until_up()
    first.kill()

    second = start()

    assert second.wait_until_up()[0] == server
    second.leave()
    assert read_server_file(folder) is None


@pytest.mark.fault
async def test_a_server_whose_starter_died_early_is_taken_over(folder: Path) -> None:
    async with EmbeddedServer(folder, preferred_port=0):
        complete = await _read(folder)
        planned = {**json.loads((folder / SERVER_FILE).read_text()), "pid": 0, "started": ""}
        (folder / SERVER_FILE).write_text(json.dumps(planned))
        async with EmbeddedServer(folder, preferred_port=0) as second, NatsBus(second.connection()):
            assert (await _read(folder)) == complete
