"""Servers for the client's tests: they do what a test scripts, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Script = Callable[["Peer"], Awaitable[None]]


@dataclass(eq=False)
class Peer:
    """One connection, as the server has it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> bytes:
        """The next request up to its empty line; raises `asyncio.IncompleteReadError` at the end."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def body(self, head: bytes) -> bytes:
        """The body that belongs to a head, and its trailers as they came."""
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            return b"".join([chunk async for chunk in self.chunks()])
        for line in lower.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return await self.reader.readexactly(int(line.split(b":")[1]))
        return b""

    async def chunks(self) -> AsyncIterator[bytes]:
        """The chunks of a chunked body; the trailers are kept in `trailers`."""
        while True:
            size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
            if not size:
                break
            yield await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        self.trailers = b""
        while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
            self.trailers += line

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
        await self.writer.drain()


@dataclass(eq=False)
class Server:
    """A server that runs, and what it was asked."""

    port: int
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    ended: int = 0

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server on a free port that runs `script` for each connection."""
    server = Server(0)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await script(Peer(reader, writer))
        finally:
            server.ended += 1
            writer.close()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


async def echo(peer: Peer) -> None:
    """A script: sends each chunk of a request back as it comes, then waits for the client to leave."""
    await peer.head()
    await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    async for chunk in peer.chunks():
        await peer.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    await peer.send(b"0\r\n\r\n")
    await peer.reader.read()


@asynccontextmanager
async def answering(*answers: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server that records requests and answers each with the next of `answers`, the last one for ever."""
    left = list(answers)

    async def script(peer: Peer) -> None:
        while True:
            head = await peer.head()
            server.heads.append(head)
            server.bodies.append(await peer.body(head))
            await peer.send(left.pop(0) if len(left) > 1 else left[0])

    async with serving(script, tls=tls) as server:
        yield server


def ok(body: bytes = b"", *headers: str) -> bytes:
    """A response with that body."""
    lines = ["HTTP/1.1 200 OK", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
