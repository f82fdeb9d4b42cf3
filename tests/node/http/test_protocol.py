"""What clients get of a connection: order, framing, keeping alive, bodies both ways."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import anyio
import pytest

from lattice import streams
from lattice.errors import Failed, Interrupted, LatticeError, TimedOut
from lattice.http import Headers, HttpRequest, HttpResponse
from node.http.body import RequestBody
from node.http.responses import ResponseHead
from node.http.sending import Outlet
from tests.node.http.sites import GET, echo, listening
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("way")


async def test_a_request_reaches_the_responder_as_a_value() -> None:
    async with listening() as site:
        response = await site.ask(b"GET /a?b HTTP/1.1\r\nHost: Example.org:81\r\nX-Y: 1 \r\n\r\n")

        assert response.status == 200 and response.body == b"hello\n"
        [request] = site.responder.requests
    assert (request.method, request.scheme, request.path) == ("GET", "http", "/a?b")
    assert request.authority == "Example.org:81"
    assert ("x-y", b"1") in request.headers and "host" not in dict(request.headers)


async def test_a_connection_serves_one_request_after_another() -> None:
    async with listening() as site, site.client() as client:
        for _ in range(3):
            await client.send(GET)
            assert (await client.response()).status == 200


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async def script(request: HttpRequest) -> HttpResponse:
        if request.path == "/0":
            await anyio.sleep(0.02)  # the first is the slowest
        return HttpResponse(status=200, body=request.path.encode())

    async with listening(script) as site, site.client() as client:
        paths = [f"/{number}" for number in range(200)]
        await client.send(b"".join(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode() for path in paths))
        answers = [(await client.response()).body.decode() for _ in paths]

    assert answers == paths


async def test_a_flood_of_pipelined_requests_is_read_no_faster_than_it_is_served() -> None:
    gate = anyio.Event()

    async def script(request: HttpRequest) -> HttpResponse:
        await gate.wait()
        return HttpResponse(status=204)

    async with listening(script) as site, site.client() as client:
        client.writer.write(GET * 20_000)
        await until(lambda: bool(site.responder.requests))
        [connection] = site.site.connections
        waiting = connection.waiting_requests
        gate.set()

        assert waiting < 200


@pytest.mark.parametrize("size", [1, 60_000, 100_000])
async def test_a_flood_of_requests_behind_a_body_is_read_no_faster_either(size: int) -> None:
    gate = anyio.Event()

    async def script(request: HttpRequest) -> HttpResponse:
        await gate.wait()
        return HttpResponse(status=204)

    async with listening(script) as site, site.client():
        await until(lambda: bool(site.site.connections))
        [connection] = site.site.connections
        connection.data_received(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        connection.data_received(bytes(size) + GET * 6000)  # as one read gives it
        waiting = connection.waiting_requests
        gate.set()

        assert waiting < 200


async def test_a_small_body_comes_whole_even_in_pieces() -> None:
    async with listening(echo) as site, site.client() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        await anyio.sleep(0.01)
        await client.send(b"def")
        response = await client.response()

        assert response.body == b"abcdef" == site.responder.requests[0].body


async def test_a_chunked_body_that_is_all_there_comes_whole() -> None:
    data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
    async with listening(echo) as site:
        response = await site.ask(data)

        assert response.body == b"abcd" == site.responder.requests[0].body


async def test_a_stream_goes_both_ways_while_both_sides_still_send() -> None:
    async with listening(echo) as site, site.client() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        head = await client.read_head()
        assert b"transfer-encoding: chunked" in head
        assert await client.reader.readuntil(b"abc\r\n") == b"3\r\nabc\r\n"
        await client.send(b"2\r\nde\r\n0\r\nX-Sum: 9\r\nHost: b\r\n\r\n")

        assert await client.reader.readuntil(b"\r\n\r\n") == b"2\r\nde\r\n0\r\nx-sum: 9\r\n\r\n"
        await client.send(GET.replace(b"GET", b"DELETE"))
        assert (await client.response()).status == 200


async def test_trailers_of_a_small_body_are_not_lost() -> None:
    async def script(request: HttpRequest) -> HttpResponse:
        assert not isinstance(request.body, bytes)
        body = await streams.receive_body(request.body, max_bytes=10)
        return HttpResponse(status=200, body=body + request.body.trailers["x-t"].encode())

    data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    async with listening(script) as site:
        assert (await site.ask(data + b"X-T: v\r\n\r\n")).body == b"av"
        assert (await site.ask(data + b"X-T: v\r\nx-t: w\r\n\r\n")).body == b"av, w"


async def test_trailers_of_a_whole_response_are_sent() -> None:
    async def script(request: HttpRequest) -> HttpResponse:
        return HttpResponse(status=200, body=b"abc", trailers=(("x-t", b"v"), ("content-length", b"9")))

    async with listening(script) as site, site.client() as client:
        await client.send(GET)
        await client.read_head()

        assert await client.reader.readuntil(b"\r\n\r\n") == b"3\r\nabc\r\n0\r\nx-t: v\r\n\r\n"


async def test_a_large_body_is_held_back_until_it_is_read() -> None:
    gate, taken = anyio.Event(), []

    async def script(request: HttpRequest) -> HttpResponse:
        assert not isinstance(request.body, bytes)
        await gate.wait()
        taken.extend([len(chunk) async for chunk in request.body])
        return HttpResponse(status=204)

    size = 64 * 1024 * 1024
    async with listening(script) as site, site.client() as client, anyio.create_task_group() as tasks:
        await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)

        async def upload() -> None:
            for _ in range(size // 65536):
                await client.send(bytes(65536))

        tasks.start_soon(upload)
        await until(lambda: bool(site.responder.requests))
        body = site.responder.requests[0].body
        assert isinstance(body, RequestBody)
        await until(lambda: body.waiting_bytes > 200_000)
        await anyio.sleep(0.05)  # what more would come, would come now
        waiting = body.waiting_bytes
        gate.set()
        response = await client.response()

    assert waiting < 1024 * 1024
    assert response.status == 204 and sum(taken) == size


async def test_a_response_stream_waits_for_a_slow_client() -> None:
    sender, receiver = streams.pair()
    sent = 0

    async def script(request: HttpRequest) -> HttpResponse:
        return HttpResponse(status=200, body=receiver)

    async with listening(script) as site, anyio.create_task_group() as tasks:

        async def produce() -> None:
            nonlocal sent
            for _ in range(1000):
                await sender.send(bytes(65536))
                sent += 65536
            await sender.end()

        tasks.start_soon(produce)
        async with site.client() as client:
            await client.send(GET)
            await client.read_head()
            await anyio.sleep(0.2)
            held_back = sent
            total = 0
            while b"0\r\n\r\n" not in (data := await client.reader.read(1 << 20)):
                total += len(data)

    assert held_back < 40 * 1024 * 1024  # what the sockets of the loopback hold
    assert sent == 65536 * 1000 <= total + (1 << 20) + 100_000


async def test_a_response_of_known_length_is_not_chunked() -> None:
    async def script(request: HttpRequest) -> HttpResponse:
        sender, receiver = streams.pair()
        await sender.send(b"abc")
        await sender.end()
        return HttpResponse(status=200, headers=(("content-length", b"3"),), body=receiver)

    async with listening(script) as site:
        response = await site.ask(GET)

    assert response.header("content-length") == b"3" and response.header("transfer-encoding") is None
    assert response.body == b"abc"


@pytest.mark.parametrize("said", [2, 4])
async def test_a_stream_that_breaks_its_length_is_cut_off(said: int) -> None:
    async def script(request: HttpRequest) -> HttpResponse:
        sender, receiver = streams.pair()
        await sender.send(b"abc")
        await sender.end()
        return HttpResponse(status=200, headers=(("content-length", b"%d" % said),), body=receiver)

    async with listening(script) as site, site.client() as client:
        await client.send(GET)
        try:
            data = await client.read_all()
        except ConnectionResetError:
            data = b""

        assert not data.endswith(b"abc") or said == 4
        assert len(site.responder.failures) == 1


async def test_a_stream_that_fails_is_never_taken_for_whole() -> None:
    async def script(request: HttpRequest) -> HttpResponse:
        sender, receiver = streams.pair()
        await sender.send(b"abc")
        await sender.fail(Interrupted("gone"))
        return HttpResponse(status=200, body=receiver)

    async with listening(script) as site, site.client() as client:
        await client.send(GET)
        try:
            data = await client.read_all()
        except ConnectionResetError:
            data = b""

        assert b"0\r\n\r\n" not in data
        assert site.responder.failures[0].message == "gone"


@pytest.mark.parametrize(("status", "has_length"), [(204, False), (304, False), (200, True)])
async def test_head_and_empty_statuses_have_no_body(status: int, has_length: bool) -> None:
    async def script(request: HttpRequest) -> HttpResponse:
        return HttpResponse(status=status, body=b"abc")

    async with listening(script) as site, site.client() as client:
        await client.send(GET.replace(b"GET", b"HEAD"))
        response = await client.response(is_head=True)
        assert (response.header("content-length") == b"3") is has_length
        await client.send(GET.replace(b"GET", b"HEAD"))
        assert (await client.response(is_head=True)).status == status


async def test_an_http_1_0_client_gets_a_body_that_ends_with_the_connection() -> None:
    async def script(request: HttpRequest) -> HttpResponse:
        sender, receiver = streams.pair()
        await sender.send(b"abc")
        await sender.end()
        return HttpResponse(status=200, body=receiver)

    async with listening(script) as site, site.client() as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        data = await client.read_all()

        assert data.endswith(b"\r\n\r\nabc") and b"chunked" not in data and b"connection: close" in data
        assert site.responder.requests[0].authority == f"127.0.0.1:{site.port}"


async def test_an_http_1_0_client_may_keep_the_connection() -> None:
    async with listening() as site, site.client() as client:
        for _ in range(2):
            await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            response = await client.response()
            assert response.header("connection") == b"keep-alive"


async def test_connection_close_is_kept() -> None:
    async with listening() as site, site.client() as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET)
        data = await client.read_all()

        assert data.count(b"HTTP/1.1 200") == 1 and b"connection: close" in data


async def test_a_client_that_expects_to_be_told_is_told_when_its_body_is_wanted() -> None:
    async with listening(echo) as site, site.client() as client:
        await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        head = await client.read_head()
        while b"100 Continue" not in head:
            head = await client.read_head()
        await client.send(b"abc")

        assert (await client.reader.readuntil(b"abc")).endswith(b"abc")


async def test_a_body_that_is_not_wanted_is_not_asked_for() -> None:
    async with listening() as site, site.client() as client:
        await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        data = await client.read_all()

        assert b"100 Continue" not in data and b"200 OK" in data and b"connection: close" in data


async def test_a_small_rest_of_a_body_is_read_past_and_the_connection_kept() -> None:
    async with listening() as site, site.client() as client:
        await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        assert (await client.response()).status == 200
        await client.send(bytes(100_000) + GET)

        assert (await client.response()).status == 200
        assert [request.path for request in site.responder.requests] == ["/", "/a?b"]


async def test_a_body_larger_than_its_window_is_read_past_when_nobody_wants_it() -> None:
    async with listening() as site, site.client() as client:
        await client.send(
            b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + bytes(900_000) + GET
        )

        assert [(await client.response()).status for _ in range(2)] == [200, 200]


async def test_a_client_that_has_shut_its_half_before_it_reads_harms_nobody_else() -> None:
    async def large(request: HttpRequest) -> HttpResponse:
        return HttpResponse(status=200, body=bytes(8_000_000))

    async with listening(large) as site:
        for behind in (b"", b"GARBAGE\r\n\r\n", GET) * 2:
            async with site.client() as client:
                client.writer.transport.pause_reading()  # type: ignore[attr-defined]
                await client.send(GET + behind)
                await until(lambda: any(each._outlet.is_paused for each in site.site.connections))
                client.writer.write_eof()
                await until(
                    lambda: all(each._outlet.transport.is_closing() for each in site.site.connections)
                )
                client.writer.transport.resume_reading()  # type: ignore[attr-defined]
                await client.read_all()
        assert (await site.ask(GET)).status == 200


async def test_a_large_rest_of_a_body_ends_the_connection() -> None:
    async with listening() as site, site.client() as client:
        await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
        assert (await client.response()).status == 200
        client.writer.write(bytes(3_000_000))

        assert await client.read_all() == b""


async def test_a_client_that_goes_on_sending_after_its_last_answer_is_cut_off_in_time() -> None:
    async with listening() as site, site.client() as client:
        await client.send(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
        assert b" 400 " in await client.read_all()

        async def go_on() -> None:
            while True:
                await client.send(bytes(1000))
                await anyio.sleep(0.01)

        with anyio.fail_after(5), pytest.raises(OSError):
            await go_on()


async def test_a_client_that_leaves_takes_its_call_with_it() -> None:
    began, ended = anyio.Event(), anyio.Event()

    async def script(request: HttpRequest) -> HttpResponse:
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError

    async with listening(script) as site:
        async with site.client() as client:
            await client.send(GET)
            await began.wait()
        with anyio.fail_after(5):
            await ended.wait()


async def test_a_client_that_leaves_during_its_upload_interrupts_it() -> None:
    failed = anyio.Event()

    async def script(request: HttpRequest) -> HttpResponse:
        assert not isinstance(request.body, bytes)
        try:
            async for _ in request.body:
                pass
        except (Interrupted, anyio.get_cancelled_exc_class()):
            failed.set()
            raise
        raise AssertionError

    async with listening(script) as site:
        async with site.client() as client:
            await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc")
            await until(lambda: bool(site.responder.requests))
        with anyio.fail_after(5):
            await failed.wait()


class ClosedTransport(asyncio.Transport):
    """Of a connection whose loss is not told yet; like uvloop's it raises when it is written to."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Has no buffer."""

    def is_closing(self) -> bool:
        return True

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        raise RuntimeError("the handler is closed")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        raise RuntimeError("the handler is closed")


