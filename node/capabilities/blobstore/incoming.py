"""The resource `incoming-value`: bytes of an object on their way to a guest.

Nothing is received before the guest consumes it. Consumed as a stream, a task of the capability pumps into a
pipe, a window ahead of the guest; consumed at once, the guest waits for all of it.
"""

from __future__ import annotations

import anyio
from anyio.abc import TaskGroup

from lattice.errors import LatticeError
from lattice.exchange import Exchange
from lattice.streams import receive_body
from node.capabilities.blobstore.remote import Refused
from node.capabilities.wasi.pipes import PipeInput, pump_input
from node.capabilities.wasi.streams import BytesInput, InputStream
from node.engine.lowering import MAX_LIST_BYTES

MAX_SYNC_BYTES = MAX_LIST_BYTES
"""What a guest may take in one list; more must be read as a stream."""


class IncomingValue:
    """The bytes of an object, or of a range of it; consumed at most once."""

    # The mutable state is the exchange, until somebody else has it to close.

    def __init__(self, tasks: TaskGroup, exchange: Exchange, size: int) -> None:
        self._tasks = tasks
        self._exchange: Exchange | None = exchange
        self.size = size

    async def take_all(self) -> bytes:
        """All bytes; raises `Refused` if there are too many or they do not come."""
        exchange = self._take()
        async with exchange:
            if self.size > MAX_SYNC_BYTES:
                raise Refused(
                    f"the value has {self.size} bytes, at most {MAX_SYNC_BYTES} can be taken at once: "
                    "consume it as a stream"
                )
            if exchange.body is None:
                return b""
            try:
                return await receive_body(exchange.body, max_bytes=MAX_SYNC_BYTES)
            except LatticeError as error:
                raise Refused(error.message) from error

    def stream(self) -> InputStream:
        """The bytes as a stream, which owns them."""
        exchange = self._take()
        if exchange.body is None or not self.size:
            self._tasks.start_soon(exchange.aclose)
            return BytesInput()
        stream = BlobInput()
        self._tasks.start_soon(_pump, exchange, stream)
        return stream

    def close(self) -> None:
        """The guest dropped it."""
        if self._exchange is not None:
            self._tasks.start_soon(self._take().aclose)

    def _take(self) -> Exchange:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None, "a consumed value has no handle"
        return exchange


class BlobInput(PipeInput):
    """The `input-stream` of a value; dropping it ends the transfer."""

    __slots__ = ("scope",)

    def __init__(self) -> None:
        super().__init__()
        self.scope = anyio.CancelScope()

    def close(self) -> None:
        self.scope.cancel()


async def _pump(exchange: Exchange, stream: BlobInput) -> None:
    with stream.scope:
        async with exchange:
            assert exchange.body is not None
            await pump_input(exchange.body, stream)
