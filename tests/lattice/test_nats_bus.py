"""What the NATS bus does when the server is away, killed, wiped, too old, or does not want us."""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from nats.aio.client import Client
from nats.protocol import parser as library
from structlog.testing import capture_logs

from lattice.bus import Disconnect, Entry, KeyValue, QueueSettings
from lattice.conformance import CHECKS
from lattice.conformance_setting import Inbox, Setting, Watched, refused
from lattice.connection import ConnectionSettings, Credentials
from lattice.errors import Denied, Failed, Interrupted, Invalid, LatticeError, NotFound, TimedOut, Unreachable
from lattice.nats_bus import NatsBus
from lattice.nats_parser import LIBRARY_MESSAGE, LIBRARY_WITH_HEADERS
from tests.servers import NatsServer

WAIT_SECONDS = 15.0
MakeServer = Callable[..., NatsServer]


class Changes:
    """Waits for what a bus says of its connection."""

    def __init__(self, bus: NatsBus) -> None:
        self.seen: list[bool] = []
        self._changed = anyio.Event()
        bus.on_connection_change(self._receive)

    def _receive(self, is_connected: bool) -> None:
        self.seen.append(is_connected)
        self._changed.set()

    async def wait_until(self, seen: list[bool]) -> None:
        with anyio.fail_after(WAIT_SECONDS):
            while self.seen != seen:
                self._changed = anyio.Event()
                await self._changed.wait()


def _with_user(settings: ConnectionSettings, user: str, password: str) -> ConnectionSettings:
    return dataclasses.replace(settings, credentials=Credentials(user=user, password=password))


async def _start(server: NatsServer) -> None:
    await anyio.to_thread.run_sync(server.start)


def test_the_library_still_has_what_is_overridden_and_used() -> None:
    signatures = {
        "_process_headers": ["self", "headers"],
        "_build_message": ["self", "sid", "subject", "reply", "data", "headers"],
        "_select_next_server": ["self"],
        "_send_command": ["self", "cmd", "priority"],
        "_flush_pending": ["self", "force_flush"],
        "_send_ping": ["self", "future"],
        "_process_op_err": ["self", "e"],
        "_process_err": ["self", "err_msg"],
        "_connect_to_server": ["self", "s"],
    }
    for name, parameters in signatures.items():
        assert list(inspect.signature(getattr(Client, name)).parameters) == parameters
    client = Client()
    for attribute in ("_server_info", "_server_pool", "_current_server", "_transport", "_pongs", "_sid"):
        assert hasattr(client, attribute)


def test_the_library_finds_messages_by_expressions_with_the_groups_of_ours() -> None:
    source = inspect.getsource(library.Parser.parse)

    assert "subject, sid, _, reply, needed_bytes = msg.groups()" in source
    assert "subject, sid, _, reply, header_size, needed_bytes = msg.groups()" in source
    assert library.MSG_RE is LIBRARY_MESSAGE and library.HMSG_RE is LIBRARY_WITH_HEADERS


@pytest.mark.parametrize("size", [1, 300_000], ids=["small", "large"])
@pytest.mark.parametrize("odd", [b"\xff", b"\x0b", b"\x0c"], ids=repr)
async def test_no_byte_that_anybody_sends_in_a_subject_ends_the_connection(
    nats_server: NatsServer, odd: bytes, size: int
) -> None:
    data, received = b"x" * size, Inbox()
    async with NatsBus(nats_server.settings()) as bus, NatsBus(nats_server.settings()) as stranger:
        changes = Changes(bus)
        await bus.subscribe("odd.>", received)
        connection = await stranger.wait_until_connected()
        connection.send(b"PUB odd.a%bz reply.a%bz %d\r\n%b\r\n" % (odd, odd, size, data))
        connection.send(b"HPUB odd.a%bz 12 %d\r\nNATS/1.0\r\n\r\n%b\r\n" % (odd, size + 12, data))
        connection.send(b"PUB %b.r.x a%bz 1\r\nx\r\n" % (bus._prefix.encode(), odd))
        await stranger.flush()
        await stranger.publish("odd.last")

        messages = await received.wait_for(3)

    shown = odd.decode("utf-8", "replace")
    assert [message.subject for message in messages] == [f"odd.a{shown}z", f"odd.a{shown}z", "odd.last"]
    assert [len(message.data) for message in messages] == [size, size, 0]
    assert messages[0].reply == f"reply.a{shown}z"
    assert not changes.seen


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_its_promises_on_uvloop(
    check: Callable[[Setting], Awaitable[None]], lattice_name: str, nats_server: NatsServer
) -> None:
    async with NatsBus(nats_server.settings()) as one, NatsBus(nats_server.settings()) as two:
        await check(Setting(one=one, two=two, name=lattice_name))


