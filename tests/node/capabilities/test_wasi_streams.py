from collections import deque
from collections.abc import Callable

import anyio
import pytest

from lattice.errors import Trapped
from node.capabilities.wasi.lines import LINE_BYTES
from node.capabilities.wasi.pollables import Disarm, Pollable, Signal
from node.capabilities.wasi.streams import (
    BLOCKING_WRITE_BYTES,
    READ_BYTES,
    WRITE_BYTES,
    BytesInput,
    InputStream,
    LineOutput,
    OutputStream,
    StreamClosed,
    StreamFailed,
)


class Tap(InputStream):
    """An input that the test feeds; `None` is its end."""

    def __init__(self) -> None:
        super().__init__()
        self._chunks: deque[bytes | None] = deque()
        self._signal = Signal()

    def is_ready(self) -> bool:
        return bool(self._chunks)

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return self._signal.arm(wake)

    def _read(self, limit: int) -> bytes:
        if not self._chunks:
            return b""
        if (chunk := self._chunks[0]) is None:
            raise StreamClosed
        self._chunks.popleft()
        if chunk[limit:]:
            self._chunks.appendleft(chunk[limit:])
        return chunk[:limit]

    def feed(self, chunk: bytes | None) -> None:
        self._chunks.append(chunk)
        self._signal.notify()


class Drain(OutputStream):
    """An output with as much room as the test gives it."""

    def __init__(self, room: int = 0) -> None:
        super().__init__()
        self.room = room
        self.taken: list[bytes] = []
        self.flushes = 0
        self.failure: Exception | None = None
        self._signal = Signal()

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return self._signal.arm(wake)

    def _room(self) -> int:
        if self.failure:
            raise self.failure
        return self.room

    def _write(self, contents: bytes) -> None:
        assert len(contents) <= self.room
        self.room -= len(contents)
        self.taken.append(contents)

    def _flush(self) -> None:
        self.flushes += 1

    def make_room(self, room: int) -> None:
        self.room = room
        self._signal.notify()

    def fail(self, failure: Exception) -> None:
        self.failure = failure
        self._signal.notify()


def test_bytes_are_read_in_order_and_then_the_end() -> None:
    stream = BytesInput(b"hello")

    assert stream.read(2) == b"he"
    assert stream.read(100) == b"llo"
    with pytest.raises(StreamClosed):
        stream.read(1)


def test_one_read_is_bounded_whatever_the_guest_asks_for() -> None:
    assert len(BytesInput(bytes(READ_BYTES + 1)).read(2**64 - 1)) == READ_BYTES


async def test_an_empty_input_has_ended_and_is_ready() -> None:
    stream = BytesInput()

    assert Pollable(stream).is_ready()
    with pytest.raises(StreamClosed):
        await stream.blocking_read(1)


async def test_a_blocking_read_waits_for_the_first_byte() -> None:
    tap = Tap()
    read: list[bytes] = []

    async def reader() -> None:
        read.append(await tap.blocking_read(10))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader)
        await anyio.wait_all_tasks_blocked()
        before = list(read)
        tap.feed(b"abc")

    assert before == []
    assert read == [b"abc"]


async def test_a_blocking_read_of_nothing_does_not_wait() -> None:
    assert await Tap().blocking_read(0) == b""


async def test_a_blocking_read_ends_when_the_stream_does() -> None:
    tap = Tap()

    async with anyio.create_task_group() as tasks:

        async def reader() -> None:
            with pytest.raises(StreamClosed):
                await tap.blocking_read(10)

        tasks.start_soon(reader)
        await anyio.wait_all_tasks_blocked()
        tap.feed(None)


def test_a_permit_is_bounded_and_serves_one_write() -> None:
    drain = Drain(room=10**9)

    assert drain.check_write() == WRITE_BYTES
    drain.write(b"abc")
    with pytest.raises(Trapped, match="check-write"):
        drain.write(b"d")
    assert drain.taken == [b"abc"]


def test_a_write_above_the_permit_traps_and_writes_nothing() -> None:
    drain = Drain(room=3)
    drain.check_write()

    with pytest.raises(Trapped, match="permitted 3"):
        drain.write(b"abcd")

    assert drain.taken == []


