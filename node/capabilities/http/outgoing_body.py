"""Bodies that a guest writes: the resource `outgoing-body`, its stream, and the pipe out of the sandbox.

The guest writes without waiting as long as the pipe has room; whoever sends the body receives from the other
end, as from any byte stream. So the guest waits for the slowest peer, and holds a window at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

import anyio

from lattice.errors import Interrupted, LatticeError, Trapped
from lattice.http import as_trailers
from lattice.pouring import Borrowing, Lender, Loan, Sublender
from node.capabilities.http.allowance import Allowance
from node.capabilities.http.errors import BodyFailed, HttpError
from node.capabilities.http.fields import Fields
from node.capabilities.wasi.pollables import Disarm, Signal
from node.capabilities.wasi.streams import OutputStream, StreamClosed
from node.engine.byte_store import ByteStore, Chunks

WINDOW_BYTES = 256 * 1024
"""What a guest may be ahead of who sends its body."""

PART_BYTES = 128 * 1024
"""What who sends it takes at a time: that lies with a slow client's connection, by TLS more than once."""

UNSENT_BYTES = 1024 * 1024
"""What a guest may write before it has its message sent: other hosts take that much, so guests rely on it."""

SMALL_CHUNK_BYTES = 4096
"""Chunks are joined up to this size while they wait."""


class BodyPipe(Borrowing, Sublender):
    """A stream of bytes from a guest; implements `lattice.streams.ByteReceiver` for who sends them on."""

    # The mutable state: what was written and not received, and how the stream ended, at either end.

    def __init__(
        self,
        allowance: Allowance | None = None,
        store: ByteStore | None = None,
        *,
        unsent_bytes: int = UNSENT_BYTES,
    ) -> None:
        """What waits here counts against `allowance`, that of the guest, unless it waits in a channel.

        Until somebody receives, `unsent_bytes` have room.
        """
        self._allowance = allowance
        self._unsent_bytes = unsent_bytes
        self.on_abandoned: Callable[[], None] | None = None
        """Called if the receiving end is closed before the guest has finished."""
        self._store = store or Chunks(SMALL_CHUNK_BYTES)
        self._trailers: Mapping[str, str] | None = None
        self._error: LatticeError | None = None
        self._is_abandoned = False
        self._is_sent = False
        self._waiter: asyncio.Future[None] | None = None
        self._taken = Signal()
        self._is_receiving = False

    # The guest's end: never waits

    @property
    def is_finished(self) -> bool:
        """Whether the guest has written all of the body."""
        return self._trailers is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing can be written any more, for whatever reason."""
        return self.is_finished or self._error is not None or self._is_abandoned

    @property
    def size(self) -> int:
        """The bytes that wait here."""
        return self._store.size

    def room(self) -> int:
        """How many bytes may be written; raises `StreamClosed` when nobody wants any."""
        if self.is_over:
            raise StreamClosed
        return max(0, (WINDOW_BYTES if self._is_sent else self._unsent_bytes) - self._store.size)

    def write(self, data: bytes) -> None:
        """Take bytes for which there is room."""
        if not data:
            return
        if self._allowance is not None:
            self._allowance.take(len(data))
        self._store.add(data)
        self._notify()

    def _give_back(self, size: int) -> None:
        if self._allowance is not None:
            self._allowance.give(size)

    def __del__(self) -> None:
        self._give_back(self._store.size)

    def finish(self, trailers: Mapping[str, str] | None = None) -> None:
        """Say that these were all bytes."""
        if not self.is_over:
            self._end_loan()
            self._trailers = dict(trailers or {})
            self._notify()

    def fail(self, error: LatticeError) -> None:
        """Break the stream unless it is over: what was written is received, then `error` is raised."""
        if not self.is_over:
            self._end_loan()
            self._error = error
            self._store.close()
            self._notify()

    def explain(self, error: LatticeError) -> None:
        """Say why a stream that was not finished never will be: a better reason than its being dropped."""
        if not self.is_finished and not self._is_abandoned:
            self._end_loan()
            self._error = error
            self._store.close()
            self._notify()

    def arm(self, wake: Callable[[], None]) -> Disarm:
        """Have the guest woken when there may be room."""
        return self._taken.arm(wake)

    def take_all(self) -> bytes:
        """All that waits here; for a body that is finished."""
        parts = []
        while part := self._store.take(UNSENT_BYTES):
            parts.append(part)
        data = b"".join(parts)
        self._give_back(len(data))
        return data

    def _notify(self) -> None:
        self._wake()
        self._taken.notify()

    def _wake(self) -> None:
        if self._waiter is not None:
            _settle(self._waiter)

    # The receiving end

    @property
    def trailers(self) -> Mapping[str, str]:
        return self._trailers or {}

    async def receive(self) -> bytes:
        self._is_receiving = self._is_sent = True
        try:
            self._store.borrow()
            while self._recall is not None or not (chunk := self._store.take(PART_BYTES)):
                if self._recall is not None:
                    await self._settled()
                    continue
                if self._error is not None:
                    raise self._error
                if self._trailers is not None:
                    raise anyio.EndOfStream
                if self._is_abandoned:
                    raise Interrupted("the body was given up")
                await self._await_data()
        finally:
            self._is_receiving = False
        self._give_back(len(chunk))
        self._taken.notify()
        return chunk

    async def _await_data(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        if self._store.await_data(partial(_settle, waiter)):  # it keeps that, which must not have the pipe
            return
        await self._settled(waiter)

    async def _settled(self, waiter: asyncio.Future[None] | None = None) -> None:
        self._waiter = waiter or asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def borrow_from(self, lender: Lender) -> None:
        """Where the guest may borrow the socket that the body goes to while `receive` waits."""
        self._lender = lender
        self._store.borrow_from(self)

    # As the lender of its channel

    def lend(self, recall: Callable[[], None]) -> Loan | None:
        is_free = self._is_receiving and (self._waiter is None or not self._waiter.done())
        return super().lend(recall) if is_free and not self.is_over else None

    def give_back(self, moved: int, rest: bytes) -> None:
        super().give_back(moved, rest)
        self._wake()

    def abort(self, error: LatticeError) -> None:
        self.fail(error)

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """The receiving end wants no more: the guest's next write meets the end of the stream."""
        is_early = not self.is_over
        self._store.borrow_from(None)  # as it may have outlived the call that would have done so
        self._lender = None
        self._is_abandoned = True
        self._store.close()
        self._give_back(self._store.size)
        self._store.clear()
        self._notify()
        if is_early and self.on_abandoned is not None:
            self.on_abandoned()


