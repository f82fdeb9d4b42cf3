"""What the client sends, and what it receives, against servers that do what a test scripts."""

from __future__ import annotations

from typing import Any

import pytest

from lattice import streams
from lattice.http import HttpRequest
from node.capabilities.http.client import HttpClient
from tests.node.capabilities.http.client_requests import error_case, request_to, send, whole_body
from tests.node.capabilities.http.servers import Peer, answering, ok, serving

# What is sent


async def test_a_request_is_sent_as_it_is(client: HttpClient) -> None:
    headers = (("accept", b"*/*"), ("x", b"\xff caf\xc3\xa9"), ("x", b"2"))
    async with answering(ok(b"fine")) as server:
        response = await send(
            client, request_to(server, path="/a%2f../b?q=ä b".replace(" ", "%20"), headers=headers)
        )

    assert response.body == b"fine"
    assert server.heads == [
        f"GET /a%2f../b?q=ä%20b HTTP/1.1\r\nhost: {server.authority}\r\naccept: */*\r\n".encode()
        + b"x: \xff caf\xc3\xa9\r\nx: 2\r\n\r\n"
    ]


async def test_headers_of_the_connection_are_not_passed_on(client: HttpClient) -> None:
    headers = (("connection", b"close"), ("host", b"x"), ("transfer-encoding", b"chunked"), ("a", b"1"))
    async with answering(ok()) as server:
        await send(client, request_to(server, headers=headers))

    assert b"close" not in server.heads[0]
    assert b"chunked" not in server.heads[0]
    assert server.heads[0].count(b"host:") == 1


async def test_a_whole_body_is_sent_with_its_length(client: HttpClient) -> None:
    async with answering(ok()) as server:
        await send(client, request_to(server, "POST", body=b"abc"))
        await send(client, request_to(server, "POST"))

    assert server.bodies == [b"abc", b""]
    assert all(b"content-length: " in head for head in server.heads)


async def test_a_stream_is_sent_in_chunks_with_its_trailers(client: HttpClient) -> None:
    sender, receiver = streams.pair()
    await sender.send(b"abc")
    await sender.end({"x-sum": "7", "bad name": "x", "x-split": "a\r\nb: c", "content-length": "1"})
    seen = b""

    async def script(peer: Peer) -> None:
        nonlocal seen
        seen += await peer.body(await peer.head()) + peer.trailers
        await peer.send(ok())

    async with serving(script) as server:
        await send(client, request_to(server, "POST", body=receiver))

    assert seen == b"abcx-sum: 7\r\n"


async def test_a_stream_of_announced_length_is_not_chunked(client: HttpClient) -> None:
    sender, receiver = streams.pair()
    await sender.send(b"abc")
    await sender.end()

    async with answering(ok()) as server:
        await send(client, request_to(server, "PUT", body=receiver, headers=(("content-length", b"3"),)))

    assert server.bodies == [b"abc"]
    assert b"chunked" not in server.heads[0]


@pytest.mark.parametrize(("announced", "sent"), [(b"2", b"abc"), (b"9", b"abc")])
async def test_a_body_of_another_length_than_announced_is_not_sent(
    client: HttpClient, announced: bytes, sent: bytes
) -> None:
    sender, receiver = streams.pair()
    await sender.send(sent)
    await sender.end()
    headers = (("content-length", announced),)

    async with answering(ok()) as server:
        case = await error_case(client, request_to(server, "POST", body=receiver, headers=headers))
        whole = await error_case(client, request_to(server, "POST", body=sent, headers=headers))

    assert case == whole == "HTTP-request-body-size"


