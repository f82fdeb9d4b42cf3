"""Requests that guests make through `wasi:http/outgoing-handler`."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from lattice import streams
from lattice.http import HttpRequest, HttpResponse
from node.capabilities.http.client import HttpClient
from node.capabilities.http.fields import Fields
from node.capabilities.http.host_handler import HostHandler
from node.capabilities.http.messages import OutgoingRequest
from node.capabilities.http.outgoing import outgoing_interface
from node.capabilities.http.policy import DENY_ALL, OutgoingPolicy
from node.engine.host import GuestCall
from node.http.handler import response_of
from tests.node.capabilities.http.client_requests import check_echo_while_sending, whole_body
from tests.node.capabilities.http.conftest import Handlers, context
from tests.node.capabilities.http.servers import Peer, answering, echo, ok, serving
from tests.node.capabilities.wasi.bare_guest import BareGuest
from tests.waiting import until

LAB = Path(__file__).parent / "guest" / "lab.wasm"
MEBIBYTE = 1024 * 1024

# Cases of `error-code` by their number, as the guest tells them.
CONNECTION_REFUSED, CONNECTION_READ_TIMEOUT = 6, 9
HTTP_REQUEST_DENIED, HTTP_REQUEST_URI_INVALID = 15, 19


@pytest.fixture
async def lab(handlers: Handlers) -> HostHandler:
    handlers.allow_hosts[:] = ["127.0.0.1"]
    return await handlers.make(LAB)


def _fetch(authority: str, method: str = "GET", body: Any = b"", **headers: str) -> HttpRequest:
    """A request that has the guest make the same request of `authority`."""
    fields = {"x-authority": authority, "x-path": "/over/there?q=1", **headers}
    return HttpRequest(
        method=method,
        scheme="http",
        authority="example.com",
        path="/fetch",
        headers=tuple((name.replace("_", "-"), value.encode()) for name, value in fields.items()),
        body=body,
    )


def _trailers(response: HttpResponse) -> Mapping[str, bytes]:
    if isinstance(response.body, bytes):
        return dict(response.trailers)
    return {name: value.encode() for name, value in response.body.trailers.items()}


async def _error(lab: HostHandler, request: HttpRequest) -> int:
    """The number of the error code that the guest got."""
    body = await whole_body(await response_of(lab, request, context()))
    return int(body.removeprefix(b"error="))


async def test_a_guest_requests_and_passes_the_response_on(lab: HostHandler) -> None:
    async with answering(ok(b"from afar", "x-from: there")) as server:
        response = await response_of(lab, _fetch(server.authority, "PUT", b"sent", accept="*/*"), context())

    assert await whole_body(response) == b"from afar"
    assert ("x-from", b"there") in response.headers
    assert server.bodies == [b"sent"]
    assert server.heads[0].startswith(b"PUT /over/there?q=1 HTTP/1.1\r\n")
    assert b"\r\naccept: */*\r\n" in server.heads[0]


async def test_the_trailers_of_a_response_reach_the_guest(lab: HostHandler) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    whole = head + b"2\r\nhi\r\n0\r\nx-sum: 7\r\nx-more: 8\r\n\r\n"
    empty = head + b"0\r\nx-sum: 7\r\n\r\n"

    async with answering(whole, empty) as server:
        of_whole = await response_of(lab, _fetch(server.authority), context())
        assert await whole_body(of_whole) == b"hi"
        of_empty = await response_of(lab, _fetch(server.authority), context())
        assert await whole_body(of_empty) == b""

    assert _trailers(of_whole) == {"x-sum": b"7", "x-more": b"8"}
    assert _trailers(of_empty) == {"x-sum": b"7"}


async def test_requests_that_are_over_are_not_counted(lab: HostHandler) -> None:
    """The limit is of those under way; whose response was dropped, read or not, is not any more."""
    async with answering(ok(b"x" * MEBIBYTE)) as server:
        request = replace(_fetch(server.authority), path="/fetches/200")
        response = await response_of(lab, request, context())

    assert await whole_body(response) == b"answered=200\n"


async def test_a_request_that_its_guest_drops_is_given_up(lab: HostHandler) -> None:
    has_ended = anyio.Event()

    async def script(peer: Peer) -> None:
        while True:
            head = await peer.head()
            server.heads.append(head)
            if head.startswith(b"DELETE"):
                await peer.reader.read()
                has_ended.set()
            elif sum(head.startswith(b"GET") for head in server.heads) == 2:
                await has_ended.wait()
            await peer.send(ok())

    async with serving(script) as server:
        request = replace(_fetch(server.authority), path="/fetch-other")
        response = await response_of(lab, request, context(5))

    assert await whole_body(response) == b"answered=1\nanswered=1\n"


async def test_the_trace_goes_on(lab: HostHandler) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with answering(ok()) as server:
        await whole_body(await response_of(lab, _fetch(server.authority), context(traceparent=trace)))
        await whole_body(
            await response_of(lab, _fetch(server.authority, traceparent="own"), context(traceparent=trace))
        )

    assert f"\r\ntraceparent: {trace}\r\n".encode() in server.heads[0]
    assert server.heads[1].count(b"traceparent: ") == 1
    assert b"\r\ntraceparent: own\r\n" in server.heads[1]


async def test_without_a_grant_nothing_is_reached(handlers: Handlers) -> None:
    lab = await handlers.make(LAB)

    async with answering(ok()) as server:
        with capture_logs() as logs:
            assert await _error(lab, _fetch(server.authority)) == HTTP_REQUEST_DENIED

    assert server.connections == 0
    assert [entry["event"] for entry in logs] == ["http.outgoing-denied"]
    assert f"`--allow-host {server.authority}`" in logs[0]["reason"]


async def test_a_grant_takes_effect_at_the_next_call(handlers: Handlers) -> None:
    lab = await handlers.make(LAB)

    async with answering(ok(b"fine")) as server:
        with capture_logs():
            assert await _error(lab, _fetch(server.authority)) == HTTP_REQUEST_DENIED
        handlers.allow_hosts.append(server.authority)

        assert await whole_body(await response_of(lab, _fetch(server.authority), context())) == b"fine"


async def test_errors_reach_the_guest_as_their_code(lab: HostHandler) -> None:
    async def silent(peer: Peer) -> None:
        await peer.reader.read()
        await peer.reader.read()

    async with serving(silent) as server:
        request = _fetch(server.authority, x_timeout_ms="50")
        assert await _error(lab, request) == CONNECTION_READ_TIMEOUT
    assert await _error(lab, _fetch("127.0.0.1:1")) == CONNECTION_REFUSED
    assert await _error(lab, _fetch("")) == HTTP_REQUEST_URI_INVALID


async def test_a_response_that_breaks_off_is_an_error_for_the_guest(lab: HostHandler) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + b"x" * 50)

    async with serving(script) as server:
        response = await response_of(lab, _fetch(server.authority), context())
        with pytest.raises(Exception, match=r"trap|unreachable|finished"):
            await whole_body(response)


async def test_a_request_ends_with_the_call_that_made_it(handlers: Handlers, lab: HostHandler) -> None:
    asked = anyio.Event()

    async def silent(peer: Peer) -> None:
        await peer.head()
        asked.set()
        await peer.reader.read()

    async with serving(silent) as server:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(response_of, lab, _fetch(server.authority), context())
            await asked.wait()
            tasks.cancel_scope.cancel()
        await until(lambda: server.ended)

    assert handlers.pools[0].statistics().in_flight == 0


async def test_both_bodies_of_a_request_pass_at_once(lab: HostHandler) -> None:
    sender, receiver = streams.pair()
    async with serving(echo) as server:
        response = await response_of(lab, _fetch(server.authority, "POST", receiver), context())
        await check_echo_while_sending(sender, response)


@pytest.mark.slow
async def test_much_passes_through_a_guest_with_flat_memory(lab: HostHandler) -> None:
    sender, receiver = streams.pair()
    chunk = bytes(range(256)) * 256
    total = 0

    async def send() -> None:
        for _ in range(1024):
            await sender.send(chunk)
        await sender.end()

    before = highest = _resident_bytes()
    async with serving(echo) as server, anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        response = await response_of(lab, _fetch(server.authority, "POST", receiver), context(120))
        assert not isinstance(response.body, bytes)
        async with response.body as body:
            async for part in body:
                total += len(part)
                highest = max(highest, _resident_bytes())

    assert total == 64 * MEBIBYTE
    assert highest - before < 32 * MEBIBYTE


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def test_many_guests_share_connections(lab: HostHandler, client: HttpClient) -> None:
    async with answering(ok(b"x")) as server:
        for _ in range(5):
            await whole_body(await response_of(lab, _fetch(server.authority), context()))

    assert server.connections == 1


async def test_a_request_that_is_finished_before_the_guest_waits_leaves_whole(client: HttpClient) -> None:
    policy = OutgoingPolicy.parse(["127.0.0.1"])
    handle = outgoing_interface(client, lambda call: policy, "0.2.12").functions["handle"]
    request = OutgoingRequest(Fields())

    async with answering(ok(b"x")) as server:
        assert request.set_scheme({"HTTP": None}) and request.set_authority(server.authority)
        assert request.set_path("/")
        body = request.body()
        future = handle(GuestCall("demo", context(), BareGuest(), lambda *_: None), request, None)["ok"]
        assert body is not None
        body.finish(None)
        await until(lambda: bool(server.heads))
        future.close()

    assert b"transfer-encoding" not in server.heads[0] and b"content-length" not in server.heads[0]


async def test_a_request_without_a_path_is_refused_at_once(client: HttpClient) -> None:
    handle = outgoing_interface(client, lambda call: DENY_ALL, "0.2.12").functions["handle"]
    request = OutgoingRequest(Fields())
    assert request.set_authority("127.0.0.1:1")
    call = GuestCall("demo", context(), BareGuest(), lambda *_: None)

    assert handle(call, request, None) == {"err": {"HTTP-request-URI-invalid": None}}
