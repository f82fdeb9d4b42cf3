"""Connections of the client: kept, limited, given up, and those that fail."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from lattice import streams
from node.capabilities.http.client import HttpClient
from node.capabilities.http.connector import HttpClientSettings
from tests.node.capabilities.http.client_requests import error_case, request_to, send, whole_body
from tests.node.capabilities.http.servers import Peer, Server, answering, echo, ok, serving
from tests.waiting import until


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


async def test_connections_are_used_again(client: HttpClient) -> None:
    async with answering(ok(b"x" * 100_000)) as server:
        for _ in range(3):
            await whole_body(await send(client, request_to(server)))

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
            assert (await send(client, request_to(server))).status == 200

    assert server.connections == 2


@pytest.mark.parametrize(("said", "connections"), [("timeout=1", 3), ("max=9, Timeout = 5", 1), ("max=9", 1)])
async def test_a_connection_is_given_up_before_its_server_does(
    client: HttpClient, said: str, connections: int
) -> None:
    async with answering(ok(b"", f"keep-alive: {said}")) as server:
        for _ in range(3):
            await send(client, request_to(server))

    assert server.connections == connections


@pytest.mark.slow
async def test_a_connection_is_kept_no_longer_than_its_server_keeps_it() -> None:
    async with (
        HttpClient(HttpClientSettings(idle_seconds=60)) as client,
        answering(ok(b"", "keep-alive: timeout=2")) as server,
    ):
        await send(client, request_to(server))
        await wait_all_tasks_blocked()
        ended_at_once = server.ended
        await until(lambda: server.ended)

    assert ended_at_once == 0


async def test_a_kept_connection_that_the_server_closed_is_replaced(client: HttpClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok())
        await peer.head()  # and closes: the request came too late

    async with serving(script) as server:
        for _ in range(3):
            assert (await send(client, request_to(server))).status == 200

    assert server.connections == 3


async def test_a_request_that_may_have_taken_effect_is_not_repeated(client: HttpClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok())
        await peer.head()

    async with serving(script) as server:
        await send(client, request_to(server))

        assert await error_case(client, request_to(server, "POST")) == "connection-terminated"


async def test_connections_have_a_limit_and_idle_ones_make_room() -> None:
    async with (
        HttpClient(HttpClientSettings(max_connections=1)) as client,
        answering(ok()) as one,
        answering(ok()) as other,
        serving(echo) as busy,
    ):
        assert (await send(client, request_to(one))).status == 200
        assert (await send(client, request_to(other))).status == 200
        _, receiver = streams.pair()
        response = await send(client, request_to(busy, "POST", body=receiver))
        assert response.status == 200

        assert await error_case(client, request_to(one)) == "connection-limit-reached"


async def test_connections_that_are_being_made_count_too(full: int) -> None:
    async with (
        HttpClient(HttpClientSettings(max_connections=1)) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(send, client, request_to(Server(full)))
        await anyio.wait_all_tasks_blocked()

        assert await error_case(client, request_to(Server(full))) == "connection-limit-reached"
        tasks.cancel_scope.cancel()


# Timeouts and failures


async def test_a_server_that_does_not_answer_times_out(client: HttpClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read()

    async with serving(script) as server:
        assert (
            await error_case(client, request_to(server), first_byte_timeout=0.05) == "connection-read-timeout"
        )


async def test_a_body_that_stands_still_times_out(client: HttpClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc")
        await peer.reader.read()

    async with serving(script) as server:
        case = await error_case(client, request_to(server), between_bytes_timeout=0.05)

    assert case == "connection-read-timeout"


async def test_a_refused_connection_is_told(client: HttpClient) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))

        assert await error_case(client, request_to(Server(closed.getsockname()[1]))) == "connection-refused"


async def test_connecting_times_out(client: HttpClient, full: int) -> None:
    assert await error_case(client, request_to(Server(full)), connect_timeout=0.05) == "connection-timeout"