def test_an_empty_write_needs_no_permit() -> None:
    Drain().write(b"")


def test_zeroes_are_written_within_the_permit_and_never_made_beyond_it() -> None:
    drain = Drain(room=4)
    drain.check_write()

    drain.write_zeroes(4)

    assert drain.taken == [bytes(4)]
    with pytest.raises(Trapped):
        drain.write_zeroes(2**64 - 1)


@pytest.mark.parametrize("failure", [StreamClosed(), StreamFailed("disk full")])
def test_a_broken_output_is_ready_and_says_so_when_asked(failure: Exception) -> None:
    drain = Drain()
    drain.fail(failure)

    assert drain.is_ready()
    with pytest.raises(type(failure)):
        drain.check_write()


async def test_a_blocking_write_goes_on_as_there_is_room_and_flushes_at_the_end() -> None:
    drain = Drain(room=2)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain.blocking_write_and_flush, b"abcde")
        await anyio.wait_all_tasks_blocked()
        first = (list(drain.taken), drain.flushes)
        drain.make_room(3)
        await anyio.wait_all_tasks_blocked()
        drain.make_room(1)

    assert first == ([b"ab"], 0)
    assert drain.taken == [b"ab", b"cde"]
    assert drain.flushes == 1


async def test_a_blocking_write_ends_with_the_error_of_the_stream() -> None:
    drain = Drain()

    async with anyio.create_task_group() as tasks:

        async def writer() -> None:
            with pytest.raises(StreamFailed):
                await drain.blocking_write_and_flush(b"abc")

        tasks.start_soon(writer)
        await anyio.wait_all_tasks_blocked()
        drain.fail(StreamFailed("gone"))


async def test_a_blocking_write_above_the_interfaces_limit_traps() -> None:
    drain = Drain(room=10**6)

    await drain.blocking_write_and_flush(bytes(BLOCKING_WRITE_BYTES))
    with pytest.raises(Trapped):
        await drain.blocking_write_and_flush(bytes(BLOCKING_WRITE_BYTES + 1))
    with pytest.raises(Trapped):
        await drain.blocking_write_zeroes_and_flush(2**64 - 1)

    assert drain.taken == [bytes(BLOCKING_WRITE_BYTES)]


def test_splice_moves_what_is_there_and_fits() -> None:
    drain = Drain(room=4)

    assert drain.splice(BytesInput(b"hello"), 100) == 4
    assert drain.splice(BytesInput(b"hello"), 100) == 0
    assert drain.taken == [b"hell"]


def test_splice_from_an_input_without_bytes_moves_none() -> None:
    assert Drain(room=4).splice(Tap(), 4) == 0


def test_splice_from_an_ended_input_says_closed() -> None:
    with pytest.raises(StreamClosed):
        Drain(room=4).splice(BytesInput(), 4)


async def test_a_blocking_splice_waits_for_room_and_then_for_bytes() -> None:
    drain, tap = Drain(), Tap()
    moved: list[int] = []

    async def splice() -> None:
        moved.append(await drain.blocking_splice(tap, 10))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(splice)
        await anyio.wait_all_tasks_blocked()
        drain.make_room(3)
        await anyio.wait_all_tasks_blocked()
        tap.feed(b"abcd")
        await anyio.wait_all_tasks_blocked()
        drain.make_room(1)

    assert moved == [3]
    assert drain.taken == [b"abc"]


def test_printing_hands_on_whole_lines_and_the_rest_when_the_call_ends() -> None:
    logged: list[bytes] = []
    output = LineOutput(logged.append)

    for text in (b"one\ntw", b"o", b"\nthree"):
        output.check_write()
        output.write(text)
    before = list(logged)
    output.flush()
    output.close()
    after_close = list(logged)
    output.end_line()
    output.end_line()

    assert after_close == before
    assert before == [b"one", b"two"]
    assert logged == [b"one", b"two", b"three"]


def test_printing_without_end_holds_no_more_than_a_line() -> None:
    sizes: list[int] = []
    output = LineOutput(lambda block: sizes.append(len(block)))

    for _ in range(100):
        output.write(bytes(output.check_write()))
    output.end_line()

    assert sum(sizes) == 100 * WRITE_BYTES
    assert max(sizes) == LINE_BYTES