# At the start


async def test_no_server_is_unreachable_and_says_where() -> None:
    settings = ConnectionSettings(urls=("nats://127.0.0.1:1",), connect_seconds=0.1)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1 .*start it, or correct --nats"):
        async with NatsBus(settings):
            pass


@pytest.mark.fault
async def test_it_waits_for_a_server_that_comes_later(make_nats_server: MakeServer) -> None:
    server = make_nats_server()
    server.stop()
    connected = anyio.Event()

    async def connect() -> None:
        async with NatsBus(server.settings(connect_seconds=math.inf)):
            connected.set()

    with anyio.fail_after(WAIT_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connect)
            await anyio.sleep(0.05)
            assert not connected.is_set()
            await _start(server)
            await connected.wait()


async def test_wrong_credentials_are_denied_at_once_with_the_cure(nats_server: NatsServer) -> None:
    wrong = _with_user(nats_server.settings(connect_seconds=math.inf), "app", "wrong")
    with pytest.raises(Denied, match="user and the password in --nats"):
        async with NatsBus(wrong):
            pass
    with pytest.raises(Denied, match="--creds FILE"):
        async with NatsBus(dataclasses.replace(wrong, credentials=None)):
            pass


async def test_bad_files_are_invalid(nats_server: NatsServer, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("")
    for change, match in (
        ({"credentials": Credentials(file=tmp_path / "missing")}, "cannot read the credentials file"),
        ({"credentials": Credentials(file=empty)}, "not a NATS credentials file"),
        ({"tls_ca": empty}, "--tls-ca"),
    ):
        with pytest.raises(Invalid, match=match):
            async with NatsBus(dataclasses.replace(nats_server.settings(), **change)):
                pass


async def test_an_older_server_is_refused() -> None:
    async def greet(stream: anyio.abc.SocketStream) -> None:
        info = b'INFO {"server_id":"OLD","version":"2.12.6","max_payload":1048576,"headers":true}\r\n'
        async with stream:
            await stream.send(info)
            with suppress(anyio.BrokenResourceError):
                async for data in stream:
                    if b"PING" in data:
                        await stream.send(b"PONG\r\n")

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, greet)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        with pytest.raises(Invalid, match=r"version 2\.12\.6; at least 2\.12\.7"):
            async with NatsBus(ConnectionSettings(urls=(f"nats://127.0.0.1:{port}",))):
                pass
        tasks.cancel_scope.cancel()


async def test_a_second_url_is_used_when_the_first_does_not_answer(nats_server: NatsServer) -> None:
    settings = dataclasses.replace(nats_server.settings(), urls=("nats://127.0.0.1:1", nats_server.url))
    for _ in range(4):
        async with NatsBus(settings) as bus:
            await bus.flush()


# JetStream


@pytest.mark.fault
async def test_a_server_without_jetstream_says_what_to_enable(make_nats_server: MakeServer) -> None:
    async with NatsBus(make_nats_server(has_jetstream=False).settings()) as bus:
        with pytest.raises((Unreachable, Denied), match="jetstream"):
            await bus.key_value("b")


@pytest.mark.fault
async def test_an_account_without_jetstream_says_what_to_enable(
    make_nats_server: MakeServer, tmp_path: Path
) -> None:
    server = make_nats_server(has_jetstream=False, jetstream={"store_dir": str(tmp_path / "data")})
    async with NatsBus(server.settings()) as bus:
        with pytest.raises((Unreachable, Denied), match="jetstream"):
            await bus.key_value("b")


