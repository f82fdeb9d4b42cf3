"""A request's body: taken by who receives, or poured where it is wanted; behind it comes another request."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import pytest

from lattice.errors import Interrupted, LatticeError
from lattice.http import HttpRequest, HttpResponse
from lattice.pouring import Lender
from lattice.tasks import own_task
from node.capabilities.http.errors import BodyFailed
from node.capabilities.http.incoming_body import BodyBuffer
from node.capabilities.wasi.pollables import wait_any
from node.http.body import POURED_BYTES, RequestBody
from node.http.incoming import Inlet
from node.http.limits import HttpLimits
from node.http.requests import Peer
from tests.node.http.sites import listening
from tests.waiting import until

LARGE = 200_000


class Basin:
    """A sink that keeps what is poured into it."""

    def __init__(self) -> None:
        self.data = b""
        self.trailers: Mapping[str, str] | None = None
        self.error: LatticeError | None = None
        self.wakes: list[Callable[[], None]] = []

    @property
    def size(self) -> int:
        return len(self.data)

    def add(self, data: bytes) -> None:
        self.data += data

    def end(self, trailers: Mapping[str, str]) -> None:
        self.trailers = trailers

    def break_off(self, error: LatticeError) -> None:
        self.error = error

    def discard(self) -> None:
        self.data = b""

    def await_room(self, wake: Callable[[], None]) -> bool:
        self.wakes.append(wake)
        return False

    def borrow_from(self, lender: Lender) -> None:
        raise AssertionError("nobody lends a socket here")


def make_body(calls: list[str]) -> RequestBody:
    return RequestBody(lambda: calls.append("wanted"), lambda: calls.append("taken"))


def make_inlet() -> Inlet:
    peer = Peer(address="127.0.0.1", local="127.0.0.1:80", scheme="http", trusts_forwarded=False)
    return Inlet(HttpLimits(), peer, wanted=lambda: None, taken=lambda: None)


def test_what_came_before_and_what_comes_is_poured_in_order() -> None:
    body, basin = make_body([]), Basin()
    body.feed(b"one ")

    body.pour_into(basin)
    body.feed(b"two")
    body.end({"x-sum": "3"})

    assert (basin.data, basin.trailers) == (b"one two", {"x-sum": "3"})


def test_what_had_ended_before_is_poured_with_its_end() -> None:
    body, basin = make_body([]), Basin()
    body.feed(b"all")
    body.end({})

    body.pour_into(basin)

    assert (basin.data, basin.trailers) == (b"all", {})


def test_pouring_what_has_not_begun_to_come_asks_for_it() -> None:
    calls: list[str] = []

    make_body(calls).pour_into(Basin())

    assert calls[0] == "wanted"


def test_a_full_sink_has_the_connection_read_on_when_it_has_room() -> None:
    calls: list[str] = []
    body, basin = make_body(calls), Basin()
    body.pour_into(basin)
    calls.clear()

    body.feed(b"x" * POURED_BYTES)
    assert (body.waiting_bytes, calls) == (POURED_BYTES, [])
    basin.wakes.pop()()

    assert calls == ["taken"]


async def test_a_body_that_is_closed_breaks_off_what_it_is_poured_into() -> None:
    body, basin = make_body([]), Basin()
    body.pour_into(basin)
    body.feed(b"some")

    await body.aclose()
    body.feed(b"more")

    assert basin.data == b""
    assert isinstance(basin.error, Interrupted)


@pytest.mark.parametrize("piece", [1000, 65_536, LARGE, LARGE + 30, LARGE + 5000])
async def test_what_is_behind_a_body_of_known_length_is_the_next_request(piece: int) -> None:
    inlet = make_inlet()
    sent = bytes(index % 251 for index in range(LARGE))
    inlet.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % LARGE)
    rest = sent + b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n" + b"GET /c HTTP/1.1\r\nHost: a\r\n\r\n"

    for start in range(0, len(rest), piece):
        inlet.feed(rest[start : start + piece])

    first, *others = inlet.ready
    assert isinstance(first.body, RequestBody)
    received = b"".join([part async for part in first.body])
    assert received == sent
    assert [other.head.path for other in others if other.head] == ["/b", "/c"]


async def test_what_is_behind_a_body_and_no_request_is_refused() -> None:
    inlet = make_inlet()
    inlet.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % LARGE)

    inlet.feed(b"x" * LARGE + b"\x00\x01nonsense\r\n\r\n")

    refusal = inlet.ready[-1].refusal
    assert refusal is not None
    assert refusal.status in (400, 501)


class Reading:
    """What a guest waits for that reads a body."""

    def __init__(self, buffer: BodyBuffer) -> None:
        self.buffer = buffer

    def is_ready(self) -> bool:
        return self.buffer.is_readable

    def arm(self, wake: Callable[[], None]) -> Callable[[], None]:
        return self.buffer.arm(wake)


@pytest.mark.parametrize("sent", [1, POURED_BYTES, 2 * POURED_BYTES])
async def test_a_poured_body_that_stops_coming_is_408(sent: int) -> None:
    async def script(request: HttpRequest) -> HttpResponse:
        body = request.body
        assert isinstance(body, RequestBody)
        await own_task()
        buffer = BodyBuffer(is_complete=False)
        await until(lambda: body.waiting_bytes >= sent)  # a guest that asks late
        body.pour_into(buffer)
        while not buffer.error:
            await wait_any((Reading(buffer),))
            with contextlib.suppress(BodyFailed):
                buffer.read(1000)
        return HttpResponse(status=200)

    limits = HttpLimits(body_seconds=0.3)
    async with listening(script, limits) as site, site.client() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + bytes(sent))

        assert b" 408 " in (await client.read_all()).partition(b"\r\n")[0]
