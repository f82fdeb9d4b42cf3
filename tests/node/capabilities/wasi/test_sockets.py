"""The functions of `wasi:sockets` over the loopback interface, and what is denied without a grant."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import pytest

from lattice.errors import Trapped
from node.capabilities.wasi import parse_grants
from node.capabilities.wasi.sockets.access import MAX_SOCKETS, SocketAccess
from node.capabilities.wasi.sockets.udp import BATCH_DATAGRAMS, DATAGRAM_BYTES
from tests.node.capabilities.wasi.bare_guest import BareGuest, plain

LOOPBACK = (127, 0, 0, 1)
CLOSED = {"closed": None}

Handle = Callable[[anyio.abc.SocketStream], Awaitable[None]]


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def any_loop(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def at(port: int, address: tuple[int, ...] = LOOPBACK) -> dict[str, Any]:
    if len(address) == 4:
        return {"ipv4": {"port": port, "address": address}}
    return {"ipv6": {"port": port, "flow-info": 0, "address": address, "scope-id": 0}}


class Networked(BareGuest):
    """A guest with grants."""

    def __init__(self, *grants: str, **settings: Any) -> None:
        super().__init__(network=parse_grants(grants), **settings)

    async def tcp(self, method: str, *args: Any) -> Any:
        return await self._method("tcp", "tcp-socket", method, args)

    async def udp(self, method: str, *args: Any) -> Any:
        return await self._method("udp", "udp-socket", method, args)

    async def incoming(self, method: str, *args: Any) -> Any:
        return await self._method("udp", "incoming-datagram-stream", method, args)

    async def outgoing(self, method: str, *args: Any) -> Any:
        return await self._method("udp", "outgoing-datagram-stream", method, args)

    async def open(self, protocol: str = "tcp", family: str = "ipv4") -> Any:
        return plain(await self(f"sockets/{protocol}-create-socket", f"create-{protocol}-socket", family))

    async def bound(self, protocol: str, port: int = 0) -> Any:
        found = await self.open(protocol)
        method = self.tcp if protocol == "tcp" else self.udp
        assert await method("start-bind", found, None, at(port)) is None
        assert await method("finish-bind", found) is None
        return found

    async def listening(self) -> tuple[Any, int]:
        found = await self.bound("tcp")
        assert await self.tcp("start-listen", found) is None
        assert await self.tcp("finish-listen", found) is None
        return found, (await self.tcp("local-address", found))["ipv4"]["port"]

    async def connected(self, port: int) -> tuple[Any, Any, Any]:
        found = await self.open()
        assert await self.tcp("start-connect", found, None, at(port)) is None
        await self.wait("tcp", "tcp-socket", found)
        streams = await self.tcp("finish-connect", found)
        return found, *streams

    async def wait(self, interface: str, resource: str, found: Any) -> None:
        pollable = await self(f"sockets/{interface}", f"[method]{resource}.subscribe", found)
        with anyio.fail_after(5):
            await self("io/poll", "[method]pollable.block", pollable)
        self.drop("io/poll", "pollable", pollable)

    async def accepted(self, listener: Any) -> tuple[Any, Any, Any]:
        await self.wait("tcp", "tcp-socket", listener)
        found: tuple[Any, Any, Any] = await self.tcp("accept", listener)
        return found

    async def read(self, stream: Any, length: int = 100_000) -> Any:
        with anyio.fail_after(5):
            return await self.stream("input-stream.blocking-read", stream, length)

    async def write(self, stream: Any, contents: bytes) -> Any:
        with anyio.fail_after(5):
            return await self.stream("output-stream.blocking-write-and-flush", stream, contents)

    async def look_up(self, name: str) -> Any:
        """All addresses, or the code of what went wrong."""
        stream = plain(await self("sockets/ip-name-lookup", "resolve-addresses", None, name))
        if isinstance(stream, str):
            return stream
        await self.wait("ip-name-lookup", "resolve-address-stream", stream)
        method = "[method]resolve-address-stream.resolve-next-address"
        found = []
        while not isinstance(
            address := plain(await self("sockets/ip-name-lookup", method, stream)), str | None
        ):
            found.append(address)
        self.drop("sockets/ip-name-lookup", "resolve-address-stream", stream)
        return address or found

    async def _method(self, interface: str, resource: str, method: str, args: tuple[Any, ...]) -> Any:
        return plain(await self(f"sockets/{interface}", f"[method]{resource}.{method}", *args))

    @property
    def open_sockets(self) -> int:
        return len(self.state[SocketAccess]) if SocketAccess in self.state else 0


@asynccontextmanager
async def serving(handle: Handle) -> AsyncIterator[int]:
    """A TCP server; its port."""
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, handle)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


async def echo(stream: anyio.abc.SocketStream) -> None:
    async with stream:
        async for data in stream:
            await stream.send(data)
        await stream.send_eof()


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


async def test_datagrams_come_and_go() -> None:
    guest = Networked("udp:127.0.0.1:*")
    one, two = await guest.bound("udp"), await guest.bound("udp")
    address = await guest.udp("local-address", two)
    _, sends = await guest.udp("stream", one, None)
    receives, _ = await guest.udp("stream", two, None)

    assert await guest.outgoing("check-send", sends) == BATCH_DATAGRAMS
    datagrams = [{"data": bytes([number]), "remote-address": address} for number in range(3)]
    assert await guest.outgoing("send", sends, datagrams) == 3
    await guest.wait("udp", "incoming-datagram-stream", receives)
    received = await guest.incoming("receive", receives, 10)

    assert [item["data"] for item in received] == [b"\0", b"\1", b"\2"]
    assert {str(item["remote-address"]) for item in received} == {str(await guest.udp("local-address", one))}
    assert await guest.incoming("receive", receives, 10) == []
    assert await guest.incoming("receive", receives, 0) == []


async def test_an_associated_socket_hears_and_tells_one_remote_only() -> None:
    guest = Networked("udp:127.0.0.1:*")
    one, two, three = [await guest.bound("udp") for _ in range(3)]
    addresses = [await guest.udp("local-address", each) for each in (one, two, three)]
    receives, sends = await guest.udp("stream", one, addresses[1])
    for other in (three, two):
        _, others = await guest.udp("stream", other, None)
        await guest.outgoing("check-send", others)
        await guest.outgoing("send", others, [{"data": b"to one", "remote-address": addresses[0]}])
    await guest.wait("udp", "incoming-datagram-stream", receives)

    received = await guest.incoming("receive", receives, 10)

    assert [item["remote-address"] for item in received] == [addresses[1]]
    assert await guest.udp("remote-address", one) == addresses[1]
    await guest.outgoing("check-send", sends)
    wrong = [{"data": b"x", "remote-address": addresses[2]}]
    assert await guest.outgoing("send", sends, wrong) == "invalid-argument"
    await guest.outgoing("check-send", sends)
    assert await guest.outgoing("send", sends, [{"data": b"x", "remote-address": None}]) == 1


async def test_datagrams_need_a_permit_a_receiver_and_a_size() -> None:
    guest = Networked("udp:127.0.0.1:*")
    found = await guest.bound("udp")
    address = await guest.udp("local-address", found)
    receives, sends = await guest.udp("stream", found, None)

    with pytest.raises(Trapped, match="check-send"):
        await guest.outgoing("send", sends, [{"data": b"x", "remote-address": address}])
    for datagram, code in [
        ({"data": b"x", "remote-address": None}, "invalid-argument"),
        ({"data": b"x", "remote-address": at(0)}, "invalid-argument"),
        ({"data": b"x", "remote-address": at(9, (0, 0, 0, 0))}, "invalid-argument"),
        ({"data": bytes(DATAGRAM_BYTES), "remote-address": address}, "datagram-too-large"),
        ({"data": bytes(DATAGRAM_BYTES + 1), "remote-address": address}, "datagram-too-large"),
    ]:
        await guest.outgoing("check-send", sends)
        assert await guest.outgoing("send", sends, [datagram]) == code
    await guest.outgoing("check-send", sends)
    good = {"data": b"x", "remote-address": address}
    assert await guest.outgoing("send", sends, [good, {"data": b"x", "remote-address": None}]) == 1
    with pytest.raises(Trapped, match="dropped"):
        await guest.udp("stream", found, None)
    guest.drop("sockets/udp", "incoming-datagram-stream", receives)
    guest.drop("sockets/udp", "outgoing-datagram-stream", sends)
    assert len(await guest.udp("stream", found, None)) == 2


async def test_a_socket_without_a_listening_grant_hears_only_whom_it_may_reach() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        port = stranger.getsockname()[1]
        for grant, expected in ((f"udp:127.0.0.1:{port}", [b"hello"]), (f"udp:127.0.0.2:{port}", [])):
            guest = Networked(grant)
            found = await guest.bound("udp")
            receives, _ = await guest.udp("stream", found, None)
            stranger.sendto(b"hello", found.socket.getsockname())
            await guest.wait("udp", "incoming-datagram-stream", receives)

            received = await guest.incoming("receive", receives, 9)

            assert [item["data"] for item in received] == expected


DENIED = "access-denied"
NOT_RESOLVED = "permanent-resolver-failure"


async def test_without_a_grant_nothing_is_opened_or_looked_up() -> None:
    guest = Networked()

    assert await guest.open("tcp") == await guest.open("udp", "ipv6") == DENIED
    for name in ("localhost", "example.com", "127.0.0.1"):
        assert await guest.look_up(name) == NOT_RESOLVED


async def test_a_name_that_was_not_granted_is_one_that_the_resolver_never_finds() -> None:
    guest = Networked("tcp:example.com:443", lookup=lambda name: ["93.184.216.34"])

    assert await guest.look_up("example.org") == NOT_RESOLVED
    assert await guest.look_up("example.com") == [{"ipv4": (93, 184, 216, 34)}]


@pytest.mark.parametrize(
    ("grants", "method", "address"),
    [
        (["tcp:127.0.0.1:1"], "start-connect", at(2)),
        (["tcp:127.0.0.2:*"], "start-connect", at(2)),
        (["tcp:*:*"], "start-connect", at(2)),
        (["tcp:*:*"], "start-connect", at(80, (169, 254, 169, 254))),
        (["listen:tcp:*"], "start-connect", at(2)),
        (["tcp:example.com:*"], "start-connect", at(443, (93, 184, 216, 34))),
        (["tcp:127.0.0.1:8080"], "start-bind", at(8080)),
        (["listen:tcp:8081"], "start-bind", at(8080)),
    ],
)
async def test_what_was_not_granted_is_denied(grants: list[str], method: str, address: Any) -> None:
    guest = Networked(*grants)

    assert await guest.tcp(method, await guest.open(), None, address) == DENIED


async def test_listening_is_denied_to_who_may_only_connect() -> None:
    guest = Networked("tcp:127.0.0.1:*")
    found = await guest.bound("tcp")

    assert await guest.tcp("start-listen", found) == DENIED


async def test_datagrams_are_denied_to_whom_was_not_granted() -> None:
    guest = Networked("udp:127.0.0.1:53")
    found = await guest.bound("udp")
    _, sends = await guest.udp("stream", found, None)
    await guest.outgoing("check-send", sends)

    assert await guest.outgoing("send", sends, [{"data": b"x", "remote-address": at(54)}]) == DENIED
    assert (
        await (other := Networked("udp:127.0.0.1:53")).udp("stream", await other.bound("udp"), at(54))
        == DENIED
    )


async def test_a_name_opens_what_it_was_looked_up_as_and_nothing_before() -> None:
    async with serving(echo) as port:
        guest = Networked(f"tcp:localhost:{port}", lookup=lambda name: ["127.0.0.1"])
        found = await guest.open()

        assert await guest.tcp("start-connect", found, None, at(port)) == DENIED
        assert await guest.look_up("LOCALHOST") == [{"ipv4": LOOPBACK}]
        assert await guest.tcp("start-connect", found, None, at(port)) is None
        assert await guest.tcp("start-connect", await guest.open(), None, at(port + 1)) == DENIED


async def test_a_name_that_is_made_to_mean_a_special_address_opens_nothing() -> None:
    answers = iter([["127.0.0.1"], ["169.254.169.254", "93.184.216.34"], ["10.0.0.1"]])
    guest = Networked("tcp:rebound.example:*", lookup=lambda name: next(answers))

    assert await guest.look_up("rebound.example") == NOT_RESOLVED
    assert await guest.look_up("rebound.example") == [{"ipv4": (93, 184, 216, 34)}]
    assert await guest.look_up("rebound.example") == [{"ipv4": (10, 0, 0, 1)}]
    for address in (LOOPBACK, (169, 254, 169, 254)):
        assert await guest.tcp("start-connect", await guest.open(), None, at(80, address)) == DENIED


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (socket.gaierror(socket.EAI_NONAME, ""), "name-unresolvable"),
        (socket.gaierror(socket.EAI_AGAIN, ""), "temporary-resolver-failure"),
        (socket.gaierror(socket.EAI_FAIL, ""), "permanent-resolver-failure"),
    ],
)
async def test_a_lookup_that_fails_says_how(error: OSError, code: str) -> None:
    def fail(name: str) -> list[str]:
        raise error

    assert await Networked("tcp:example.com:443", lookup=fail).look_up("example.com") == code


async def test_names_that_are_none_are_invalid_and_addresses_are_themselves() -> None:
    guest = Networked("tcp:*:443", lookup=lambda name: [])

    for name in ("", " ", "a..b", "a b", "x" * 300, "a\0b"):
        assert await guest.look_up(name) == "invalid-argument", name
    assert await guest.look_up("10.1.2.3") == [{"ipv4": (10, 1, 2, 3)}]
    assert await guest.look_up("[::1]") == [{"ipv6": (0, 0, 0, 0, 0, 0, 0, 1)}]
    assert await guest.look_up("nothing.example") == []


async def test_a_lookup_does_not_hold_up_its_guest_and_may_be_dropped() -> None:
    release = threading.Event()

    def slow(name: str) -> list[str]:
        release.wait(5)
        return ["93.184.216.34"]

    guest = Networked("tcp:*:443", lookup=slow)
    stream = plain(await guest("sockets/ip-name-lookup", "resolve-addresses", None, "slow.example"))
    method = "[method]resolve-address-stream.resolve-next-address"

    assert plain(await guest("sockets/ip-name-lookup", method, stream)) == "would-block"
    guest.drop("sockets/ip-name-lookup", "resolve-address-stream", stream)
    release.set()
    assert guest.open_sockets == 0


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
