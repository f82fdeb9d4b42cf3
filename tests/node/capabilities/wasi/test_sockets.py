"""Connections by the functions of `wasi:sockets`, over the loopback interface."""

from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.abc
import pytest

from lattice.errors import Trapped
from node.capabilities.wasi.sockets.access import MAX_SOCKETS
from tests.node.capabilities.wasi.networked_guest import CLOSED, Networked, at, echo, serving


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def any_loop(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def test_a_guest_talks_to_a_server(any_loop: bool) -> None:
    async def talk() -> None:
        guest = Networked("tcp:127.0.0.1:*")
        async with serving(echo) as port:
            found, reads, writes = await guest.connected(port)

            assert await guest.write(writes, b"hello") is None
            assert await guest.read(reads) == b"hello"
            assert (await guest.tcp("remote-address", found)) == at(port)
            assert await guest.tcp("shutdown", found, "send") is None
            assert await guest.read(reads) == CLOSED
            assert await guest.write(writes, b"x") == CLOSED
            for interface, resource, value in [
                ("sockets/tcp", "tcp-socket", found), ("io/streams", "input-stream", reads),
                ("io/streams", "output-stream", writes),
            ]:  # fmt: skip
                guest.drop(interface, resource, value)
        assert guest.open_sockets == 0

    if not any_loop:
        await talk()
    else:
        done: list[BaseException | None] = []
        thread = threading.Thread(target=lambda: done.append(_in_uvloop(talk)))
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        assert done == [None]


def _in_uvloop(work: Callable[[], Awaitable[None]]) -> BaseException | None:
    try:
        anyio.run(work, backend="asyncio", backend_options={"use_uvloop": True})
    except BaseException as error:
        return error
    return None


async def test_a_guest_serves_where_it_was_granted_to() -> None:
    guest = Networked("listen:tcp:0")
    listener, port = await guest.listening()

    async with await anyio.connect_tcp("127.0.0.1", port) as client:
        found, reads, writes = await guest.accepted(listener)
        await client.send(b"hello")
        assert await guest.read(reads) == b"hello"
        await guest.write(writes, b"world")
        assert await client.receive() == b"world"
        assert (await guest.tcp("local-address", found)) == at(port)
        assert await guest.tcp("accept", listener) == "would-block"
        for interface, resource, value in [
            ("io/streams", "output-stream", writes), ("io/streams", "input-stream", reads),
            ("sockets/tcp", "tcp-socket", found),
        ]:  # fmt: skip
            guest.drop(interface, resource, value)
        with pytest.raises(anyio.EndOfStream):
            await client.receive()


async def test_much_data_passes_in_both_directions_with_backpressure() -> None:
    guest, size = Networked("tcp:127.0.0.1:*"), 4_000_000
    async with serving(echo) as port:
        _, reads, writes = await guest.connected(port)
        received = bytearray()

        async def receive() -> None:
            while len(received) < size:
                chunk = await guest.read(reads)
                assert isinstance(chunk, bytes)
                received.extend(chunk)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            sent = 0
            while sent < size:
                room = await guest.stream("output-stream.check-write", writes)
                if not room:
                    pollable = await guest("io/streams", "[method]output-stream.subscribe", writes)
                    await guest("io/poll", "[method]pollable.block", pollable)
                    continue
                part = min(room, size - sent)
                assert await guest.stream("output-stream.write", writes, bytes([sent % 251]) * part) is None
                sent += part

    assert len(received) == size


async def test_what_was_written_arrives_though_everything_was_dropped_at_once() -> None:
    guest, received = Networked("tcp:127.0.0.1:*"), bytearray()
    done = anyio.Event()

    async def collect(stream: anyio.abc.SocketStream) -> None:
        await anyio.sleep(0.05)  # let the buffers of the host fill up
        async with stream:
            async for data in stream:
                received.extend(data)
        done.set()

    async with serving(collect) as port:
        found, reads, writes = await guest.connected(port)
        await guest.tcp("set-send-buffer-size", found, 4096)
        sent = 0
        while room := await guest.stream("output-stream.check-write", writes):
            assert await guest.stream("output-stream.write", writes, b"x" * room) is None
            sent += room
        guest.drop("sockets/tcp", "tcp-socket", found)
        guest.drop("io/streams", "input-stream", reads)
        guest.drop("io/streams", "output-stream", writes)
        with anyio.fail_after(5):
            await done.wait()

    assert len(received) == sent
    assert guest.open_sockets == 0


async def test_a_shutdown_of_sending_loses_nothing() -> None:
    guest, received = Networked("tcp:127.0.0.1:*"), bytearray()
    done = anyio.Event()

    async def collect(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            async for data in stream:
                received.extend(data)
        done.set()

    async with serving(collect) as port:
        found, _, writes = await guest.connected(port)
        sent = 0
        while room := await guest.stream("output-stream.check-write", writes):
            await guest.stream("output-stream.write", writes, b"x" * room)
            sent += room
        await guest.tcp("shutdown", found, "both")
        assert await guest.stream("output-stream.check-write", writes) == CLOSED
        with anyio.fail_after(5):
            await done.wait()

    assert len(received) == sent


async def test_a_shutdown_of_receiving_ends_the_input() -> None:
    guest = Networked("tcp:127.0.0.1:*")
    async with serving(echo) as port:
        found, reads, writes = await guest.connected(port)

        assert await guest.tcp("shutdown", found, "receive") is None

        assert await guest.stream("input-stream.read", reads, 9) == CLOSED
        assert await guest.write(writes, b"still") is None


async def test_a_refused_connection_says_so_and_ends_the_socket() -> None:
    guest = Networked("tcp:127.0.0.1:*")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    found = await guest.open()
    await guest.tcp("start-connect", found, None, at(port))
    await guest.wait("tcp", "tcp-socket", found)

    assert await guest.tcp("finish-connect", found) == "connection-refused"
    assert await guest.tcp("finish-connect", found) == "not-in-progress"
    assert await guest.tcp("start-connect", found, None, at(port)) == "invalid-state"


async def test_a_reset_is_a_failure_with_its_code() -> None:
    guest = Networked("listen:tcp:0")
    listener, port = await guest.listening()
    client = socket.create_connection(("127.0.0.1", port))
    _, reads, _ = await guest.accepted(listener)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    client.close()
    failed = await guest.read(reads)

    error = failed["last-operation-failed"]
    assert await guest("sockets/network", "network-error-code", error) == "connection-reset"
    assert await guest.read(reads) == CLOSED


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        (["finish-bind"], "not-in-progress"), (["finish-connect"], "not-in-progress"),
        (["finish-listen"], "not-in-progress"), (["accept"], "invalid-state"),
        (["shutdown"], "invalid-state"),
        (["local-address"], "invalid-state"), (["remote-address"], "invalid-state"),
        (["start-listen"], "invalid-state"), (["start-bind", "start-bind"], "concurrency-conflict"),
        (["start-bind", "start-connect"], "concurrency-conflict"),
        (["start-bind", "local-address"], "concurrency-conflict"),
        (["start-bind", "finish-bind", "start-bind"], "invalid-state"),
        (["start-bind", "finish-bind", "finish-bind"], "not-in-progress"),
        (["start-bind", "finish-bind", "start-listen", "start-listen"], "concurrency-conflict"),
        (["start-bind", "finish-bind", "start-listen", "accept"], "invalid-state"),
        (["start-bind", "finish-bind", "start-listen", "finish-listen", "start-connect"], "invalid-state"),
        (["start-connect", "start-connect"], "concurrency-conflict"),
        (["start-connect", "start-listen"], "concurrency-conflict"),
    ],
)  # fmt: skip
async def test_steps_out_of_order_have_their_codes(steps: list[str], code: str) -> None:
    guest = Networked("tcp:127.0.0.1:*", "listen:tcp:0")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        arguments = {
            "start-bind": (None, at(0)),
            "start-connect": (None, at(server.getsockname()[1])),
            "shutdown": ("both",),
        }
        found = await guest.open()
        *first, last = steps
        for step in first:
            assert await guest.tcp(step, found, *arguments.get(step, ())) is None

        assert await guest.tcp(last, found, *arguments.get(last, ())) == code