@pytest.mark.parametrize("length", [(), (("content-length", b"8"),)])
async def test_a_stream_to_a_connection_that_was_just_closed_is_no_failure_of_the_node(
    length: Headers,
) -> None:
    sender, receiver = streams.pair()
    await sender.send(b"too late")
    response = HttpResponse(status=200, headers=length, body=receiver)

    with pytest.raises(Interrupted, match="the client has left"):
        await Outlet(ClosedTransport()).send_stream(ResponseHead(response, "GET", "1.1"), receiver)
    with pytest.raises(LatticeError):
        await sender.send(b"nobody reads")  # the stream is closed, which ends the guest


async def test_a_whole_response_to_a_connection_that_was_just_closed_is_no_failure_of_the_node() -> None:
    response = HttpResponse(status=200, body=b"too late")

    with pytest.raises(Interrupted, match="the client has left"):
        Outlet(ClosedTransport()).send_whole(ResponseHead(response, "GET", "1.1"), response)


async def test_failures_are_answers_and_the_connection_goes_on() -> None:
    async def script(request: HttpRequest) -> HttpResponse:
        if request.method == "POST":
            raise ZeroDivisionError
        raise TimedOut("too slow") if request.path == "/slow" else Failed("broken")

    async with listening(script) as site, site.client() as client:
        await client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        slow = await client.response()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n")
        failed = await client.response()

    assert slow.status == 504 and b"timed-out: too slow" in slow.body and b"error id: 0badf00d" in slow.body
    assert failed.status == 502 and b'"component": "guest"' in failed.body


