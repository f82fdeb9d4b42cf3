"""Bodies that a guest reads: the resources `incoming-body` and `future-trailers`, and the stream between.

A body that is not all here comes through a `BodyBuffer`: a task of whoever made the body pumps into it, a
window ahead of the guest, which reads without waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio

from lattice.errors import LatticeError, Trapped
from lattice.pouring import Lender
from lattice.streams import ByteReceiver
from node.capabilities.http.allowance import Allowance
from node.capabilities.http.errors import BodyFailed, HttpError, from_lattice
from node.capabilities.http.fields import Fields
from node.capabilities.wasi.pollables import Disarm, Signal, Watched
from node.capabilities.wasi.streams import InputStream, StreamClosed
from node.engine.byte_store import ByteStore, Chunks

WINDOW_BYTES = 128 * 1024
"""What is received ahead of a guest that does not read."""


class BodyBuffer:
    """What came of a body and has not been read."""

    # The mutable state: what has not been read, and how the body ended.

    def __init__(
        self,
        data: bytes = b"",
        trailers: Fields | None = None,
        *,
        is_complete: bool = True,
        allowance: Allowance | None = None,
    ) -> None:
        """What waits here counts against `allowance`, if it is for a guest's request; raises `Trapped`."""
        self._allowance = allowance
        self._held = 0
        self._store: ByteStore = Chunks()
        if data:
            self._hold(len(data))
            self._store.add(data)
        self._is_complete = is_complete
        self._is_discarding = False
        self.trailers = trailers
        self.error: HttpError | None = None
        self._came = Signal()
        self._on_room: Callable[[], None] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes, well or not."""
        return self._is_complete or self.error is not None

    @property
    def is_readable(self) -> bool:
        return self._store.size > 0 or self.has_ended

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return self._came.arm(wake)

    def read(self, limit: int) -> bytes:
        """Up to so many bytes that are here; raises `StreamClosed` at the end, `BodyFailed` if it broke."""
        part = self._store.take(limit)
        if not part:
            if self.error is not None:
                raise BodyFailed(self.error)
            if self._is_complete:
                raise StreamClosed
        self._hold(-len(part))
        if self._on_room is not None and self._has_room():
            self._tell_of_room()
        return part

    def move_to(self, store: ByteStore) -> None:
        """Keep what has not been read there from now on; for bodies that count against no allowance."""
        assert self._allowance is None
        former, self._store = self._store, store
        while part := former.take(former.size):
            store.add(part)
        self._tell_of_room()  # who waits for some looks for himself

    def discard(self) -> None:
        """Nobody reads any more: only the trailers are wanted."""
        self._is_discarding = True
        self._store.borrow_from(None)
        self._store.clear()
        self._hold(-self._held)
        self._tell_of_room()
        self._came.notify()

    async def pump(self, receiver: ByteReceiver) -> None:
        """Receive the whole body, a window ahead of the guest at most; never raises for a broken body."""
        try:
            async for chunk in receiver:
                self.add(chunk)
                while self._store.size >= WINDOW_BYTES:
                    room = anyio.Event()
                    if not self.await_room(room.set):
                        await room.wait()
        except LatticeError as error:
            self.break_off(error)
        else:
            self.end(receiver.trailers)

    # What a receiver does that pours into it

    @property
    def size(self) -> int:
        """The bytes that wait."""
        return self._store.size

    def add(self, data: bytes) -> None:
        """These came."""
        if self._is_discarding:
            return
        self._hold(len(data))
        self._store.add(data)
        self._came.notify()

    def end(self, trailers: Mapping[str, str]) -> None:
        """These were all."""
        self._is_complete = True
        found = [(name, value.encode("latin-1", "replace")) for name, value in trailers.items()]
        self.trailers = Fields.received(found) if found else None
        self._came.notify()

    def break_off(self, error: LatticeError) -> None:
        """No more will come."""
        self.error = from_lattice(error)
        self._came.notify()

    def await_room(self, wake: Callable[[], None]) -> bool:
        """Have `wake` called, maybe for nothing, when there may be room: true if there is already."""
        if self._is_discarding or self._has_room() or self._store.await_room(wake):
            return True
        self._on_room = wake
        return False

    def borrow_from(self, lender: Lender) -> None:
        """Where the guest may borrow the socket that the body comes from."""
        if not self._is_discarding:
            self._store.borrow_from(lender)

    def _has_room(self) -> bool:
        return self._store.size * 2 <= WINDOW_BYTES

    def _tell_of_room(self) -> None:
        wake, self._on_room = self._on_room, None
        if wake is not None:
            wake()

    def __del__(self) -> None:
        self._hold(-self._held)

    def _hold(self, size: int) -> None:
        if self._allowance is not None:
            self._allowance.take(size)
            self._held += size


class BodyInput(InputStream):
    """The `input-stream` of a body."""

    __slots__ = ("_body", "_buffer")

    def __init__(self, body: IncomingBody, buffer: BodyBuffer) -> None:
        super().__init__()
        self._body = body
        self._buffer = buffer

    def is_ready(self) -> bool:
        return self._buffer.is_readable

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return self._buffer.arm(wake)

    def _read(self, limit: int) -> bytes:
        return self._buffer.read(limit)

    def close(self) -> None:
        self._body.stream_closed()
        self.check_unwatched("the stream of a body")


class IncomingBody:
    """The resource `incoming-body`."""

    def __init__(self, buffer: BodyBuffer, on_close: Callable[[], None] | None = None) -> None:
        """`on_close` is called when nobody wants the body, nor its trailers, any more."""
        self._buffer = buffer
        self._on_close = on_close
        self._has_streamed = False
        self._is_streaming = False

    def stream(self) -> BodyInput | None:
        """The stream to read from, once."""
        if self._has_streamed:
            return None
        self._has_streamed = self._is_streaming = True
        return BodyInput(self, self._buffer)

    def stream_closed(self) -> None:
        """The guest dropped the stream; the body may end now."""
        self._is_streaming = False

    def finish(self) -> FutureTrailers:
        """Give up the rest of the body for the trailers behind it."""
        self._check_stream_closed("finished")
        self._buffer.discard()
        return FutureTrailers(self._buffer, self._on_close)

    def close(self) -> None:
        """The guest dropped it."""
        if self._on_close is not None:
            self._on_close()
        self._check_stream_closed("dropped")

    def _check_stream_closed(self, what: str) -> None:
        if self._is_streaming:
            raise Trapped(
                f"the component {what} an incoming body whose stream it still holds: drop that first"
            )


class FutureTrailers(Watched):
    """The resource `future-trailers`; also the source that its pollables wait for."""

    def __init__(self, buffer: BodyBuffer, on_close: Callable[[], None] | None) -> None:
        super().__init__()
        self._buffer = buffer
        self._on_close = on_close
        self._was_taken = False

    def is_ready(self) -> bool:
        return self._buffer.has_ended

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return self._buffer.arm(wake)

    def get(self) -> Any:
        """The WIT value: nothing yet, the trailers or an error once, an error of its own ever after."""
        if not self.is_ready():
            return None
        if self._was_taken:
            return {"err": None}
        self._was_taken = True
        if self._buffer.error is not None:
            return {"ok": {"err": self._buffer.error.error_code}}
        return {"ok": {"ok": self._buffer.trailers}}

    def close(self) -> None:
        """The guest dropped it."""
        if self._on_close is not None:
            self._on_close()
        self.check_unwatched("a future-trailers")
