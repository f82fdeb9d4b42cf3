"""The byte streams of `wasi:io/streams` as plain objects: they know no wasm and no call.

A stream offers what it can do at once; waiting, splicing and the checks that real hosts make are built on
that, here, for all streams alike. Another capability gives a guest its bodies or files by subclassing
`InputStream` and `OutputStream` and filling in the methods whose names begin with `_`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from lattice.errors import Trapped
from node.capabilities.wasi.lines import LineBuffer
from node.capabilities.wasi.pollables import Always, Disarm, Watched, wait_any

READ_BYTES = 64 * 1024
"""At most so much crosses in one read; the guest asks again for more."""

WRITE_BYTES = 64 * 1024
"""At most so much crosses in one write."""

BLOCKING_WRITE_BYTES = 4096
"""The limit that the interface itself sets to its two blocking writes."""


class StreamClosed(Exception):
    """Raised when a stream has ended; the guest sees `closed`."""


class StreamFailed(Exception):
    """Raised when an operation of a stream failed; the guest sees `last-operation-failed` with this text.

    Interfaces that know more of it, such as a code, raise a class of their own and find it again as the
    `cause` of the guest's error.
    """


class InputStream(Watched, ABC):
    """The resource `input-stream`; also the source that its pollables wait for."""

    __slots__ = ()

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether a read gives bytes, or the end, at once."""

    @abstractmethod
    def arm(self, wake: Callable[[], None]) -> Disarm:
        """See `pollables.Source`."""

    @abstractmethod
    def _read(self, limit: int) -> bytes:
        """At most `limit` bytes, none if there are none yet; raises `StreamClosed` or `StreamFailed`."""

    def read(self, length: int) -> bytes:
        """Up to `length` bytes that are there; raises `StreamClosed` at the end."""
        return self._read(min(length, READ_BYTES))

    async def blocking_read(self, length: int) -> bytes:
        """Like `read`, after at least one byte, or the end, has come."""
        if length:
            await wait_any((self,))
        return self.read(length)

    def close(self) -> None:
        """The guest dropped it."""


class SlowInput(InputStream):
    """A stream, such as a file's, that always has an answer, but one that takes a moment.

    For the guest it is ready at any time; its reads are awaited while the guest is suspended.
    """

    __slots__ = ()

    def is_ready(self) -> bool:
        return True

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return Always().arm(wake)

    @abstractmethod
    async def _fetch(self, limit: int) -> bytes:
        """One to `limit` bytes; raises `StreamClosed` or `StreamFailed`."""

    def _read(self, limit: int) -> bytes:
        return b""

    async def blocking_read(self, length: int) -> bytes:
        return await self._fetch(min(length, READ_BYTES)) if length else b""


