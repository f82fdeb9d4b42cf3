"""The body of a request while it comes: a `ByteReceiver` that holds back its client when nobody reads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

import anyio

from lattice.errors import Interrupted, LatticeError
from lattice.http import HttpRequest
from lattice.pouring import Lender, Loan, Pouring, Sink, Sublender
from node.http.failures import Refusal

WINDOW_BYTES = 256 * 1024
"""Above this the connection is not read; it goes on below a quarter of it."""
POURED_BYTES = 128 * 1024
"""The same for a sink, which says itself when it has room again: so much stays in the processor's cache."""


class RequestBody(Pouring, Sublender):
    """Implements `lattice.streams.ByteReceiver`. One task receives at a time, or what comes is poured.

    The mutable state is what came and was not taken, where it goes, and how the body ended.
    """

    def __init__(
        self, wanted: Callable[[], None], taken: Callable[[], None], lender: Lender | None = None
    ) -> None:
        """`wanted` is called when somebody begins to wait, `taken` when there is room again.

        `lender` has the client's socket: what the body is poured into may borrow it.
        """
        self._wanted = wanted
        self._taken = taken
        self._lender = lender
        self._chunks: deque[bytes] = deque()
        self._chunks_bytes = 0
        self._sink: Sink | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._trailers: Mapping[str, str] | None = None
        self._error: LatticeError | None = None
        self.taken_bytes = 0
        self.refusal: Refusal | None = None
        """What to tell the client instead of a response, should the body have been refused half-way."""

    @property
    def waiting_bytes(self) -> int:
        """What came and was not taken."""
        return self._chunks_bytes if self._sink is None else self._sink.size

    @property
    def is_full(self) -> bool:
        """Whether no more should come for now."""
        if self._sink is None:
            return self._chunks_bytes >= WINDOW_BYTES
        return self._sink.size >= POURED_BYTES

    @property
    def trailers(self) -> Mapping[str, str]:
        return self._trailers or {}

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for more; who reads the client's socket by himself does not."""
        sink = self._sink
        is_short = sink is not None and sink.size < POURED_BYTES
        return self._waiter is not None or (is_short and self._recall is None)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be taken."""
        return self._trailers is not None or self._error is not None

    def feed(self, data: bytes) -> None:
        """Add bytes that came; dropped when nobody wants them any more."""
        if self._error is not None:
            return
        if self._sink is not None:
            self._pour(self._sink, data)
            return
        self._chunks.append(data)
        self._chunks_bytes += len(data)
        self._wake()

    def end(self, trailers: Mapping[str, str]) -> None:
        """Say that these were all."""
        self._trailers = trailers
        if self._sink is not None and self._error is None:
            self._sink.end(trailers)
        self._wake()

    async def receive(self) -> bytes:
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._trailers is not None:
                raise anyio.EndOfStream
            await self._wait()
        chunk = self._chunks.popleft()
        self._chunks_bytes -= len(chunk)
        self.taken_bytes += len(chunk)
        if self._chunks_bytes < WINDOW_BYTES // 4:
            self._taken()
        return chunk

    def pour_into(self, sink: Sink) -> None:
        chunks = tuple(self._chunks)
        self._chunks.clear()
        self._sink = sink
        for chunk in chunks:
            self._pour(sink, chunk)
        if self._error is not None:
            sink.break_off(self._error)
        elif self._trailers is not None:
            sink.end(self._trailers)
        elif sink.size < POURED_BYTES:
            self._wanted()
        if sink.size < POURED_BYTES:
            self._taken()
        if self._lender is not None and not self.is_over:
            sink.borrow_from(self)

    def _pour(self, sink: Sink, data: bytes) -> None:
        self.taken_bytes += len(data)
        sink.add(data)
        if sink.size >= POURED_BYTES:
            sink.await_room(self._taken)

    # As the lender of what the body is poured into

    @property
    def left(self) -> int:
        return 0 if self.is_over else super().left

    def lend(self, recall: Callable[[], None]) -> Loan | None:
        return None if self.is_over else super().lend(recall)

    def give_back(self, moved: int, rest: bytes) -> None:
        self.taken_bytes += moved
        super().give_back(moved, rest)

    def abort(self, error: LatticeError) -> None:
        self._end_loan()
        if self._trailers is None and self._error is None:
            self._error = error
            if self._sink is not None:
                self._sink.break_off(error)
        self._wake()

    async def aclose(self) -> None:
        self._chunks.clear()
        self._chunks_bytes = 0
        self.abort(Interrupted("the body of the request is not wanted any more"))
        if self._sink is not None:
            self._sink.discard()
        self._taken()

    async def _wait(self) -> None:
        self._wanted()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def is_clients_fault(request: HttpRequest) -> bool:
    """Whether the request can't be answered because the rest of its body was refused."""
    return isinstance(request.body, RequestBody) and request.body.refusal is not None
