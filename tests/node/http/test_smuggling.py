"""Bytes that two servers in a row could read in two ways are refused, and nothing after them is a request."""

from __future__ import annotations

import anyio
import pytest

from lattice.http import HttpRequest, HttpResponse
from tests.node.http.sites import listening

NEXT = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED = {
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na",
    "the same length twice": POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "a list of lengths": POST + b"Content-Length: 1, 1\r\n\r\na",
    "a signed length": POST + b"Content-Length: +1\r\n\r\na",
    "an empty length": POST + b"Content-Length: \r\n\r\na",
    "a length above 64 bits": POST + b"Content-Length: 99999999999999999999\r\n\r\na",
    "length and coding": POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "coding and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "codings in a row": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "two codings": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
    "a coding in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "a folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a bare line feed": b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "a bare carriage return": b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "a head of line feeds": b"GET / HTTP/1.1\nHost: a\n\n",
    "a NUL": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n",
    "a control character": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x01c\r\n\r\n",
    "a blank before a colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "a blank in a name": b"GET / HTTP/1.1\r\nHost: a\r\nX Y: a\r\n\r\n",
    "a blank before a name": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    "a name beyond ASCII": b"GET / HTTP/1.1\r\nHost: a\r\nX\xc3: a\r\n\r\n",
    "a bad chunk size": CHUNKED + b"zz\r\n\r\n",
    "a prefixed chunk size": CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
    "a chunk size with a blank": CHUNKED + b"1 \r\na\r\n0\r\n\r\n",
    "a signed chunk size": CHUNKED + b"-1\r\na\r\n0\r\n\r\n",
    "a chunk size above 64 bits": CHUNKED + b"fffffffffffffffff1\r\na\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"1\r\nab0\r\n\r\n",
    "chunks with line feeds": CHUNKED + b"1\na\n0\n\n",
    "a line feed in a chunk extension": CHUNKED + b"1;a\nb\r\na\r\n0\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "an empty host": b"GET / HTTP/1.1\r\nHost: \r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "the same host twice": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "a host with a user": b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a host with a blank": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a target of another host": b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target with a user": b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target of another scheme": b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target without a slash": b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tunnel": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "an upgrade in chunks": POST + b"Connection: upgrade\r\nUpgrade: x\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an upgrade with a body": POST + b"Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\na",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n",
    "an unknown version": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "an unknown method": b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a blank in the target": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a control character in the target": b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "an unknown expectation": POST + b"Expect: miracles\r\nContent-Length: 1\r\n\r\na",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
async def test_it_is_refused_and_the_rest_is_not_read_as_a_request(data: bytes) -> None:
    async with listening() as site, site.client() as client:
        await client.send(data + NEXT)
        answer = await client.read_all()

        status = int(answer.split(b" ", 2)[1])
        assert status in (400, 413, 417, 431, 501, 505)
        assert b"connection: close" in answer and answer.count(b"HTTP/1.1 ") == 1
        assert not [request for request in site.responder.requests if request.path == "/smuggled"]


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
async def test_it_is_refused_when_it_comes_byte_by_byte(data: bytes) -> None:
    async with listening() as site, site.client() as client:
        for index in range(len(data)):
            client.writer.write(data[index : index + 1])
            await client.writer.drain()
        client.writer.write(NEXT)
        answer = await client.read_all()

        assert b"connection: close" in answer
        assert not [request for request in site.responder.requests if request.path == "/smuggled"]


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (REFUSED["a tunnel"], b"501", b"`CONNECT` is not offered"),
        (REFUSED["an upgrade with a body"], b"501", b"leave `upgrade` out"),
        (REFUSED["HTTP/2"], b"505", b"HTTP/2 is not spoken"),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", b"505", b"HTTP/1.1 and HTTP/1.0"),
    ],
)
async def test_what_is_not_offered_is_named(data: bytes, status: bytes, said: bytes) -> None:
    async with listening() as site, site.client() as client:
        await client.send(data)
        answer = await client.read_all()

    assert answer.startswith(b"HTTP/1.1 " + status) and said in answer


async def test_an_offer_of_another_protocol_is_passed_over() -> None:
    offer = b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
    async with listening() as site, site.client() as client:
        await client.send(offer + offer + NEXT)
        statuses = [(await client.response()).status for _ in range(3)]

        assert statuses == [200, 200, 200]
        assert "upgrade" not in dict(site.responder.requests[0].headers)


async def test_what_came_before_is_still_answered() -> None:
    async with listening() as site, site.client() as client:
        await client.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost : a\r\n\r\n")
        answer = await client.read_all()

    assert answer.startswith(b"HTTP/1.1 200 ") and answer.count(b"HTTP/1.1 400 ") == 1