@pytest.mark.parametrize(
    ("fields", "case"),
    [
        ({"method": "GET /x HTTP/1.1\r\nhost: y\r\n\r\n"}, "HTTP-request-method-invalid"),
        ({"method": "CONNECT"}, "HTTP-protocol-error"),
        ({"path": "/a b"}, "HTTP-request-URI-invalid"),
        ({"path": "/\r\nx: y"}, "HTTP-request-URI-invalid"),
        ({"path": "no-slash"}, "HTTP-request-URI-invalid"),
        ({"path": "*"}, "HTTP-request-URI-invalid"),
        ({"path": "/#fragment"}, "HTTP-request-URI-invalid"),
        ({"authority": "user@127.0.0.1"}, "HTTP-request-URI-invalid"),
        ({"authority": ""}, "HTTP-request-URI-invalid"),
        ({"authority": "127.0.0.1:99999"}, "HTTP-request-URI-invalid"),
        ({"authority": "a\r\nb"}, "HTTP-request-URI-invalid"),
        ({"scheme": "ftp"}, "HTTP-protocol-error"),
        ({"headers": (("a", b"1\r\nb: 2"),)}, "HTTP-protocol-error"),
        ({"headers": (("a: 1\r\nb", b"2"),)}, "HTTP-protocol-error"),
        ({"headers": (("content-length", b"1, 2"),)}, "HTTP-protocol-error"),
    ],
)
async def test_what_could_split_a_request_is_not_sent(
    client: HttpClient, fields: dict[str, Any], case: str
) -> None:
    request = {"method": "GET", "scheme": "http", "authority": "127.0.0.1:1", "path": "/", **fields}

    assert await error_case(client, HttpRequest(**request)) == case


# What is received


async def test_a_response_is_given_as_it_is(client: HttpClient) -> None:
    headers = ("content-encoding: gzip", "Set-Cookie: a=1", "X: \xe9", "location: /")
    answer = ok(b"\x1f\x8b not unpacked", *headers)
    async with answering(answer.replace(b"200 OK", b"301 Gone elsewhere")) as server:
        response = await send(client, request_to(server))

    assert response.status == 301
    assert response.body == b"\x1f\x8b not unpacked"
    assert response.headers == (
        ("content-length", b"15"), ("content-encoding", b"gzip"), ("set-cookie", b"a=1"), ("x", b"\xe9"),
        ("location", b"/"),
    )  # fmt: skip
    assert len(server.heads) == 1


async def test_chunks_and_trailers_are_received(client: HttpClient) -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n"
    async with answering(chunked) as server:
        response = await send(client, request_to(server))

    assert response.body == b"abc"
    assert response.trailers == (("x-sum", b"7"),)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_responses_that_have_no_body_end_with_their_headers(
    client: HttpClient, method: str, status: int
) -> None:
    async with answering(f"HTTP/1.1 {status} X\r\ncontent-length: 5\r\n\r\n".encode()) as server:
        for _ in range(2):
            response = await send(client, request_to(server, method))
            assert response.body == b""

    assert server.connections == 1


async def test_a_body_may_end_with_the_connection(client: HttpClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n", b"all of it")

    async with serving(script) as server:
        assert await whole_body(await send(client, request_to(server))) == b"all of it"


async def test_informational_responses_are_passed_over(client: HttpClient) -> None:
    async with answering(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + ok(b"fine")) as server:
        response = await send(client, request_to(server))

    assert (response.status, response.body) == (200, b"fine")


@pytest.mark.parametrize(
    ("answer", "case"),
    [
        (b"", "connection-terminated"),
        (b"HTTP/1.1 200", "HTTP-response-incomplete"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", "HTTP-response-incomplete"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "HTTP-response-incomplete"),
        (b"SSH-2.0-OpenSSH\r\n", "HTTP-protocol-error"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na", "HTTP-protocol-error"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP-protocol-error",
        ),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nx", "HTTP-response-transfer-coding"),
        (b"HTTP/1.1 101 X\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "HTTP-upgrade-failed"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 70_000 + b"\r\n\r\n", "HTTP-response-header-section-size"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 300_000, "HTTP-response-header-section-size"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: " + b"x" * 300_000,
            "HTTP-response-trailer-section-size",
        ),
        (b"HTTP/1.1 103 X\r\n\r\n" * 20, "HTTP-protocol-error"),
    ],
)
async def test_a_response_that_is_none_has_its_error_code(
    client: HttpClient, answer: bytes, case: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer)

    async with serving(script) as server:
        assert await error_case(client, request_to(server, "POST")) == case
