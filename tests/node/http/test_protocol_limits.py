"""How long clients may take, how much they may send, and how many there may be; the end of a listener."""

from __future__ import annotations

import asyncio
import socket

import anyio
import pytest

from lattice import streams
from lattice.errors import Interrupted
from lattice.http import HttpRequest, HttpResponse
from node.http.limits import HttpLimits
from tests.node.http.sites import GET, listening
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("way")

QUICK = HttpLimits(header_seconds=0.05, body_seconds=0.05, idle_seconds=0.05)


@pytest.mark.parametrize(
    "data",
    [b"GET / HT", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na"],
)
async def test_a_request_that_does_not_come_in_time_is_408(data: bytes) -> None:
    async with listening(limits=QUICK) as site, site.client() as client:
        await client.send(data)

        assert b" 408 " in (await client.read_all()).partition(b"\r\n")[0]


async def test_a_streamed_body_that_stops_coming_is_408() -> None:
    async with listening(echo_whole, limits=QUICK) as site, site.client() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\na")

        assert b" 408 " in (await client.read_all()).partition(b"\r\n")[0]


async def echo_whole(request: HttpRequest) -> HttpResponse:
    """The body back once all of it is here."""
    assert not isinstance(request.body, bytes)
    return HttpResponse(status=200, body=await streams.receive_body(request.body, max_bytes=1 << 30))


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with listening(limits=QUICK) as site, site.client() as client:
        assert await client.read_all() == b""


@pytest.mark.parametrize("size", [60_000, 100_000, 3_000_000])
async def test_a_client_that_never_takes_its_last_answer_is_cut_off(size: int) -> None:
    async def large(request: HttpRequest) -> HttpResponse:
        return HttpResponse(status=200, body=bytes(size))

    async with listening(large, QUICK) as site:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(raw, ("127.0.0.1", site.port))
        await loop.sock_sendall(raw, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        await until(lambda: bool(site.responder.requests))
        await until(lambda: not site.site.connections)
        raw.close()


async def test_a_client_that_takes_nothing_is_cut_off() -> None:
    ended = anyio.Event()

    async def script(request: HttpRequest) -> HttpResponse:
        sender, receiver = streams.pair()

        async def produce() -> None:
            try:
                while True:
                    await sender.send(bytes(65536))
            except Interrupted:
                ended.set()

        tasks.start_soon(produce)
        return HttpResponse(status=200, body=receiver)

    async with anyio.create_task_group() as tasks, listening(script, QUICK) as site, site.client() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(GET)
        with anyio.fail_after(5):
            await ended.wait()


async def test_a_component_may_take_longer_than_clients_may() -> None:
    async def script(request: HttpRequest) -> HttpResponse:
        await anyio.sleep(0.6)
        return HttpResponse(status=204)

    async with listening(script, QUICK) as site:
        assert (await site.ask(GET)).status == 204


async def test_limits_on_heads_and_bodies_are_kept() -> None:
    limits = HttpLimits(header_bytes=8192, header_count=10, body_bytes=1000)
    async with listening(limits=limits) as site:
        many = await site.ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 10 + b"\r\n")
        long = await site.ask(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20_000)
        url = await site.ask(b"GET /" + b"y" * 20_000)
        body = await site.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n")
        chunks = b"3ff\r\n" + b"a" * 1023 + b"\r\n"
        chunked = await site.ask(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        )
        extension = await site.ask(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * 20_000
        )

    assert [many.status, long.status, url.status] == [431, 431, 431]
    assert [body.status, chunked.status, extension.status] == [413, 413, 431]


async def test_trailers_are_limited_too() -> None:
    async with listening(echo_whole, limits=HttpLimits(header_bytes=8192)) as site, site.client() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await client.send(b"0\r\nX: " + b"y" * 40_000)

        assert b" 431 " in (await client.read_all()).partition(b"\r\n")[0]


async def test_more_connections_than_allowed_are_told_so() -> None:
    async with listening(limits=HttpLimits(connections=1)) as site, site.client() as first:
        await first.send(GET)
        assert (await first.response()).status == 200
        async with site.client() as second:
            assert b" 503 " in await second.read_all()
        await first.send(GET)
        assert (await first.response()).status == 200


async def test_draining_closes_idle_connections_and_finishes_requests() -> None:
    gate = anyio.Event()

    async def script(request: HttpRequest) -> HttpResponse:
        await gate.wait()
        return HttpResponse(status=200, body=b"done")

    async with listening(script) as site, site.client() as idle, site.client() as busy:
        await busy.send(GET)
        await until(lambda: bool(site.responder.requests) and len(site.site.connections) == 2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(site.site.drain)
            assert await idle.read_all() == b""
            gate.set()
            data = await busy.read_all()

    assert b"connection: close" in data and data.endswith(b"done")


async def test_a_client_that_comes_while_its_listener_drains_is_told_so() -> None:
    async with listening() as site:
        await site.site.drain()
        async with site.client() as late:
            answer = await late.read_all()

    assert answer.startswith(b"HTTP/1.1 503 ") and b"unreachable: this node is leaving" in answer
