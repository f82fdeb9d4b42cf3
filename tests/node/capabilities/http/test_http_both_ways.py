"""Requests whose response comes while they are being sent, or breaks off, and those that are given up."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Mapping

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from lattice import streams
from lattice.errors import Failed, Interrupted, LatticeError
from lattice.streams import Receiving
from node.capabilities.http.client import HttpClient
from tests.node.capabilities.http.client_requests import (
    MEBIBYTE,
    check_echo_while_sending,
    error_case,
    request_to,
    send,
    whole_body,
)
from tests.node.capabilities.http.servers import Peer, Server, answering, echo, ok, serving
from tests.waiting import until

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nx-t: 1\r\n\r\n"


async def test_the_response_is_received_while_the_request_is_sent(client: HttpClient) -> None:
    sender, receiver = streams.pair()
    async with serving(echo) as server:
        response = await send(client, request_to(server, "POST", body=receiver))
        await check_echo_while_sending(sender, response)


@pytest.mark.slow
async def test_a_server_waits_while_nobody_takes_its_response(client: HttpClient) -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.head()
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 67108864\r\n\r\n")
        for _ in range(64):
            await peer.send(b"x" * MEBIBYTE)
            sent += MEBIBYTE

    async with serving(script) as server:
        response = await send(client, request_to(server))
        await asyncio.sleep(0.3)  # nobody reads: what could be sent by now has been
        before = sent
        received = len(await whole_body(response))

    assert before < 16 * MEBIBYTE
    assert received == sent == 64 * MEBIBYTE


async def test_a_request_that_is_answered_early_is_sent_on_if_the_server_takes_it(client: HttpClient) -> None:
    sender, receiver = streams.pair()

    async def script(peer: Peer) -> None:
        for _ in range(2):
            head = await peer.head()
            await peer.send(ok(b"early"))
            server.bodies.append(await peer.body(head))

    async with serving(script) as server:
        response = await send(client, request_to(server, "POST", body=receiver))
        with anyio.fail_after(5):
            await sender.send(b"x" * 300_000)
            await sender.end()
            while not server.bodies:  # noqa: ASYNC110
                await anyio.sleep(0.001)
        await wait_all_tasks_blocked()
        await send(client, request_to(server))

    assert response.body == b"early"
    assert [len(body) for body in server.bodies] == [300_000, 0]
    assert server.connections == 1


class AfterTheEnd(Receiving):
    """A body of which more comes when the server has hung up, before anything was read from it."""

    trailers: Mapping[str, str] = {}

    def __init__(self, has_hung_up: threading.Event) -> None:
        self._has_hung_up = has_hung_up
        self._left = 3

    async def receive(self) -> bytes:
        if not self._left:
            raise anyio.EndOfStream
        self._left -= 1
        while self._left < 2 and not self._has_hung_up.is_set():
            pass  # nothing else runs on the event loop meanwhile
        return b"x" * 200_000

    def abort(self, error: LatticeError) -> None:
        return None

    async def aclose(self) -> None:
        return None


@pytest.mark.parametrize("anyio_backend", ["asyncio", ("asyncio", {"use_uvloop": True})])
async def test_an_early_answer_is_received_although_a_write_fails_first(client: HttpClient) -> None:
    """What a server has not read of a request makes the end of the connection a reset."""
    has_hung_up = threading.Event()

    def serve(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        peer.recv(65536)
        peer.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\nconnection: close\r\n\r\nlarge")
        peer.close()
        has_hung_up.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        server = Server(listener.getsockname()[1])
        response = await send(client, request_to(server, "POST", body=AfterTheEnd(has_hung_up)))
        thread.join()

    assert (response.status, response.body) == (413, b"large")


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize("whole", [ok(b"0123456789", "x-a: b"), CHUNKED])
async def test_a_response_that_is_cut_anywhere_is_never_taken_for_whole(
    client: HttpClient, whole: bytes, is_reset: bool
) -> None:
    cuts = iter(range(len(whole)))

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(whole[: next(cuts)])
        if is_reset:
            linger = struct.pack("ii", 1, 0)
            peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    async with serving(script) as server:
        cases = {await error_case(client, request_to(server, "POST")) for _ in whole}

    assert cases <= {"connection-terminated", "HTTP-response-incomplete"}


async def test_a_request_that_is_answered_early_is_sent_no_further_if_the_server_closes(
    client: HttpClient,
) -> None:
    sender, receiver = streams.pair()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await peer.reader.read()

    async with serving(script) as server:
        response = await send(client, request_to(server, "POST", body=receiver))
        with anyio.fail_after(5), pytest.raises(Interrupted, match="wants no more"):
            await sender.send(b"x" * MEBIBYTE)

    assert response.status == 413


async def test_a_request_body_that_breaks_cuts_the_request(client: HttpClient) -> None:
    sender, receiver = streams.pair()

    async with answering(ok()) as server:
        await sender.send(b"abc")
        await sender.fail(Failed("the guest trapped"))
        case = await error_case(client, request_to(server, "POST", body=receiver))

    assert case == "internal-error"
    assert server.bodies == []


async def test_a_response_that_is_closed_early_closes_its_connection(client: HttpClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc")
        await peer.reader.read()

    async with serving(script) as server:
        response = await send(client, request_to(server))
        assert not isinstance(response.body, bytes)
        await response.body.aclose()
        await until(lambda: server.ended)


async def test_cancelling_a_request_closes_its_connection(client: HttpClient) -> None:
    asked = anyio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        asked.set()
        await peer.reader.read()

    async with serving(script) as server:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, client, request_to(server))
            await asked.wait()
            tasks.cancel_scope.cancel()
        await until(lambda: server.ended)
