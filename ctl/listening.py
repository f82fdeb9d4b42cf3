"""Messages that come by themselves (events, log lines) as an asynchronous series with a bounded queue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import anyio
import structlog

from lattice import wire
from lattice.bus import Bus, Message
from lattice.errors import Invalid

T = TypeVar("T")

QUEUE_LENGTH = 4096
"""Messages that wait for a slow reader; what is beyond is dropped and counted."""

log = structlog.get_logger()


class Listener(Generic[T]):
    """What `listen` gives: iterate over it. `dropped` counts what came faster than it was read."""

    def __init__(self, decode: Callable[[Mapping[str, Any]], T]) -> None:
        # The mutable state of a listener is its queue and the count of what did not fit.
        self.dropped = 0
        self._decode = decode
        self._send, self._receive = anyio.create_memory_object_stream[T](QUEUE_LENGTH)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self._receive.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def wait_any(self, within_seconds: float) -> bool:
        """Whether something came within that time; takes all that is there."""
        with anyio.move_on_after(within_seconds):
            await self._receive.receive()
            while self._receive.statistics().current_buffer_used:
                self._receive.receive_nowait()
            return True
        return False

    def hand_over(self, message: Message) -> None:
        """Queue a message; one that cannot be read is logged and passed over."""
        try:
            self._send.send_nowait(self._decode(wire.decode_message(message.data)))
        except anyio.WouldBlock:
            self.dropped += 1
        except Invalid as error:
            log.warning("message.ignored", subject=message.subject, reason=error.message)

    def close(self) -> None:
        self._send.close()
        self._receive.close()


@asynccontextmanager
async def listen(
    bus: Bus, subject: str, decode: Callable[[Mapping[str, Any]], T]
) -> AsyncIterator[Listener[T]]:
    """Subscribe for as long as the context lasts; nothing published after entering is missed."""
    listener = Listener(decode)
    subscription = await bus.subscribe(subject, listener.hand_over)
    try:
        yield listener
    finally:
        with anyio.CancelScope(shield=True):
            await subscription.unsubscribe()
        listener.close()