class BytesInput(InputStream):
    """A stream of bytes that are all there from the beginning; an empty one has ended."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes = b"") -> None:
        super().__init__()
        self._data = data
        self._position = 0

    def is_ready(self) -> bool:
        return True

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return Always().arm(wake)

    def _read(self, limit: int) -> bytes:
        if self._position >= len(self._data):
            raise StreamClosed
        chunk = self._data[self._position : self._position + limit]
        self._position += len(chunk)
        return chunk


class OutputStream(Watched, ABC):
    """The resource `output-stream`; also the source that its pollables wait for."""

    def __init__(self) -> None:
        super().__init__()
        # What `check_write` last permitted; a write uses it up, as the guest must ask before each.
        self._permit = 0

    def is_ready(self) -> bool:
        """Whether a write, or an error, is possible at once."""
        try:
            return self._room() > 0
        except (StreamClosed, StreamFailed):
            return True

    @abstractmethod
    def arm(self, wake: Callable[[], None]) -> Disarm:
        """See `pollables.Source`."""

    @abstractmethod
    def _room(self) -> int:
        """How many bytes it takes now; raises `StreamClosed` or `StreamFailed`."""

    @abstractmethod
    def _write(self, contents: bytes) -> None:
        """Take the bytes, never more than `_room` said; raises `StreamClosed` or `StreamFailed`."""

    def _flush(self) -> None:
        """Begin to pass on what is held back; until that is done `_room` says 0."""

    def close(self) -> None:
        """The guest dropped it."""

    def check_write(self) -> int:
        """How many bytes the next write may have; 0 means that the guest should wait."""
        self._permit = min(self._room(), WRITE_BYTES)
        return self._permit

    def write(self, contents: bytes) -> None:
        """Take bytes within the last permit; raises `Trapped` beyond it, as the interface demands."""
        self._use_permit(len(contents))
        self._write(contents)

    def write_zeroes(self, length: int) -> None:
        """Like `write`, of so many zero bytes."""
        self._use_permit(length)
        self._write(bytes(length))

    def flush(self) -> None:
        """Ask for what was written to be passed on; never waits."""
        self._flush()

    async def blocking_flush(self) -> None:
        """Like `flush`, and wait until it is done and the stream takes bytes again."""
        self._flush()
        await wait_any((self,))
        self._room()

    async def blocking_write_and_flush(self, contents: bytes) -> None:
        """Write up to `BLOCKING_WRITE_BYTES` as there is room, then flush and wait for it."""
        _check_blocking_write(len(contents))
        while contents:
            room = await self._wait_for_room()
            self._write(contents[:room])
            contents = contents[room:]
        await self.blocking_flush()

    async def blocking_write_zeroes_and_flush(self, length: int) -> None:
        """Like `blocking_write_and_flush`, of so many zero bytes."""
        _check_blocking_write(length)
        await self.blocking_write_and_flush(bytes(length))

    def splice(self, source: InputStream, length: int) -> int:
        """Move up to `length` bytes that are there and for which there is room; how many were moved."""
        room = min(length, self.check_write())
        if not room:
            return 0
        contents = source.read(room)
        self.write(contents)
        return len(contents)

    async def blocking_splice(self, source: InputStream, length: int) -> int:
        """Like `splice`, after waiting for room and for at least one byte, or the end, of the source."""
        room = min(length, await self._wait_for_room())
        contents = await source.blocking_read(room)
        self._write(contents)
        await self.blocking_flush()
        return len(contents)

    async def _wait_for_room(self) -> int:
        await wait_any((self,))
        return self._room()

    def check_permit(self, length: int) -> None:
        """Raises `Trapped` for a write that was not permitted; leaves the permit."""
        if length > self._permit:
            raise Trapped(
                f"the component wrote {length} bytes to a stream that had permitted {self._permit}: "
                "each write needs a check-write before it"
            )

    def _use_permit(self, length: int) -> None:
        self.check_permit(length)
        self._permit = 0


class SlowOutput(OutputStream):
    """A stream, such as to a file, that takes bytes at any time, but needs a moment for them.

    Its writes are awaited while the guest is suspended, so that nothing is held back and a flush is done.
    """

    def __init__(self) -> None:
        super().__init__()
        self._has_failed = False

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return Always().arm(wake)

    @abstractmethod
    async def _store(self, contents: bytes) -> None:
        """Take all the bytes; raises `StreamFailed`."""

    async def slow_write(self, contents: bytes) -> None:
        """Like `write`, waiting until the bytes are stored."""
        self._use_permit(len(contents))
        await self._put(contents)

    async def blocking_write_and_flush(self, contents: bytes) -> None:
        _check_blocking_write(len(contents))
        await self._put(contents)

    async def slow_splice(self, source: InputStream, length: int) -> int:
        """Like `splice`, waiting until the bytes are stored."""
        self._room()
        contents = await slow_read(source, min(length, WRITE_BYTES))
        await self._put(contents)
        return len(contents)

    async def blocking_splice(self, source: InputStream, length: int) -> int:
        self._room()
        contents = await source.blocking_read(min(length, WRITE_BYTES))
        await self._put(contents)
        return len(contents)

    def _room(self) -> int:
        if self._has_failed:
            raise StreamClosed
        return WRITE_BYTES

    def _write(self, contents: bytes) -> None:
        raise AssertionError("a slow stream is written to by slow_write")

    async def _put(self, contents: bytes) -> None:
        self._room()
        try:
            await self._store(contents)
        except StreamFailed:
            self._has_failed = True
            raise


async def slow_read(source: InputStream, length: int) -> bytes:
    """A read that does not wait for bytes to come, only for those that take a moment."""
    return await source.blocking_read(length) if isinstance(source, SlowInput) else source.read(length)


class LineOutput(OutputStream):
    """Standard output or error: hands on whole lines, and is ready for more at any time."""

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        super().__init__()
        self._sink = sink
        self._lines = LineBuffer()

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return Always().arm(wake)

    def _room(self) -> int:
        return WRITE_BYTES

    def _write(self, contents: bytes) -> None:
        for block in self._lines.feed(contents):
            self._sink(block)

    def end_line(self) -> None:
        """Hand on a line that has begun: not a flush nor a dropped handle ends it, but the end of a call."""
        if rest := self._lines.drain():
            self._sink(rest)


def _check_blocking_write(length: int) -> None:
    """Raises `Trapped` above what the interface allows for one blocking write."""
    if length > BLOCKING_WRITE_BYTES:
        raise Trapped(
            f"the component gave {length} bytes to a blocking write: "
            f"the interface allows {BLOCKING_WRITE_BYTES}"
        )
