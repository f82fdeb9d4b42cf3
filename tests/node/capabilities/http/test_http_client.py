"""The client against servers that do what a test scripts."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from structlog.testing import capture_logs

from lattice import streams
from lattice.http import HttpRequest, HttpResponse
from node.capabilities.http.client import HttpClient, RequestOptions
from node.capabilities.http.connector import HttpClientSettings
from node.capabilities.http.errors import HttpError
from node.capabilities.http.policy import OutgoingPolicy
from tests.node.capabilities.http.servers import Peer, Server, answering, echo, ok, serving

LOOPBACK = OutgoingPolicy.parse(["127.0.0.1", "localhost"])
MEBIBYTE = 1024 * 1024


def _request(server: Server, method: str = "GET", path: str = "/", **fields: Any) -> HttpRequest:
    return HttpRequest(method=method, scheme="http", authority=server.authority, path=path, **fields)


def _get(authority: str, scheme: str = "http") -> HttpRequest:
    return HttpRequest(method="GET", scheme=scheme, authority=authority, path="/")


async def _send(client: HttpClient, request: HttpRequest, **options: float) -> HttpResponse:
    return await client.send(request, RequestOptions(**options), LOOPBACK)


async def _case(client: HttpClient, request: HttpRequest, **options: float) -> str:
    """The error code that the request, or the body of its response, ends with."""
    with pytest.raises(HttpError) as caught:
        await _body(await _send(client, request, **options))
    return caught.value.case


async def _body(response: HttpResponse) -> bytes:
    if isinstance(response.body, bytes):
        return response.body
    async with response.body as body:
        return b"".join([chunk async for chunk in body])


# What is sent


async def test_a_request_is_sent_as_it_is(client: HttpClient) -> None:
    headers = (("accept", b"*/*"), ("x", b"\xff caf\xc3\xa9"), ("x", b"2"))
    async with answering(ok(b"fine")) as server:
        response = await _send(
            client, _request(server, path="/a%2f../b?q=ä b".replace(" ", "%20"), headers=headers)
        )

    assert response.body == b"fine"
    assert server.heads == [
        f"GET /a%2f../b?q=ä%20b HTTP/1.1\r\nhost: {server.authority}\r\naccept: */*\r\n".encode()
        + b"x: \xff caf\xc3\xa9\r\nx: 2\r\n\r\n"
    ]


async def test_headers_of_the_connection_are_not_passed_on(client: HttpClient) -> None:
    headers = (("connection", b"close"), ("host", b"x"), ("transfer-encoding", b"chunked"), ("a", b"1"))
    async with answering(ok()) as server:
        await _send(client, _request(server, headers=headers))

    assert b"close" not in server.heads[0]
    assert b"chunked" not in server.heads[0]
    assert server.heads[0].count(b"host:") == 1


async def test_a_whole_body_is_sent_with_its_length(client: HttpClient) -> None:
    async with answering(ok()) as server:
        await _send(client, _request(server, "POST", body=b"abc"))
        await _send(client, _request(server, "POST"))

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
        await _send(client, _request(server, "POST", body=receiver))

    assert seen == b"abcx-sum: 7\r\n"


async def test_a_stream_of_announced_length_is_not_chunked(client: HttpClient) -> None:
    sender, receiver = streams.pair()
    await sender.send(b"abc")
    await sender.end()

    async with answering(ok()) as server:
        await _send(client, _request(server, "PUT", body=receiver, headers=(("content-length", b"3"),)))

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
        case = await _case(client, _request(server, "POST", body=receiver, headers=headers))
        whole = await _case(client, _request(server, "POST", body=sent, headers=headers))

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

    assert await _case(client, HttpRequest(**request)) == case


# What is received


async def test_a_response_is_given_as_it_is(client: HttpClient) -> None:
    headers = ("content-encoding: gzip", "Set-Cookie: a=1", "X: \xe9", "location: /")
    answer = ok(b"\x1f\x8b not unpacked", *headers)
    async with answering(answer.replace(b"200 OK", b"301 Gone elsewhere")) as server:
        response = await _send(client, _request(server))

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
        response = await _send(client, _request(server))

    assert response.body == b"abc"
    assert response.trailers == (("x-sum", b"7"),)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_responses_that_have_no_body_end_with_their_headers(
    client: HttpClient, method: str, status: int
) -> None:
    async with answering(f"HTTP/1.1 {status} X\r\ncontent-length: 5\r\n\r\n".encode()) as server:
        for _ in range(2):
            response = await _send(client, _request(server, method))
            assert response.body == b""

    assert server.connections == 1


async def test_a_body_may_end_with_the_connection(client: HttpClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n", b"all of it")

    async with serving(script) as server:
        assert await _body(await _send(client, _request(server))) == b"all of it"


async def test_informational_responses_are_passed_over(client: HttpClient) -> None:
    async with answering(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + ok(b"fine")) as server:
        response = await _send(client, _request(server))

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
        assert await _case(client, _request(server, "POST")) == case


# Connections


async def test_connections_are_used_again(client: HttpClient) -> None:
    async with answering(ok(b"x" * 100_000)) as server:
        for _ in range(3):
            await _body(await _send(client, _request(server)))

    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"", "connection: close"),
        ok().replace(b"1.1", b"1.0"),
        ok() + b"more than was asked for",
        ok() + ok(),
    ],
)
async def test_connections_that_are_spoilt_are_not_used_again(client: HttpClient, answer: bytes) -> None:
    async with answering(answer) as server:
        for _ in range(2):
            assert (await _send(client, _request(server))).status == 200

    assert server.connections == 2


@pytest.mark.parametrize(("said", "connections"), [("timeout=1", 3), ("max=9, Timeout = 5", 1), ("max=9", 1)])
async def test_a_connection_is_given_up_before_its_server_does(
    client: HttpClient, said: str, connections: int
) -> None:
    async with answering(ok(b"", f"keep-alive: {said}")) as server:
        for _ in range(3):
            await _send(client, _request(server))

    assert server.connections == connections


@pytest.mark.slow
async def test_a_connection_is_kept_no_longer_than_its_server_keeps_it() -> None:
    async with (
        HttpClient(HttpClientSettings(idle_seconds=60)) as client,
        answering(ok(b"", "keep-alive: timeout=2")) as server,
    ):
        await _send(client, _request(server))
        await wait_all_tasks_blocked()
        ended_at_once = server.ended
        with anyio.fail_after(5):
            while not server.ended:  # noqa: ASYNC110
                await anyio.sleep(0.01)

    assert ended_at_once == 0


async def test_a_kept_connection_that_the_server_closed_is_replaced(client: HttpClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok())
        await peer.head()  # and closes: the request came too late

    async with serving(script) as server:
        for _ in range(3):
            assert (await _send(client, _request(server))).status == 200

    assert server.connections == 3


async def test_a_request_that_may_have_taken_effect_is_not_repeated(client: HttpClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok())
        await peer.head()

    async with serving(script) as server:
        await _send(client, _request(server))

        assert await _case(client, _request(server, "POST")) == "connection-terminated"


async def test_connections_have_a_limit_and_idle_ones_make_room() -> None:
    async with (
        HttpClient(HttpClientSettings(max_connections=1)) as client,
        answering(ok()) as one,
        answering(ok()) as other,
        serving(echo) as busy,
    ):
        assert (await _send(client, _request(one))).status == 200
        assert (await _send(client, _request(other))).status == 200
        _, receiver = streams.pair()
        response = await _send(client, _request(busy, "POST", body=receiver))
        assert response.status == 200

        assert await _case(client, _request(one)) == "connection-limit-reached"


async def test_connections_that_are_being_made_count_too(full: int) -> None:
    async with (
        HttpClient(HttpClientSettings(max_connections=1)) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(_send, client, _request(Server(full)))
        await anyio.wait_all_tasks_blocked()

        assert await _case(client, _request(Server(full))) == "connection-limit-reached"
        tasks.cancel_scope.cancel()


# Timeouts and failures


async def test_a_server_that_does_not_answer_times_out(client: HttpClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read()

    async with serving(script) as server:
        assert await _case(client, _request(server), first_byte_timeout=0.05) == "connection-read-timeout"


async def test_a_body_that_stands_still_times_out(client: HttpClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc")
        await peer.reader.read()

    async with serving(script) as server:
        case = await _case(client, _request(server), between_bytes_timeout=0.05)

    assert case == "connection-read-timeout"


async def test_a_refused_connection_is_told(client: HttpClient) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))

        assert await _case(client, _request(Server(closed.getsockname()[1]))) == "connection-refused"


@pytest.fixture
async def full() -> AsyncIterator[int]:
    """The port of a server whose backlog is full, so that connecting hangs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        clients = [socket.socket() for _ in range(8)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for client in clients:
            client.close()


async def test_connecting_times_out(client: HttpClient, full: int) -> None:
    assert await _case(client, _request(Server(full)), connect_timeout=0.05) == "connection-timeout"


# What a policy allows


def _resolving(*addresses: str) -> HttpClientSettings:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return HttpClientSettings(resolve=resolve)


async def test_what_is_not_granted_is_denied_and_logged_with_the_cure(client: HttpClient) -> None:
    request = _get("api.example.com", "https")

    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(HttpError) as caught:
                await client.send(request, component="greeter")

    assert caught.value.error_code == {"HTTP-request-denied": None}
    assert len(logs) == 1
    assert logs[0]["component"] == "greeter"
    assert "`--allow-host api.example.com`" in logs[0]["reason"]


async def test_a_name_that_leads_inside_is_denied_after_it_was_resolved() -> None:
    policy = OutgoingPolicy.parse(["*"])
    async with answering(ok()) as server, HttpClient(_resolving("127.0.0.1")) as client:
        request = HttpRequest(
            method="GET", scheme="http", authority=f"rebound.example:{server.port}", path="/"
        )
        with capture_logs() as logs, pytest.raises(HttpError) as caught:
            await client.send(request, policy=policy)

    assert caught.value.case == "destination-IP-prohibited"
    assert server.connections == 0
    assert "`--allow-host 127.0.0.1`" in logs[0]["reason"]


async def test_of_several_addresses_only_those_allowed_are_connected_to() -> None:
    policy = OutgoingPolicy.parse(["mixed.example", "127.0.0.0/8"])
    async with answering(ok()) as server, HttpClient(_resolving("169.254.169.254", "127.0.0.1")) as client:
        request = _get(f"mixed.example:{server.port}")
        response = await client.send(request, policy=policy)

    assert response.status == 200


async def test_a_kept_connection_serves_only_those_who_may_reach_its_address() -> None:
    async with answering(ok()) as server, HttpClient(_resolving("127.0.0.1")) as client:
        request = _get(f"inner.example:{server.port}")
        await client.send(request, policy=OutgoingPolicy.parse(["inner.example", "127.0.0.1"]))
        with capture_logs(), pytest.raises(HttpError, match="destination-IP-prohibited"):
            await client.send(request, policy=OutgoingPolicy.parse(["*.example"]))


async def test_the_next_address_is_tried() -> None:
    policy = OutgoingPolicy.parse(["two.example", "127.0.0.0/8"])
    async with answering(ok()) as server, HttpClient(_resolving("127.0.0.9", "127.0.0.1")) as client:
        request = _get(f"two.example:{server.port}")

        assert (await client.send(request, policy=policy)).status == 200


@pytest.mark.parametrize(
    ("error", "case"),
    [
        (socket.gaierror(socket.EAI_NONAME, "no"), {"DNS-error": {"rcode": "NXDOMAIN", "info-code": None}}),
        (socket.gaierror(socket.EAI_AGAIN, "no"), {"DNS-error": {"rcode": "SERVFAIL", "info-code": None}}),
    ],
)
async def test_names_that_can_not_be_resolved_are_told(error: OSError, case: object) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise error

    async with HttpClient(HttpClientSettings(resolve=resolve)) as client:
        request = _get("no.example")
        with pytest.raises(HttpError) as caught:
            await client.send(request, policy=OutgoingPolicy.parse(["*"]))

    assert caught.value.error_code == case


async def test_looking_up_a_name_times_out() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        await anyio.sleep_forever()
        return ()

    async with HttpClient(HttpClientSettings(resolve=resolve)) as client:
        request = _get("slow.example")
        with pytest.raises(HttpError) as caught:
            await client.send(request, RequestOptions(connect_timeout=0.02), OutgoingPolicy.parse(["*"]))

    assert caught.value.case == "DNS-timeout"


async def test_localhost_is_resolved_by_the_system(client: HttpClient) -> None:
    async with answering(ok()) as server:
        request = _get(f"localhost:{server.port}")

        assert (await client.send(request, policy=LOOPBACK)).status == 200
