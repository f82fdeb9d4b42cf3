"""Guests that stream beside the event loop read and write their clients' sockets: nothing of a body is lost,
and whoever leaves, fails or runs out of time in the middle leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import httptools
import pytest

from lattice.errors import TimedOut, Trapped
from lattice.http import HttpRequest, HttpResponse
from node.capabilities.http.incoming_body import WINDOW_BYTES, BodyBuffer
from node.engine.channels import Channel
from node.engine.engine import Engine
from node.engine.store import DRIVER
from node.http.body import RequestBody
from node.http.handler import response_of
from node.http.limits import HttpLimits
from node.http.sending import Outlet
from tests.node.capabilities.http.conftest import context
from tests.node.capabilities.http.shims import Shims
from tests.node.http.sites import Client, Listening, listening
from tests.waiting import until

GUEST = "tests/node/capabilities/http/stream_guest/stream.wasm"
MIB = 1 << 20
ENDLESS = 8 << 30
TIMES = 30
"""Until what is a matter of chance has happened."""
BODY = random.Random(1).randbytes(24 * MIB)

pytestmark = pytest.mark.skipif(DRIVER is None, reason="sockets are lent to channels of the native helper")

Serve = Callable[..., AbstractAsyncContextManager[Listening]]


@pytest.fixture(scope="module", params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Nodes run on uvloop; asyncio's own transports are others."""
    return "asyncio", {"use_uvloop": request.param}


@dataclass
class Loans:
    """What was lent while a test ran, and what came back."""

    borrowed: int = 0
    written: int = 0
    rests: list[bytes] = field(default_factory=list)


@pytest.fixture(autouse=True)
def loans(monkeypatch: pytest.MonkeyPatch) -> Loans:
    loans = Loans()
    give_back = Outlet.give_back
    borrow = Channel.borrow

    def note_written(self: Outlet, moved: int, rest: bytes) -> None:
        loans.written += moved
        loans.rests.append(rest)
        give_back(self, moved, rest)

    def note_borrowed(self: Channel) -> None:
        had_none = self._descriptor is None
        borrow(self)
        loans.borrowed += had_none and self._descriptor is not None

    monkeypatch.setattr(Outlet, "give_back", note_written)
    monkeypatch.setattr(Channel, "borrow", note_borrowed)
    return loans


@pytest.fixture
def serve(shims: Shims) -> Serve:
    @asynccontextmanager
    async def serve(seconds: float = 60, limits: HttpLimits | None = None) -> AsyncIterator[Listening]:
        handler = await shims.make(GUEST)

        async def script(request: HttpRequest) -> HttpResponse:
            return await response_of(handler, request, context(seconds))

        before = _descriptors()
        async with listening(script, limits) as site:
            yield site
        await until(lambda: shims.pools[-1].statistics().in_flight == 0)
        await until(lambda: _descriptors() <= before)

    return serve


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Reading:
    """Reads responses strictly, as they come."""

    def __init__(self) -> None:
        self.status = 0
        self.body = bytearray()
        self.responses: list[tuple[int, bytes]] = []
        self._parser = httptools.HttpResponseParser(self)

    def on_status(self, status: bytes) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.responses.append((self.status, bytes(self.body)))
        self.body.clear()

    async def read(self, client: Client, count: int = 1, pause: Callable[[], float] = lambda: 0) -> None:
        """Until there are so many, or the connection ends."""
        while len(self.responses) < count:
            try:
                data = await client.reader.read(1 << 18)
            except ConnectionResetError:
                return
            if not data:
                return
            self._parser.feed_data(data)
            if seconds := pause():
                await anyio.sleep(seconds)