@pytest.mark.parametrize(
    ("method", "address", "code"),
    [
        ("start-bind", at(0, (0,) * 7 + (1,)), "invalid-argument"),
        ("start-bind", at(0, (224, 0, 0, 1)), "invalid-argument"),
        ("start-bind", at(0, (255, 255, 255, 255)), "invalid-argument"),
        ("start-bind", at(0, (192, 0, 2, 7)), "address-not-bindable"),
        ("start-connect", at(0), "invalid-argument"),
        ("start-connect", at(80, (0, 0, 0, 0)), "invalid-argument"),
        ("start-connect", at(80, (224, 0, 0, 1)), "invalid-argument"),
        ("start-connect", at(80, (0,) * 7 + (1,)), "invalid-argument"),
    ],
)
async def test_addresses_that_make_no_sense_are_invalid(method: str, address: Any, code: str) -> None:
    guest = Networked("tcp:*:*", "listen:tcp:*")

    assert await guest.tcp(method, await guest.open(), None, address) == code


async def test_ipv4_in_ipv6_is_refused() -> None:
    guest = Networked("tcp:127.0.0.1:*", "listen:tcp:*")
    found = await guest.open(family="ipv6")
    mapped = (0, 0, 0, 0, 0, 0xFFFF, 0x7F00, 1)

    assert await guest.tcp("start-bind", found, None, at(0, mapped)) == "invalid-argument"
    assert await guest.tcp("start-connect", found, None, at(80, mapped)) == "invalid-argument"