async def _watched(bus: NatsBus, name: str) -> tuple[KeyValue, Watched]:
    store, watched = await bus.key_value(name), Watched()
    await store.put("key", b"1")
    await store.watch(watched, on_restart=watched.restarts.append)
    await watched.wait_until(lambda entries: len(entries) == 2)
    return store, watched


@pytest.mark.slow
async def test_a_watch_notices_a_deleted_bucket_without_a_reconnect(
    nats_bus: NatsBus, lattice_name: str
) -> None:
    store, watched = await _watched(nats_bus, lattice_name)

    await nats_bus.request(f"$JS.API.STREAM.DELETE.KV_{lattice_name}", timeout_seconds=5)

    await watched.wait_until(lambda entries: entries.count(None) == 2)
    assert watched.restarts == [True]
    assert await store.create("key", b"2") == 1
    await watched.wait_until(lambda entries: entries[-1] == Entry("key", b"2", 1))


async def test_any_operation_makes_a_lost_bucket_anew(nats_bus: NatsBus, lattice_name: str) -> None:
    store = await nats_bus.key_value(lattice_name)
    objects = await nats_bus.object_store(lattice_name)

    async def lose() -> None:
        for kind in ("KV", "OBJ"):
            subject = f"$JS.API.STREAM.DELETE.{kind}_{lattice_name}"
            await nats_bus.request(subject, timeout_seconds=5)

    for operation in (
        lambda: store.get("key"),
        lambda: store.entries(),
        lambda: store.put("key", b""),
        lambda: store.create("key", b""),
    ):
        await store.put("key", b"")
        await objects.put("object", b"data")
        await lose()
        await operation()
        assert await objects.names() == []


async def test_a_damaged_object_is_found_out(nats_bus: NatsBus, lattice_name: str) -> None:
    objects = await nats_bus.object_store(lattice_name)
    await objects.put("object", b"data")
    seen = Inbox()
    await nats_bus.subscribe(f"$O.{lattice_name}.C.*", seen)
    await objects.put("object", b"data")
    chunk = (await seen.wait_for(1))[0].subject

    await nats_bus.request(
        f"$JS.API.STREAM.PURGE.OBJ_{lattice_name}", f'{{"filter":"{chunk}"}}'.encode(), timeout_seconds=5
    )
    await nats_bus.request(chunk, b"atad", timeout_seconds=5)

    with pytest.raises(Failed, match="damaged"):
        await objects.get("object")


@pytest.mark.slow
async def test_a_value_that_grows_too_old_is_a_deletion(nats_bus: NatsBus, lattice_name: str) -> None:
    store, watched = await nats_bus.key_value(lattice_name, ttl_seconds=1.0), Watched()
    await store.watch(watched)
    await store.put("key", b"1")

    entries = await watched.wait_until(lambda entries: len(entries) == 3)

    assert entries[-1] is not None
    assert (entries[-1].key, entries[-1].value) == ("key", None)


# Losing the connection


@pytest.mark.fault
async def test_everything_comes_back_after_the_server_was_killed(make_nats_server: MakeServer) -> None:
    server = make_nats_server()
    async with NatsBus(server.settings()) as bus, NatsBus(server.settings()) as other:
        changes, inbox = Changes(bus), Inbox()
        await bus.subscribe("news", inbox)
        store, watched = await _watched(bus, "b")
        before = (bus.server_id, bus.client_id)

        server.kill()
        await changes.wait_until([False])
        await refused(Unreachable, bus.publish("news"))
        await refused(Unreachable, bus.request("news", timeout_seconds=5))
        await refused(Unreachable, store.get("key"))
        await _start(server)
        await changes.wait_until([False, True])

        await watched.wait_until(lambda entries: entries.count(None) == 2)
        assert watched.entries == [Entry("key", b"1", 1), None, Entry("key", b"1", 1), None]
        assert watched.restarts == [False]
        assert (bus.server_id, bus.client_id) != before
        await other.wait_until_connected()
        await other.publish("news", b"again")
        assert (await inbox.wait_for(1))[0].data == b"again"
        await (await other.key_value("b")).put("key", b"2")
        await watched.wait_until(lambda entries: entries[-1] == Entry("key", b"2", 2))
        assert bus.statistics().reconnects == 1


