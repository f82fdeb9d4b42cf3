"""The sending half of a connection: writes responses, and waits while the client does not take them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lattice.errors import Interrupted, Invalid
from lattice.http import INLINE_BYTES, Headers, HttpResponse
from lattice.pouring import UNLIMITED, Borrowing, Loan
from lattice.streams import ByteReceiver
from lattice.tasks import own_task
from node.http.responses import Framing, ResponseHead, trailer_lines

HIGH_WATER_BYTES = 128 * 1024
"""Unsent bytes above which the sending half waits."""
ONE_PIECE_BYTES = 8 * 1024
"""A chunk up to this size is copied into one piece: by TLS each piece is encrypted and sent by itself."""


class Outlet:
    """The mutable state is whether the client takes bytes, whether it is lost, and what is being sent."""

    def __init__(self, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES, low=0)  # empty, it may be lent
        self.transport = transport
        self._framing = Framing.NONE
        self._left = 0
        self.is_paused = False
        self.is_lost = False
        self._waiter: asyncio.Future[None] | None = None

    def pause(self) -> None:
        """The client is behind."""
        self.is_paused = True

    def resume(self) -> None:
        """The client has caught up."""
        self.is_paused = False
        self._wake()

    def lose(self) -> None:
        """The connection is gone; whoever waits here gets `Interrupted`."""
        self.is_lost = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def drained(self) -> None:
        """Return when the client takes bytes again; raises `Interrupted` when it has left."""
        while self.is_paused and not self.is_lost:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.is_lost:
            raise Interrupted("the client has left")

    @property
    def is_closed(self) -> bool:
        """Whether a write would fail: a lost connection may be closed before its loss is told."""
        return self.is_lost or self.transport.is_closing()

    def _check_open(self) -> None:
        if self.is_closed:
            raise Interrupted("the client has left")

    def send_whole(self, head: ResponseHead, response: HttpResponse) -> None:
        """Write a response whose body is all here, in one piece if it is small; then look at `is_paused`."""
        self._check_open()
        body, lines = response.body, head.lines
        assert isinstance(body, bytes)
        if head.framing is Framing.CHUNKED:
            lines += _chunk(body) if body else ()
            lines.append(trailer_lines(response.trailers))
        elif head.framing is not Framing.NONE:
            if len(body) > INLINE_BYTES:
                self.transport.write(b"".join(lines))
                lines = [body]
            else:
                lines.append(body)
        self.transport.write(b"".join(lines) if len(lines) > 1 else lines[0])

    @property
    def descriptor(self) -> int | None:
        """Of the client's socket, if that can be lent: by TLS nobody else can read or write."""
        transport = self.transport
        if self.is_closed or transport.get_extra_info("sslcontext") is not None:
            return None
        socket = transport.get_extra_info("socket")
        return None if socket is None else socket.fileno()

    # As the lender of its socket to the body of a response

    left = 0  # who writes is pressed by nobody

    def lend(self, recall: Callable[[], None]) -> Loan | None:
        descriptor = self.descriptor
        if descriptor is None or self.is_paused or self.transport.get_write_buffer_size():
            return None
        length = self._left if self._framing is Framing.LENGTH else UNLIMITED
        return Loan(descriptor, length, is_chunked=self._framing is Framing.CHUNKED)

    def give_back(self, moved: int, rest: bytes) -> None:
        self._left -= moved
        if rest and not self.is_closed:
            self.transport.write(rest)

    async def send_stream(self, head: ResponseHead, body: ByteReceiver) -> None:
        """Write a response whose body comes as a stream, and close that stream.

        Raises what broke the stream; the response is incomplete then.
        """
        await own_task()
        async with body:
            self._check_open()
            self.transport.write(b"".join(head.lines))
            self._framing, self._left = head.framing, head.length
            if isinstance(body, Borrowing):
                body.borrow_from(self)
            if head.framing is Framing.CHUNKED:
                await self._send_chunks(body)
            elif head.framing is Framing.LENGTH:
                await self._send_length(body, head.length)
            elif head.framing is Framing.CLOSE:
                async for data in body:
                    await self._write(data)

    async def _send_chunks(self, body: ByteReceiver) -> None:
        async for data in body:
            self._check_open()
            self.transport.writelines(_chunk(data))
            if self.is_paused or self.is_lost:
                await self.drained()
        self._check_open()
        self.transport.write(trailer_lines(_trailers(body)))

    async def _send_length(self, body: ByteReceiver, length: int) -> None:
        async for data in body:
            self._left -= len(data)
            if self._left < 0:
                raise Invalid(f"the component sends more than the {length} bytes of its `content-length`")
            await self._write(data)
        if self._left:
            sent = length - self._left
            raise Invalid(f"the component sent {sent} of the {length} bytes of its `content-length`")

    async def _write(self, data: bytes) -> None:
        self._check_open()
        self.transport.write(data)
        if self.is_paused or self.is_lost:
            await self.drained()


def _chunk(data: bytes) -> tuple[bytes, ...]:
    if len(data) <= ONE_PIECE_BYTES:
        return (b"%x\r\n%b\r\n" % (len(data), data),)
    return b"%x\r\n" % len(data), data, b"\r\n"


def _trailers(body: ByteReceiver) -> Headers:
    return tuple((name, value.encode("latin-1", "replace")) for name, value in body.trailers.items())
