"""HTTP through real nodes: listeners, worker processes and real guests, which may be killed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from tests.e2e.processes import EXAMPLES, Lattice, until
from tests.node.http.sites import Client, Response
from tests.ports import own_port

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(120)]

HELLO = EXAMPLES / "http-hello/c/http-hello.wasm"
ECHO = EXAMPLES / "http-echo/c/http-echo.wasm"
GET = b"GET /world HTTP/1.1\r\nHost: a\r\n\r\n"
ALL = ({"kind": "http", "name": "default", "configuration": {}},)
MIB = 1 << 20


@dataclass
class Listeners:
    """A lattice whose nodes listen."""

    lattice: Lattice
    ports: dict[str, int]
    admin: dict[str, int]

    async def start(self, *names: str, options: tuple[str, ...] = ()) -> None:
        """Start nodes with listeners on ports of their own."""
        for name in names:
            self.ports[name], self.admin[name] = own_port(), own_port()
            own = ("--http", f"127.0.0.1:{self.ports[name]}", "--http-admin", f"127.0.0.1:{self.admin[name]}")
            self.lattice.node(name, *own, *options).start()
        await self.lattice.settled()

    @asynccontextmanager
    async def client(self, name: str) -> AsyncIterator[Client]:
        """A connection to a node."""
        client = Client(*await asyncio.open_connection("127.0.0.1", self.ports[name]))
        try:
            yield client
        finally:
            await client.close()

    async def get(self, name: str, request: bytes = GET) -> Response:
        """The answer to one request on a connection of its own."""
        async with self.client(name) as client:
            await client.send(request)
            return await client.response()

    async def answers(self, name: str, request: bytes = GET) -> bool:
        """Whether the request is answered with 200."""
        with suppress(OSError, asyncio.IncompleteReadError):
            return (await self.get(name, request)).status == 200
        return False

    async def echo(self, name: str, size: int) -> None:
        """Send a body while it comes back, and check it."""
        piece = os.urandom(65536)
        async with self.client(name) as client, anyio.create_task_group() as tasks:
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)

            async def send() -> None:
                for _ in range(size // len(piece)):
                    await client.send(piece)

            tasks.start_soon(send)
            assert b" 200 " in await client.read_head()
            with anyio.fail_after(60):
                await _expect_chunks(client, piece, size)


async def _expect_chunks(client: Client, piece: bytes, size: int) -> None:
    received = bytearray()
    total = 0
    while length := int(await client.reader.readuntil(b"\r\n"), 16):
        received += (await client.reader.readexactly(length + 2))[:-2]
        total += length
        while len(received) >= len(piece):
            assert received[: len(piece)] == piece
            del received[: len(piece)]
    assert total == size and not received


@pytest.fixture
async def listeners(tmp_path: Path) -> AsyncIterator[Listeners]:
    """No node yet."""
    async with Lattice(tmp_path, "http") as lattice:
        yield Listeners(lattice, {}, {})


def resident_mib(pid: int) -> float:
    """The most memory that the process ever had."""
    [peak] = re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(peak) / 1024


async def test_every_listener_serves_every_route(listeners: Listeners) -> None:
    await listeners.start("near", "far")
    lattice = listeners.lattice
    await lattice.deploy(HELLO, name="hello", triggers=ALL, labels={"node": "near"})

    near, far = await listeners.get("near"), await listeners.get("far")

    assert near.body == far.body == b"Hello from C: /world\n"
    done = await lattice.ctl("route", "put", "/api", "hello")
    assert done.code == 0, done.err
    await lattice.ctl("route", "delete", "/", "hello")
    await until(lambda: _is(listeners, "far", 404), what="the route is gone")
    assert await listeners.answers("near", GET.replace(b"/world", b"/api/x"))
    listed = await lattice.ctl("get", "routes", "--output", "json")
    assert [item["configuration"] for item in listed.json] == [{"prefix": "/api"}]


async def _is(listeners: Listeners, name: str, status: int) -> bool:
    return (await listeners.get(name)).status == status


async def test_large_bodies_pass_both_ways_in_little_memory(listeners: Listeners) -> None:
    await listeners.start("near", "far")
    await listeners.lattice.deploy(ECHO, name="echo", triggers=ALL, labels={"node": "near"})
    size = int(os.environ.get("LATTICE_HTTP_BODY_MIB", "24")) * MIB
    for name in ("near", "far"):
        await listeners.echo(name, MIB)
    before = {name: resident_mib(node.pid) for name, node in listeners.lattice.nodes.items()}

    for name in ("near", "far"):
        await listeners.echo(name, size)

    for name, node in listeners.lattice.nodes.items():
        assert resident_mib(node.pid) - before[name] < 16, name


@pytest.mark.parametrize("entrance", ["near", "far"])
async def test_a_client_that_leaves_ends_the_guest_wherever_it_runs(
    listeners: Listeners, entrance: str
) -> None:
    await listeners.start("near", "far")
    await listeners.lattice.deploy(ECHO, name="echo", triggers=ALL, labels={"node": "near"})

    async with listeners.lattice.connect() as control:

        async def in_flight() -> int:
            [replica] = await control.replicas("echo")
            return replica.in_flight

        async def is_quiet() -> bool:
            return await in_flight() == 0

        async with listeners.client(entrance) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            with anyio.fail_after(10):
                await client.reader.readuntil(b"abc\r\n")
            during = await in_flight()
        await until(is_quiet, seconds=5, what="the guest has ended")

    assert during == 1


async def test_what_runs_nowhere_is_503_and_says_so(listeners: Listeners) -> None:
    await listeners.start("a")
    await listeners.lattice.deploy(HELLO, name="hello", triggers=ALL, replicas=0, waits=False)
    await until(lambda: _has_route(listeners), what="the route is known")

    async with listeners.client("a") as client:
        await client.send(GET.replace(b"\r\n\r\n", b"\r\nAccept: application/json\r\n\r\n"))
        with anyio.fail_after(10):
            head = await client.reader.readuntil(b"\r\n\r\n")
            body = await client.reader.readexactly(int(re.findall(rb"content-length: (\d+)", head)[0]))

    said = json.loads(body)["error"]
    assert b" 503 " in head and said["component"] == "hello" and "latticectl scale" in said["message"]
    [line] = listeners.lattice["a"].lines("http.failed")
    assert line["error_id"] == said["error_id"]


async def _has_route(listeners: Listeners) -> bool:
    return bool(listeners.lattice["a"].lines("http.routes"))


async def test_a_drained_node_finishes_what_it_began(listeners: Listeners) -> None:
    await listeners.start("a", "b")
    await listeners.lattice.deploy(ECHO, name="echo", triggers=ALL, labels={"node": "b"})
    node = listeners.lattice["a"]

    async with listeners.client("a") as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await client.reader.readuntil(b"abc\r\n")
        node.terminate()
        await until(lambda: _refuses(listeners, "a"), what="nobody new is taken")
        await client.send(b"2\r\nde\r\n0\r\n\r\n")
        rest = await client.read_all()

    assert rest.endswith(b"2\r\nde\r\n0\r\n\r\n")
    assert await node.ended() == 0


async def _refuses(listeners: Listeners, name: str) -> bool:
    try:
        async with listeners.client(name):
            return False
    except OSError:
        return True


async def test_requests_go_on_when_the_node_that_serves_them_dies(listeners: Listeners) -> None:
    await listeners.start("front", options=("--capacity", "0"))
    await listeners.start("one", "two")
    await listeners.lattice.deploy(HELLO, name="hello", triggers=ALL, replicas=2)
    statuses: list[int] = []

    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            async with listeners.client("front") as client:
                while True:
                    await client.send(GET)
                    statuses.append((await client.response()).status)

        for _ in range(4):
            tasks.start_soon(ask)
        await until(lambda: _has(statuses, 100), what="requests are answered")
        listeners.lattice["one"].kill()
        at_kill = len(statuses)
        await until(lambda: _has(statuses, at_kill + 200), what="requests are answered again")
        tasks.cancel_scope.cancel()

    assert set(statuses) <= {200, 502} and statuses.count(502) <= 4


async def _has(statuses: list[int], count: int) -> bool:
    return len(statuses) >= count


async def worker_of(listeners: Listeners, name: str) -> int:
    """The process of the node's first worker, once it serves."""
    ready = await until(
        lambda: _lines(listeners, name, "http.worker-ready"), seconds=30, what="the worker serves"
    )
    return int(ready[-1]["process"])