class BodyOutput(OutputStream):
    """The `output-stream` of a body: it counts what is written against the announced length."""

    def __init__(self, body: OutgoingBody) -> None:
        super().__init__()
        self._body = body

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return self._body.pipe.arm(wake)

    def _room(self) -> int:
        return self._body.pipe.room()

    def check_permit(self, length: int) -> None:
        """A body takes what there is room for although nobody asked, as in wasmtime.

        StarlingMonkey, which runs handlers in JavaScript, writes what it has to say of an error so.
        """
        if length > self._room():
            super().check_permit(length)

    def _write(self, contents: bytes) -> None:
        self._body.count(len(contents))
        self._body.pipe.write(contents)

    def close(self) -> None:
        self._body.stream_closed()
        self.check_unwatched("the stream of a body")


class OutgoingBody:
    """The resource `outgoing-body`. Whatever ends it other than `finish` breaks the stream."""

    def __init__(self, pipe: BodyPipe, length: int | None, size_error: str) -> None:
        """`length` is what `content-length` announces; `size_error` the error code of breaking that."""
        self.pipe = pipe
        self._length = length
        self._size_error = size_error
        self._written = 0
        self._has_streamed = False
        self._is_streaming = False

    def write(self) -> BodyOutput | None:
        """The stream to write to, once."""
        if self._has_streamed:
            return None
        self._has_streamed = self._is_streaming = True
        return BodyOutput(self)

    def count(self, size: int) -> None:
        """Note that so much is written; raises `BodyFailed` beyond the announced length."""
        self._written += size
        if self._length is not None and self._written > self._length:
            error = self._mismatch()
            self.pipe.fail(error)
            raise BodyFailed(error)

    def stream_closed(self) -> None:
        """The guest dropped the stream; the body may end now."""
        self._is_streaming = False

    def finish(self, trailers: Fields | None) -> None:
        """End the body; raises `HttpError` if it is shorter or longer than announced.

        A stream that the guest still holds takes nothing any more. The interface has hosts trap then; but all
        is said, other hosts send it, and guests rely on that.
        """
        self._is_streaming = False
        if self._length is not None and self._written != self._length:
            error = self._mismatch()
            self.pipe.fail(error)
            raise error
        self.pipe.finish(as_trailers(trailers.headers() if trailers else ()))

    def close(self) -> None:
        """The guest dropped it: what is not finished by then never will be."""
        self.pipe.fail(
            HttpError("HTTP-protocol-error", reason="the component dropped a body that it had not finished")
        )
        if self._is_streaming:
            raise Trapped(
                "the component dropped an outgoing body whose stream it still holds: drop that first"
            )

    def _mismatch(self) -> HttpError:
        reason = f"the component wrote {self._written} bytes and had announced {self._length}"
        return HttpError(self._size_error, self._written, reason=reason)


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
