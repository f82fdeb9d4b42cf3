"""The server that wasmtime's HTTP programs send to: it answers with what it was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httptools
from anyio.abc import SocketAttribute, SocketStream

CHUNK_BYTES = 65536
NO_REQUEST = (
    httptools.HttpParserError,
    httptools.HttpParserUpgrade,
    anyio.EndOfStream,
    anyio.BrokenResourceError,
)


@asynccontextmanager
async def echo_server() -> AsyncIterator[str]:
    """Serve on a free port of the loopback interface; the authority to send to."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, _converse)
        yield f"127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


class _Asked:
    """One request, filled in by the parser."""

    def __init__(self) -> None:
        self.uri = self.host = self.body = b""
        self.is_complete = False

    def on_url(self, uri: bytes) -> None:
        self.uri += uri

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"host":
            self.host = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_complete = True


async def _converse(stream: SocketStream) -> None:
    """Answer one request and close; what is no request is closed without an answer."""
    asked = _Asked()
    parser = httptools.HttpRequestParser(asked)
    async with stream:
        try:
            while not asked.is_complete:
                parser.feed_data(await stream.receive(CHUNK_BYTES))
            await stream.send(_answer(parser.get_method(), asked))
        except (
            httptools.HttpParserError,
            httptools.HttpParserUpgrade,
            anyio.EndOfStream,
            anyio.BrokenResourceError,
        ):
            return


def _answer(method: bytes, asked: _Asked) -> bytes:
    told = {b"method": method, b"uri": asked.uri, b"host": asked.host}
    fields = b"".join(b"x-wasmtime-test-%s: %s\r\n" % item for item in told.items())
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n" % len(asked.body)
    return head + fields + b"\r\n" + asked.body
