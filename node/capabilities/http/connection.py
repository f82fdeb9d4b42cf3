"""A connection to a server: it writes requests, and reads one response at a time with backpressure."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from typing import cast

import anyio

from lattice.errors import LatticeError
from lattice.http import as_trailers
from lattice.streams import Receiving
from node.capabilities.addresses import Address
from node.capabilities.http.errors import HttpError, from_os
from node.capabilities.http.response_parser import ResponseHead, ResponseParser

HIGH_BYTES = 128 * 1024
"""So much of a body may wait to be read before the server has to."""

LOW_BYTES = 32 * 1024


class Connection(asyncio.Protocol):
    """Serves one exchange at a time: `begin`, then `write` and `read_head`, then `receive` until its end."""

    # The mutable state: the transport, the response being read, and what each side waits for.

    def __init__(self, address: Address, on_lost: Callable[[Connection], None]) -> None:
        self.address = address
        self._on_lost = on_lost
        self._transport: asyncio.Transport
        self._parser: ResponseParser | None = None
        self._on_complete: Callable[[], None] | None = None
        self._changed = anyio.Event()
        self._drained = anyio.Event()
        self._drained.set()
        self._is_paused = False
        self._has_said_end = False
        self.is_lost = False

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            self.close()  # nobody asked for anything
            return
        parser.feed(data)
        if parser.size > HIGH_BYTES and not self._is_paused and not parser.has_ended:
            self._transport.pause_reading()
            self._is_paused = True
        self._notify(parser)

    def eof_received(self) -> None:
        """The server has ended the connection: by TLS, only if it has said so, which nobody else could."""
        self._has_said_end = True

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        self._drained.set()
        if self._parser is not None:
            if isinstance(error, OSError):
                self._read_last_words(self._parser)
            reason = from_os(error, "receiving") if isinstance(error, OSError) else None
            self._parser.end(reason, is_clean=self._has_said_end)
            self._notify(self._parser)
        self._on_lost(self)

    def _read_last_words(self, parser: ResponseParser) -> None:
        """Feed what the server said before it hung up.

        A server may answer a request that it does not read to the end, and close: then a write fails, and
        the transport gives up before it has read. What came is still in the socket, which is open until this
        returns.
        """
        socket = self._transport.get_extra_info("socket")
        if socket is None or self._transport.get_extra_info("sslcontext") is not None:
            return
        with contextlib.suppress(OSError):
            while not parser.has_ended and (data := os.read(socket.fileno(), HIGH_BYTES)):
                parser.feed(data)

    def pause_writing(self) -> None:
        self._drained = anyio.Event()

    def resume_writing(self) -> None:
        self._drained.set()

    # An exchange

    @property
    def is_idle(self) -> bool:
        """Whether it is open and could take a request."""
        return not self.is_lost and not self._transport.is_closing()

    def begin(self, method: str, on_complete: Callable[[], None]) -> ResponseParser:
        """Expect the response to a request; `on_complete` is called once all of it came, or none will."""
        self._parser = ResponseParser(method)
        self._on_complete = on_complete
        return self._parser

    def rest(self) -> None:
        """The exchange is over; anything that comes before the next one closes the connection."""
        self._parser = None
        self._on_complete = None
        self._read_on()

    async def write(self, data: bytes) -> None:
        """Send, and wait while the server does not take it; does nothing when the connection is lost."""
        self.write_now(data)
        await self._drained.wait()

    def write_now(self, data: bytes) -> None:
        """Send, however much the server has yet to take; for little."""
        if not self.is_lost:
            self._transport.write(data)

    def fail(self, error: HttpError) -> None:
        """Give the exchange up for a reason of this side's."""
        if self._parser is not None:
            self._parser.end(error)
            self._notify(self._parser)
        self.close()

    def close(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    async def wait(self, deadline: float, reason: str) -> None:
        """Wait until the response got further; after the deadline it has failed for this reason."""
        with anyio.CancelScope(deadline=deadline) as scope:
            await self._changed.wait()
        if scope.cancelled_caught:
            self.fail(HttpError("connection-read-timeout", reason=reason))

    def read_on(self, parser: ResponseParser) -> None:
        """Some of the body was taken: the server may send more."""
        if parser is self._parser and parser.size <= LOW_BYTES:
            self._read_on()

    def _read_on(self) -> None:
        if self._is_paused and not self.is_lost:
            self._transport.resume_reading()
        self._is_paused = False

    def _notify(self, parser: ResponseParser) -> None:
        self._changed.set()
        self._changed = anyio.Event()
        if parser.has_ended and self._on_complete is not None:
            on_complete, self._on_complete = self._on_complete, None
            on_complete()


async def read_head(connection: Connection, parser: ResponseParser, seconds: float) -> ResponseHead:
    """Wait for the final response's head; raises `HttpError`."""
    deadline = anyio.current_time() + seconds
    while parser.head is None:
        if parser.error is not None:
            raise parser.error
        await connection.wait(deadline, f"no response came within {seconds:g} s")
    return parser.head


class ResponseBody(Receiving):
    """The body of a response; implements `lattice.streams.ByteReceiver`. Close it."""

    def __init__(
        self,
        connection: Connection,
        parser: ResponseParser,
        seconds: float,
        on_close: Callable[[], None],
    ) -> None:
        """`seconds` may pass without a byte; `on_close` is called when nobody reads any more."""
        self._connection = connection
        self._parser = parser
        self._seconds = seconds
        self._on_close = on_close

    @property
    def trailers(self) -> Mapping[str, str]:
        return as_trailers(self._parser.trailers)

    async def receive(self) -> bytes:
        parser = self._parser
        while not parser.chunks:
            if parser.error is not None:
                raise parser.error
            if parser.is_complete:
                raise anyio.EndOfStream
            deadline = anyio.current_time() + self._seconds
            await self._connection.wait(deadline, f"the body stood still for {self._seconds:g} s")
        chunk = parser.take()
        self._connection.read_on(parser)
        return chunk

    def abort(self, error: LatticeError) -> None:
        self._on_close()

    async def aclose(self) -> None:
        self._on_close()