async def test_options_are_kept() -> None:
    guest = Networked("tcp:127.0.0.1:*")
    found = await guest.open()
    second = 1_000_000_000

    for name, value, expected in [
        ("keep-alive-enabled", True, True), ("keep-alive-idle-time", 1, second),
        ("keep-alive-idle-time", 90 * second, 90 * second), ("keep-alive-idle-time", 1 << 63, 32767 * second),
        ("keep-alive-interval", 3 * second, 3 * second), ("keep-alive-count", 3, 3),
        ("keep-alive-count", 4000, 127), ("hop-limit", 42, 42), ("receive-buffer-size", 65536, 65536),
        ("send-buffer-size", 65536, 65536),
    ]:  # fmt: skip
        assert await guest.tcp(f"set-{name}", found, value) is None, name
        assert await guest.tcp(name, found) == expected, name
    for name in ("keep-alive-idle-time", "keep-alive-interval", "keep-alive-count", "hop-limit",
                 "receive-buffer-size", "send-buffer-size", "listen-backlog-size"):  # fmt: skip
        assert await guest.tcp(f"set-{name}", found, 0) == "invalid-argument", name
    assert await guest.tcp("set-send-buffer-size", found, 1 << 63) is None
    assert await guest("sockets/tcp", "[method]tcp-socket.address-family", found) == "ipv4"
    assert await guest("sockets/tcp", "[method]tcp-socket.is-listening", found) is False


async def test_open_sockets_have_a_limit() -> None:
    guest = Networked("tcp:127.0.0.1:*", "udp:127.0.0.1:*")
    held = [await guest.open("tcp") for _ in range(MAX_SOCKETS - 1)] + [await guest.open("udp")]

    assert await guest.open("tcp") == await guest.open("udp") == "new-socket-limit"
    guest.drop("sockets/udp", "udp-socket", held.pop())
    assert not isinstance(await guest.open("udp"), str)
    for each in held:
        guest.drop("sockets/tcp", "tcp-socket", each)


@pytest.mark.parametrize("kind", ["tcp-socket", "udp-socket", "incoming-datagram-stream"])
async def test_a_socket_s_resources_may_not_be_dropped_before_their_pollables(kind: str) -> None:
    guest = Networked("listen:tcp:*", "listen:udp:*", "udp:127.0.0.1:*")
    protocol = "tcp" if kind == "tcp-socket" else "udp"
    found = await guest.bound(protocol)
    if kind == "incoming-datagram-stream":
        found = (await guest.udp("stream", found, None))[0]
    pollable = await guest(f"sockets/{protocol}", f"[method]{kind}.subscribe", found)

    with pytest.raises(Trapped, match="before the pollable"):
        guest.drop(f"sockets/{protocol}", kind, found)

    guest.drop("io/poll", "pollable", pollable)