def head(path: str, size: int, *fields: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {size}", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


async def exchange(
    site: Listening,
    data: bytes,
    *,
    count: int = 1,
    piece: int = 1 << 18,
    pause: Callable[[], float] = lambda: 0,
) -> list[tuple[int, bytes]]:
    """Send and read at the same time; the responses that came whole."""
    reading = Reading()
    async with site.client() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(reading.read, client, count, pause)
        with contextlib.suppress(ConnectionError):
            for place in range(0, len(data), piece):
                await client.send(data[place : place + piece])
                if seconds := pause():
                    await anyio.sleep(seconds)
    return reading.responses


async def flood(site: Listening, path: str) -> Reading:
    """Send without end, and read until the connection ends."""
    reading = Reading()
    async with site.client() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(_send_without_end, client, path)
        with anyio.fail_after(20):
            await reading.read(client)
        tasks.cancel_scope.cancel()
    return reading


async def _send_without_end(client: Client, path: str) -> None:
    with contextlib.suppress(ConnectionError):
        await client.send(head(path, ENDLESS))
        while True:
            await client.send(BODY[: 1 << 18])


@pytest.mark.parametrize("length", [0, len(BODY)], ids=["chunked", "length"])
async def test_a_large_body_comes_back_unchanged(serve: Serve, loans: Loans, length: int) -> None:
    async with serve() as site:
        responses = await exchange(site, head(f"/e/{length}", len(BODY)) + BODY)

    assert responses == [(200, BODY)]
    assert loans.borrowed > 0
    assert loans.written > 0


async def test_the_next_request_behind_a_large_body_is_answered(serve: Serve, loans: Loans) -> None:
    two = head("/e/0", len(BODY)) + BODY + head("/e/0", 5) + b"small"

    async with serve() as site:
        responses = await exchange(site, two + two, count=4)

    assert responses == [(200, BODY), (200, b"small")] * 2
    assert loans.borrowed > 0


@pytest.mark.parametrize("seed", range(6))
async def test_a_client_that_dawdles_gets_all_of_it(serve: Serve, loans: Loans, seed: int) -> None:
    chance = random.Random(seed)
    pieces = 1 << chance.randrange(12, 20)

    def pause() -> float:
        return chance.choice([0.002, 0.02]) if chance.random() < 0.03 else 0

    async with serve() as site:
        length = chance.choice([0, len(BODY)])
        data = head(f"/e/{length}", len(BODY)) + BODY
        responses = await exchange(site, data, piece=pieces, pause=pause)

    assert responses == [(200, BODY)]


@pytest.mark.parametrize("length", [0, 40 * MIB], ids=["chunked", "length"])
async def test_a_download_is_whole(serve: Serve, loans: Loans, length: int) -> None:
    async with serve() as site:
        for _ in range(TIMES):
            ((status, body),) = await exchange(site, head(f"/g/{40 * MIB}/{length}", 0))
            assert status == 200
            assert body == bytes(place * 31 & 0xFF for place in range(256)) * (40 * MIB // 256)
            if loans.written > 0:
                return
    pytest.fail("the socket was never lent")


async def test_a_download_that_the_client_leaves_unread_for_a_while_is_whole(
    serve: Serve, loans: Loans
) -> None:
    async with serve() as site:
        for _ in range(TIMES):
            loans.borrowed = 0
            ((status, body),) = await exchange(site, head(f"/g/{40 * MIB}/0", 0), pause=_rest_once(loans))
            assert (status, len(body)) == (200, 40 * MIB)
            if any(loans.rests):
                return
    pytest.fail("the socket never came back in the middle of a chunk")


def _rest_once(loans: Loans) -> Callable[[], float]:
    rests = iter([0.1])
    return lambda: next(rests, 0) if loans.borrowed else 0


async def test_an_upload_is_counted_to_its_last_byte(serve: Serve, loans: Loans) -> None:
    async with serve() as site:
        responses = await exchange(site, head("/t", len(BODY)) + BODY)

    assert responses == [(200, f"{len(BODY)} {sum(BODY)}".encode())]
    assert loans.borrowed > 0


@pytest.mark.parametrize("length", [30 * MIB + 5, 50 * MIB], ids=["more than", "fewer than"])
async def test_a_guest_that_gives_other_than_it_has_announced_is_broken_off(
    serve: Serve, length: int
) -> None:
    async with serve() as site:
        responses = await exchange(site, head(f"/g/{40 * MIB}/{length}", 0))

    assert responses == []


async def test_a_guest_that_traps_in_the_middle_breaks_its_response_off(serve: Serve, loans: Loans) -> None:
    async with serve() as site:
        reading = await flood(site, f"/x/{16 * MIB}")

    assert reading.responses == []
    assert loans.borrowed > 0
    assert [type(error) for error in site.responder.failures] == [Trapped]


@pytest.mark.parametrize("is_reset", [True, False], ids=["reset", "closed"])
async def test_a_client_that_leaves_ends_its_call(serve: Serve, loans: Loans, is_reset: bool) -> None:
    async with serve() as site:
        async with site.client() as client, anyio.create_task_group() as tasks:
            tasks.start_soon(_send_without_end, client, "/e/0")
            while not loans.borrowed:
                assert await client.reader.read(1 << 18)
            tasks.cancel_scope.cancel()
            if is_reset:
                client.writer.transport.abort()
        await until(lambda: not site.site.connections)


async def test_a_client_that_leaves_a_guest_that_computes_is_seen(serve: Serve, loans: Loans) -> None:
    async with serve() as site, site.client() as client:
        await client.send(head(f"/s/{len(BODY)}", ENDLESS) + BODY)
        await until(lambda: loans.borrowed > 0)
        await client.close()
        await until(lambda: not site.site.connections)


async def test_a_budget_that_ends_in_the_middle_ends_the_response(serve: Serve, loans: Loans) -> None:
    async with serve(seconds=0.3) as site:
        for _ in range(TIMES):  # a busy machine may lend nothing in so short a time
            site.responder.failures.clear()
            reading = await flood(site, "/e/0")
            assert reading.responses == []
            assert [type(error) for error in site.responder.failures] == [TimedOut]
            if loans.borrowed > 0:
                return
    pytest.fail("the socket was never lent")


async def test_a_site_that_is_taken_down_ends_what_is_lent(serve: Serve, loans: Loans) -> None:
    async def take_down() -> None:
        await until(lambda: loans.borrowed > 1)
        for connection in list(site.site.connections):
            connection.abort()

    async with serve() as site, anyio.create_task_group() as tasks:
        tasks.start_soon(take_down)
        reading = await flood(site, "/e/0")
        await until(lambda: not site.site.connections)

    assert reading.responses == []


async def test_a_body_that_goes_on_is_not_taken_for_a_stalled_one(serve: Serve, loans: Loans) -> None:
    async with serve(limits=HttpLimits(body_seconds=0.2)) as site:
        for _ in range(TIMES):  # a machine that stands still stalls the client, too
            site.responder.failures.clear()
            async with site.client() as client:
                with contextlib.suppress(ConnectionError), anyio.fail_after(20):
                    await _send_for(1.5, client)
                if not site.responder.failures:
                    assert loans.borrowed > 0
                    await _finish(client, Reading())
                    return
    pytest.fail("it was taken for a stalled one each time")


async def _send_for(seconds: float, client: Client) -> None:
    await client.send(head("/t", ENDLESS))
    end = anyio.current_time() + seconds
    while anyio.current_time() < end:
        await client.send(BODY[: 1 << 18])


async def _finish(client: Client, reading: Reading) -> None:
    """Send no more: it is the client now who keeps the guest waiting."""
    with anyio.fail_after(10):
        await reading.read(client)
    assert reading.responses[0][0] == 408


async def test_a_guest_that_looks_in_vain_again_and_again_keeps_no_stalled_client(engine: Engine) -> None:
    async def script(request: HttpRequest) -> HttpResponse:
        body, buffer = request.body, BodyBuffer(is_complete=False)
        assert isinstance(body, RequestBody) and engine.doorbell is not None
        channel = Channel(engine.doorbell, WINDOW_BYTES)
        buffer.move_to(channel)
        body.pour_into(buffer)
        while not buffer.has_ended:
            channel.go_away()
            channel.come_back()
            await anyio.lowlevel.checkpoint()
        channel.borrow_from(None)
        return HttpResponse(status=200)

    async with listening(script, HttpLimits(body_seconds=1.2)) as site, site.client() as client:
        reading = Reading()
        await client.send(head("/", MIB) + b"a part of it")
        await _finish(client, reading)


async def test_without_descriptors_the_loop_goes_on_by_itself(
    serve: Serve, loans: Loans, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(descriptor: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "dup", exhausted)

    async with serve() as site:
        responses = await exchange(site, head("/e/0", len(BODY)) + BODY)

    assert responses == [(200, BODY)]
    assert loans.borrowed == 0


async def test_many_large_bodies_at_a_time_stay_apart(serve: Serve, loans: Loans) -> None:
    bodies = [random.Random(seed).randbytes(8 * MIB) for seed in range(4)]
    answers: dict[int, Any] = {}

    async def ask(site: Listening, number: int) -> None:
        body = bodies[number]
        answers[number] = await exchange(site, head("/e/0", len(body)) + body)

    async with serve() as site, anyio.create_task_group() as tasks:
        for number in range(len(bodies)):
            tasks.start_soon(ask, site, number)

    assert answers == {number: [(200, body)] for number, body in enumerate(bodies)}
