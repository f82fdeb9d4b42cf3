"""What a job runs, whatever kind of file it came from, and where its output goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio

from lattice.jobs import STDOUT, Outcome, output_header
from lattice.streams import ByteReceiver, ByteSender
from node.engine.byte_store import ByteStore, Chunks
from node.engine.host import CallContext, GuestCall, LogSink

Write = Callable[[int, bytes], Awaitable[None]]
"""Takes bytes of `STDOUT` or `STDERR`; waits while nobody reads, raises what ended the output."""

MAX_LINE_BYTES = 8 * 1024


class Program(Protocol):
    """A command that can run once."""

    async def run(self, source: ByteReceiver | None, write: Write) -> Outcome:
        """Run it to its end and write all of its output; raises only what `write` raised.

        Cancelling ends the guest at once.
        """

    async def aclose(self) -> None:
        """Free what it holds."""


class StreamedOutput:
    """Both outputs of a job in one stream, each piece with its header."""

    def __init__(self, sender: ByteSender) -> None:
        self._sender = sender
        self._lock = anyio.Lock()  # a piece that waits for room must not be torn apart

    async def write(self, stream: int, data: bytes) -> None:
        """Send one piece."""
        async with self._lock:
            await self._sender.send(output_header(stream, len(data)) + data)

    async def end(self, outcome: Outcome) -> None:
        """Say how the job ended."""
        await self._sender.end(outcome.trailers())


class LoggedOutput:
    """The outputs of a job that nobody follows: its log gets them by lines."""

    def __init__(self, job: str, sink: LogSink) -> None:
        self._call = GuestCall(job, CallContext(deadline=0.0, call_id=job), _NoInstance(), sink)
        self._sink = sink
        self._rest: dict[int, bytes] = {}

    async def write(self, stream: int, data: bytes) -> None:
        """Log the lines that are whole."""
        lines, separator, rest = (self._rest.pop(stream, b"") + data).rpartition(b"\n")
        if separator:
            self._log(stream, lines)
        while len(rest) > MAX_LINE_BYTES:
            self._log(stream, rest[:MAX_LINE_BYTES])
            rest = rest[MAX_LINE_BYTES:]
        self._rest[stream] = rest

    async def end(self, outcome: Outcome) -> None:
        """Log what has no end of line."""
        for stream, rest in self._rest.items():
            if rest:
                self._log(stream, rest)

    def _log(self, stream: int, text: bytes) -> None:
        self._sink(self._call, "stdout" if stream == STDOUT else "stderr", text)


class _NoInstance:
    """Stands for the sandbox of a call whose output is logged after it has left the sandbox."""

    def __init__(self) -> None:
        self.state: dict[object, object] = {}
        self.call: GuestCall | None = None

    def new_store(self, number: int, window: int, *, is_input: bool) -> ByteStore:
        """Bytes that no guest will ask for."""
        return Chunks()

    def part_stores(self) -> None:
        """There are no channels."""

    def answer_early(self, text: bytes) -> None:
        """There is nobody to answer."""