async def test_the_whole_address_of_its_own_host_is_taken_as_a_target() -> None:
    async with listening() as site:
        await site.ask(b"GET http://A.example:80/x?y HTTP/1.1\r\nHost: a.example:80\r\n\r\n")
        await site.ask(b"GET http://a.example?y HTTP/1.1\r\nHost: a.example\r\n\r\n")

        assert [(each.authority, each.path) for each in site.responder.requests] == [
            ("A.example:80", "/x?y"),
            ("a.example", "/?y"),
        ]


async def test_options_of_the_server_itself_have_an_asterisk_for_a_path() -> None:
    async with listening() as site:
        await site.ask(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")

        assert [(each.method, each.path) for each in site.responder.requests] == [("OPTIONS", "*")]


async def test_what_the_connection_header_names_stays_on_the_connection() -> None:
    async with listening() as site:
        await site.ask(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-secret, te\r\nX-Secret: 1\r\nTE: y\r\n\r\n"
        )

        names = [name for name, _ in site.responder.requests[0].headers]
    assert not {"x-secret", "te", "connection"} & set(names)


async def test_clients_cannot_say_who_they_are() -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\r\n"
    async with listening() as site:
        await site.ask(data)
        headers = dict(site.responder.requests[0].headers)

    assert headers["x-forwarded-for"] == b"127.0.0.1" and "forwarded" not in headers
    assert headers["x-forwarded-proto"] == b"http" and headers["x-forwarded-host"] == b"a"


async def test_a_trusted_proxy_can() -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\r\n"
    async with listening(trusts_forwarded=True) as site:
        await site.ask(data)
        headers = dict(site.responder.requests[0].headers)

    assert headers["x-forwarded-for"] == b"6.6.6.6, 127.0.0.1" and headers["x-forwarded-proto"] == b"https"


async def test_a_trailer_cannot_change_how_its_message_is_read() -> None:
    async def script(request: HttpRequest) -> HttpResponse:
        assert not isinstance(request.body, bytes)
        async for _ in request.body:
            pass
        return HttpResponse(status=200, body=",".join(request.body.trailers).encode())

    data = CHUNKED + b"1\r\na\r\n0\r\nX: y\r\nHost: b\r\nAuthorization: c\r\nCookie: d\r\n\r\n"
    async with listening(script) as site:
        assert (await site.ask(data)).body == b"x"


@pytest.mark.parametrize("line", [b"GET /x RTSP/1.0", b"GET /x RTSP/1.1", b"SOURCE /x ICE/1.0"])
@pytest.mark.parametrize("at", [0, 8, 13])
async def test_another_protocol_is_not_taken_for_http(line: bytes, at: int) -> None:
    data = line + b"\r\nHost: a\r\n\r\n"
    async with listening() as site, site.client() as client:
        if at:
            await client.send(data[:at])
            await anyio.sleep(0.01)  # so that they come apart
        await client.send(data[at:])
        response = await client.response()

        assert response.status == 400
        assert not site.responder.requests


@pytest.mark.parametrize(
    "in_front",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n",
    ],
)
@pytest.mark.parametrize("line", [b"GET /x RTSP/1.0", b"GET  /x  RTSP/1.1", b"\r\n\nSOURCE /x ICE/1.0"])
@pytest.mark.parametrize("at", [0, 40, 62, 70])
async def test_another_protocol_behind_a_request_is_refused_too(
    in_front: bytes, line: bytes, at: int
) -> None:
    data = in_front + line + b"\r\nHost: a\r\n\r\n"
    async with listening() as site, site.client() as client:
        await client.send(data[:at])
        await anyio.sleep(0.01)  # so that they come apart
        await client.send(data[at:])

        assert [(await client.response()).status for _ in range(2)] == [200, 400]


@pytest.mark.parametrize("line", [b"POST /x RTSP/1.1\r\n", b"\r\nPOST /x ICE/1.1\r\n\r\n"])
@pytest.mark.parametrize(
    "in_front", [b"", b"\r\n", b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"]
)
async def test_a_body_that_came_with_its_head_may_read_as_another_protocol(
    line: bytes, in_front: bytes
) -> None:
    request = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(line), line)
    async with listening() as site, site.client() as client:
        await client.send(in_front + request * 2)
        count = 3 if len(in_front) > 2 else 2

        assert [(await client.response()).status for _ in range(count)] == [200] * count


async def test_the_name_of_another_protocol_may_stand_elsewhere() -> None:
    async with listening() as site:
        response = await site.ask(b"GET /x HTTP/1.1\r\nHost: a\r\nX-Y: GET /x RTSP/1.1\r\n\r\n")

        assert response.status == 200