@pytest.mark.fault
async def test_pending_requests_end_at_once_when_the_server_is_killed(make_nats_server: MakeServer) -> None:
    server = make_nats_server()
    async with NatsBus(server.settings()) as bus:
        inbox = Inbox()
        await bus.subscribe("mute", inbox)
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(refused, Interrupted, bus.request("mute", timeout_seconds=60))
            await inbox.wait_for(10)
            server.kill()
            started = anyio.current_time()
        assert anyio.current_time() - started < 10  # they had a minute
        assert bus.statistics().pending_requests == 0


@pytest.mark.fault
async def test_wiped_data_are_reported_and_buckets_are_made_anew(make_nats_server: MakeServer) -> None:
    server = make_nats_server()
    async with NatsBus(server.settings()) as bus:
        changes = Changes(bus)
        store, watched = await _watched(bus, "b")
        objects = await bus.object_store("o")
        await objects.put("object", b"data")

        server.kill()
        server.wipe()
        await _start(server)
        await changes.wait_until([False, True])

        await watched.wait_until(lambda entries: entries.count(None) == 2)
        assert watched.restarts == [True]
        assert watched.entries == [Entry("key", b"1", 1), None, None]
        assert await store.get("key") is None
        assert await store.create("key", b"2") == 1
        await refused(NotFound, objects.get("object"))
        await objects.put("object", b"data")
        assert await objects.get("object") == b"data"


@pytest.mark.fault
@pytest.mark.slow
async def test_a_server_that_stands_still_is_noticed(make_nats_server: MakeServer) -> None:
    server = make_nats_server()
    async with NatsBus(server.settings()) as bus:
        changes = Changes(bus)
        server.suspend()
        try:
            await refused(TimedOut, bus.request("nobody", timeout_seconds=0.2))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(refused, Interrupted, bus.request("nobody", timeout_seconds=60))
                await changes.wait_until([False])
        finally:
            server.resume()
        await changes.wait_until([False, True])


@pytest.mark.fault
@pytest.mark.slow
async def test_credentials_that_are_refused_again_and_again_end_the_bus(
    make_nats_server: MakeServer,
) -> None:
    server = make_nats_server()
    users = {"users": [{"user": "app", "password": "another"}]}

    async def run() -> None:
        async with NatsBus(server.settings(system=False)):
            server.kill()
            server.change(accounts={"SYS": {}, "APP": users})
            await _start(server)
            await anyio.sleep_forever()

    with pytest.raises(Denied, match="password"), anyio.fail_after(WAIT_SECONDS):
        await run()


@pytest.mark.fault
async def test_subscribing_while_disconnected_waits_for_the_connection(make_nats_server: MakeServer) -> None:
    server = make_nats_server()
    async with NatsBus(server.settings()) as bus:
        changes, inbox = Changes(bus), Inbox()
        server.kill()
        await changes.wait_until([False])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bus.subscribe, "news", inbox)
            await _start(server)
        await bus.publish("news", b"x")
        assert (await inbox.wait_for(1))[0].data == b"x"


# Permissions and the system account


@pytest.mark.fault
async def test_what_the_server_forbids_is_denied(make_nats_server: MakeServer) -> None:
    permissions = {"publish": {"deny": ["Secret.>"]}, "subscribe": {"deny": ["Secret.>"]}}
    user = {"user": "app", "password": "app", "permissions": permissions}
    server = make_nats_server(accounts={"SYS": {}, "APP": {"users": [user]}})
    async with NatsBus(server.settings(system=False)) as bus:
        await refused(Denied, bus.subscribe("Secret.x", Inbox()))
        await refused(Denied, bus.request("Secret.x", timeout_seconds=5))
        await refused(Unreachable, bus.request("open", timeout_seconds=5))
        assert bus.is_connected


async def test_without_system_credentials_there_are_no_disconnects(nats_server: NatsServer) -> None:
    wrong = dataclasses.replace(
        nats_server.settings(), system_credentials=Credentials(user="system", password="wrong")
    )
    async with NatsBus(nats_server.settings(system=False)) as bus, NatsBus(wrong) as other:
        assert not await bus.watch_disconnects(lambda _: None)
        assert not await other.watch_disconnects(lambda _: None)
        assert other.is_connected