@pytest.mark.parametrize("value", [b"a\r\nSet-Cookie: x=1", b"a\nb", b"a\0b"])
async def test_a_response_cannot_be_split_by_a_value(value: bytes) -> None:
    async def script(request: HttpRequest) -> HttpResponse:
        return HttpResponse(status=200, headers=(("x", value),))

    async with listening(script) as site:
        response = await site.ask(GET)

    assert response.status == 502 and response.header("set-cookie") is None
    assert b"`x`" in response.body


@pytest.mark.parametrize("name", ["a\r\nb", "a b", "", "a:b", "ä"])
async def test_a_response_cannot_be_split_by_a_name(name: str) -> None:
    async def script(request: HttpRequest) -> HttpResponse:
        return HttpResponse(status=200, headers=((name, b"x"),))

    async with listening(script) as site:
        assert (await site.ask(GET)).status == 502


async def test_what_belongs_to_the_connection_is_the_listeners_own() -> None:
    async def script(request: HttpRequest) -> HttpResponse:
        headers = (("connection", b"close"), ("transfer-encoding", b"chunked"), ("date", b"never"))
        return HttpResponse(status=200, headers=headers, body=b"abc")

    async with listening(script) as site, site.client() as client:
        await client.send(GET)
        response = await client.response()

    assert response.header("connection") is None and response.header("transfer-encoding") is None
    assert response.header("date") != b"never" and response.body == b"abc"


@pytest.mark.parametrize("status", [100, 101, 199, 600, 0])
async def test_a_component_cannot_send_a_status_that_is_none(status: int) -> None:
    async def script(request: HttpRequest) -> HttpResponse:
        return HttpResponse(status=status)

    async with listening(script) as site:
        assert (await site.ask(GET)).status == 502