async def _lines(listeners: Listeners, name: str, event: str) -> list[dict[str, int]]:
    return listeners.lattice[name].lines(event)


async def test_workers_serve_what_their_node_runs_and_come_back(listeners: Listeners) -> None:
    await listeners.start("a", options=("--http-workers", "2"))
    node = listeners.lattice["a"]
    worker = await worker_of(listeners, "a")
    await listeners.lattice.deploy(HELLO, name="hello", triggers=ALL)

    node.suspend()  # whoever answers now is the worker, by itself
    try:
        await until(lambda: _answers_within(listeners, 0.5), what="the worker answers alone")
    finally:
        node.resume()
    os.kill(worker, signal.SIGKILL)
    await until(lambda: _came_back(listeners, worker), seconds=30, what="the worker is back")
    for _ in range(20):
        assert await listeners.answers("a")


async def _answers_within(listeners: Listeners, seconds: float) -> bool:
    with anyio.move_on_after(seconds):
        return await listeners.answers("a")
    return False


async def _came_back(listeners: Listeners, former: int) -> bool:
    return await worker_of(listeners, "a") != former


async def test_workers_end_with_their_node_however_it_ends(listeners: Listeners) -> None:
    await listeners.start("a", options=("--http-workers", "2"))
    killed = await worker_of(listeners, "a")
    listeners.lattice["a"].kill()
    await until(lambda: _is_gone(killed), what="the worker of a killed node is gone")

    node = listeners.lattice["a"]
    node.start()
    await listeners.lattice.settled()
    drained = await worker_of(listeners, "a")
    node.terminate()

    assert await node.ended() == 0
    assert await _is_gone(drained)


async def _is_gone(pid: int) -> bool:
    return not await anyio.Path(f"/proc/{pid}").exists()