CLIENT = """
import sys, anyio
from lattice.connection import ConnectionSettings, Credentials
from lattice.nats_bus import NatsBus
from lattice.nats_parser import LIBRARY_MESSAGE, LIBRARY_WITH_HEADERS

async def main():
    credentials = Credentials(user="app", password="app")
    async with NatsBus(ConnectionSettings(urls=(sys.argv[1],), credentials=credentials)) as bus:
        print(bus.server_id, bus.client_id, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


@pytest.mark.fault
async def test_the_death_of_a_client_is_reported_within_milliseconds(
    nats_server: NatsServer, nats_bus: NatsBus
) -> None:
    gone: list[tuple[Disconnect, float]] = []
    came = anyio.Event()

    def receive(disconnect: Disconnect) -> None:
        gone.append((disconnect, anyio.current_time()))
        if disconnect == expected:
            came.set()

    process = await anyio.to_thread.run_sync(_start_client, nats_server.url)
    try:
        assert process.stdout is not None
        server, client = (await anyio.to_thread.run_sync(process.stdout.readline)).split()
        expected = Disconnect(server, int(client))
        assert await nats_bus.watch_disconnects(receive)

        killed = anyio.current_time()
        process.kill()
        with anyio.fail_after(WAIT_SECONDS):
            await came.wait()
    finally:
        process.kill()
        await anyio.to_thread.run_sync(process.communicate)

    assert gone[-1][0] == expected
    assert gone[-1][1] - killed < 3  # no ping tells of it so soon


def _start_client(url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, url],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


async def test_who_leaves_a_queue_group_answers_what_was_given_to_it(nats_server: NatsServer) -> None:
    settings = nats_server.settings()
    async with NatsBus(settings) as member, NatsBus(settings) as client:
        subscription = await member.subscribe(
            "group.left", lambda message: member.publish_nowait(message.reply or ""), queue="members"
        )
        outcomes: list[str] = []

        async def ask() -> None:
            try:
                await client.request("group.left", timeout_seconds=2)
                outcomes.append("answered")
            except Unreachable:
                outcomes.append("nobody")

        async with anyio.create_task_group() as tasks:
            for number in range(2000):
                tasks.start_soon(ask)
                await anyio.lowlevel.checkpoint()
                if number == 1000:
                    tasks.start_soon(subscription.unsubscribe)

    assert len(outcomes) == 2000
    assert "answered" in outcomes


@pytest.mark.slow
async def test_a_queue_without_work_is_left_alone(nats_bus: NatsBus, lattice_name: str) -> None:
    settings = QueueSettings(stream=lattice_name, name="workers", subject=f"{lattice_name}.work")
    queue = await nats_bus.work_queue(settings)

    with capture_logs() as lines, anyio.move_on_after(4):
        await queue.take()

    assert [line["event"] for line in lines if line["event"] == "queue.silent"] == []


async def test_a_queue_goes_on_after_the_server_was_killed_or_wiped(make_nats_server: MakeServer) -> None:
    server = make_nats_server()
    settings = QueueSettings(stream="work", name="workers", subject="work.>", prefetch=8)
    taken: list[bytes] = []

    async def work() -> None:
        while True:
            item = await queue.take()
            taken.append(item.message.data)
            await item.done()

    async def until_taken(bus: NatsBus, data: bytes) -> None:
        with anyio.fail_after(15):
            while data not in taken:
                with suppress(LatticeError):
                    await bus.publish_stored("work.x", data, timeout_seconds=1)
                await anyio.sleep(0.05)

    async with NatsBus(server.settings()) as bus, anyio.create_task_group() as tasks:
        queue = await bus.work_queue(settings)
        tasks.start_soon(work)
        await until_taken(bus, b"before")
        await anyio.to_thread.run_sync(server.kill)
        await anyio.to_thread.run_sync(server.start)
        await until_taken(bus, b"after")
        await anyio.to_thread.run_sync(server.kill)
        await anyio.to_thread.run_sync(server.wipe)
        await anyio.to_thread.run_sync(server.start)
        await until_taken(bus, b"wiped")
        tasks.cancel_scope.cancel()
