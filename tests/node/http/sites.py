"""A listening site whose answers are scripted, and a client that sends and reads raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import anyio
import httptools

from lattice.errors import LatticeError
from lattice.http import HttpRequest, HttpResponse
from node.http import failures
from node.http.body import is_clients_fault
from node.http.handshake import Handshake
from node.http.limits import HttpLimits
from node.http.protocol import Connection
from node.http.site import Site

Script: TypeAlias = Callable[[HttpRequest], Awaitable[HttpResponse]]

GET = b"GET /a?b HTTP/1.1\r\nHost: example.org\r\n\r\n"

answers_at_once = False
"""What sites do that begin to listen: `ScriptedResponder.is_at_once`; set by tests of both ways."""


async def hello(request: HttpRequest) -> HttpResponse:
    """The simplest script."""
    return HttpResponse(status=200, headers=(("content-type", b"text/plain"),), body=b"hello\n")


async def echo(request: HttpRequest) -> HttpResponse:
    """The body back: as it came if it is all here, else as a stream."""
    return HttpResponse(status=200, body=request.body)


@dataclass
class ScriptedResponder:
    """Answers by a script and remembers what it was asked."""

    script: Script
    is_at_once: bool = False
    """Whether what the script answers without waiting is answered at once, as components do."""
    requests: list[HttpRequest] = field(default_factory=list)
    failures: list[LatticeError] = field(default_factory=list)

    def answer(self, request: HttpRequest, traceparent: str) -> HttpResponse | Awaitable[HttpResponse]:
        answer = self._answer(request)
        if not self.is_at_once:
            return answer
        try:
            return _rest(answer, answer.send(None))
        except StopIteration as ended:
            response: HttpResponse = ended.value
            return response

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        try:
            return await self.script(request)
        except LatticeError as error:
            return self.failed(request, error)

    def failed(self, request: HttpRequest, error: LatticeError) -> HttpResponse:
        if not is_clients_fault(request):
            self.failures.append(error)
        return failures.response(failures.of_component(error, "guest", "0badf00d"), request.headers)

    def broke_off(self, request: HttpRequest, error: LatticeError) -> None:
        self.failures.append(error)


@types.coroutine
def _rest(answer: Coroutine[Any, Any, HttpResponse], waits_for: Any) -> Generator[Any, Any, HttpResponse]:
    """What is left of a coroutine that waits already."""
    while True:
        try:
            try:
                yield waits_for
            except BaseException as error:
                waits_for = answer.throw(error)
            else:
                waits_for = answer.send(None)
        except StopIteration as ended:
            response: HttpResponse = ended.value
            return response


@dataclass
class Response:
    """A response as a client reads it."""

    status: int = 0
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    body: bytes = b""
    is_complete: bool = False

    def header(self, name: str) -> bytes | None:
        """The first value of that name."""
        return next((value for key, value in self.headers if key == name), None)


class _Reading:
    def __init__(self) -> None:
        self.response = Response()
        self.parser = httptools.HttpResponseParser(self)

    def on_status(self, status: bytes) -> None:
        self.response.status = self.parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.response.headers.append((name.decode().lower(), value))

    def on_headers_complete(self) -> None:
        self.response.status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.response.body += body

    def on_message_complete(self) -> None:
        self.response.is_complete = True


class Client:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def read_head(self) -> bytes:
        """Up to the next blank line."""
        with anyio.fail_after(5):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def read_all(self) -> bytes:
        """Until the server closes."""
        with anyio.fail_after(5):
            return await self.reader.read()

    async def response(self, *, is_head: bool = False) -> Response:
        """The next response, with a body unless it answers HEAD."""
        head = await self.read_head()
        reading = _Reading()
        reading.parser.feed_data(head)
        if is_head:
            return reading.response
        left = int(reading.response.header("content-length") or 0)
        is_chunked = reading.response.header("transfer-encoding") is not None
        with anyio.fail_after(5):
            if left:
                reading.parser.feed_data(await self.reader.readexactly(left))
            while is_chunked and not reading.response.is_complete:
                reading.parser.feed_data(await self._chunk())
        return reading.response

    async def _chunk(self) -> bytes:
        """One chunk, the last with its trailers, and no byte of the next response."""
        line = await self.reader.readuntil(b"\r\n")
        if size := int(line.partition(b";")[0], 16):
            return line + await self.reader.readexactly(size + 2)
        while not line.endswith(b"\r\n\r\n"):
            line += await self.reader.readuntil(b"\r\n")
        return line

    async def close(self) -> None:
        """Leave."""
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):  # the server was first
            await self.writer.wait_closed()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    """A connection to a port of this machine, closed at the end."""
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield client
    finally:
        await client.close()


@dataclass
class Listening:
    """A site with its port."""

    site: Site
    responder: ScriptedResponder
    port: int

    def client(self) -> AbstractAsyncContextManager[Client]:
        """A connection, closed at the end."""
        return connected(self.port)

    async def ask(self, data: bytes) -> Response:
        """The response to one request on a connection of its own."""
        async with self.client() as client:
            await client.send(data)
            return await client.response()


@asynccontextmanager
async def listening(
    script: Script = hello,
    limits: HttpLimits | None = None,
    *,
    trusts_forwarded: bool = False,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Listening]:
    """A site on a free port."""
    responder = ScriptedResponder(script, is_at_once=answers_at_once)
    async with anyio.create_task_group() as tasks:
        site = Site(responder, limits or HttpLimits(), tasks, trusts_forwarded=trusts_forwarded)
        tasks.start_soon(site.run)
        loop = asyncio.get_running_loop()
        make = partial(Connection, site) if tls is None else partial(Handshake, site, tls)
        server = await loop.create_server(make, "127.0.0.1", 0)
        try:
            yield Listening(site, responder, server.sockets[0].getsockname()[1])
        finally:
            server.close()
            site.abort()
            tasks.cancel_scope.cancel()
