"""Standard streams that lead out of the sandbox while it runs: a job's input, output and error.

A pipe runs no task. Whoever started the guest feeds and takes in its own task group, most simply with
`pump_input` and `pump_output`; both ends wait for each other, so a pipe never holds more than `PIPE_BYTES`.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from lattice.errors import LatticeError
from lattice.streams import ByteReceiver, ByteSender
from node.capabilities.wasi.pollables import Disarm, Signal, wait_any
from node.capabilities.wasi.streams import InputStream, OutputStream, StreamClosed, StreamFailed

PIPE_BYTES = 256 * 1024
"""So much may be in a pipe; the side that is faster waits."""


class _Buffer:
    """The bytes in a pipe, what became of its two ends, and who waits for a change."""

    __slots__ = ("_data", "changed", "failure", "has_ended", "is_cut")

    def __init__(self) -> None:
        self._data = bytearray()
        self.changed = Signal()
        self.has_ended = False
        self.is_cut = False
        self.failure: str | None = None

    def __len__(self) -> int:
        return len(self._data)

    @property
    def room(self) -> int:
        return max(PIPE_BYTES - len(self._data), 0)

    def put(self, data: bytes) -> None:
        self._data += data
        self.changed.notify()

    def take(self, limit: int) -> bytes:
        taken = bytes(self._data[:limit])
        del self._data[:limit]
        self.changed.notify()
        return taken

    def end(self, failure: str | None = None) -> None:
        self.has_ended, self.failure = True, failure
        self.changed.notify()

    def cut(self) -> None:
        self.is_cut = True
        self._data.clear()
        self.changed.notify()


class _Condition:
    """A source that is ready once a question about a buffer is answered with yes."""

    __slots__ = ("_buffer", "is_ready")

    def __init__(self, buffer: _Buffer, is_ready: Callable[[], bool]) -> None:
        self._buffer = buffer
        self.is_ready = is_ready

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return self._buffer.changed.arm(wake)


class PipeInput(InputStream):
    """What a guest reads, fed from outside."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        super().__init__()
        self._buffer = _Buffer()

    async def feed(self, data: bytes) -> None:
        """Hand bytes to the guest; waits while there is no room for them."""
        buffer = self._buffer
        while data:
            await wait_any((_Condition(buffer, lambda: bool(buffer.room)),))
            room = buffer.room
            buffer.put(data[:room])
            data = data[room:]

    def end(self, failure: str | None = None) -> None:
        """Say that these were all bytes, or why no more can come."""
        self._buffer.end(failure)

    def is_ready(self) -> bool:
        return bool(len(self._buffer)) or self._buffer.has_ended

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return self._buffer.changed.arm(wake)

    def _read(self, limit: int) -> bytes:
        if not len(self._buffer) and self._buffer.has_ended:
            if self._buffer.failure:
                raise StreamFailed(self._buffer.failure)
            raise StreamClosed
        return self._buffer.take(limit)


class PipeOutput(OutputStream):
    """What a guest writes, taken outside. Its bytes count as flushed once they are in the pipe."""

    def __init__(self) -> None:
        super().__init__()
        self._buffer = _Buffer()

    async def take(self) -> bytes:
        """The next bytes, never none; raises `anyio.EndOfStream` after the last."""
        buffer = self._buffer
        await wait_any((_Condition(buffer, lambda: bool(len(buffer)) or buffer.has_ended),))
        if not len(buffer):
            raise anyio.EndOfStream
        return buffer.take(PIPE_BYTES)

    def end(self) -> None:
        """Say that the guest writes no more; what is in the pipe is still taken."""
        self._buffer.end()

    def cut(self) -> None:
        """Say that nobody takes any more: what the guest writes finds the stream closed."""
        self._buffer.cut()

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return self._buffer.changed.arm(wake)

    def _room(self) -> int:
        if self._buffer.is_cut:
            raise StreamClosed
        return self._buffer.room

    def _write(self, contents: bytes) -> None:
        if self._buffer.is_cut:
            raise StreamClosed
        if contents:
            self._buffer.put(contents)


async def pump_input(receiver: ByteReceiver, pipe: PipeInput) -> None:
    """Feed a guest from a stream until its end; a broken stream is an error that the guest reads."""
    try:
        async for chunk in receiver:
            await pipe.feed(chunk)
    except LatticeError as error:
        pipe.end(str(error))
    else:
        pipe.end()


async def pump_output(pipe: PipeOutput, sender: ByteSender) -> None:
    """Send what a guest writes until its end; when nobody receives any more, the guest finds it closed."""
    try:
        while True:
            await sender.send(await pipe.take())
    except anyio.EndOfStream:
        await sender.end()
    except LatticeError:
        pipe.cut()
