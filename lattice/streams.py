"""Byte streams over the bus or within a process, and bodies that are too large for one message.

Both kinds have the same two ends: `ByteSender` and `ByteReceiver`. Each end over the bus listens on a
subject of its own: `...stream.{owner}.{stream}.credit` for the sending end, which is named in the headers of
the call, and `...data` for the receiving one, which it gives as the reply subject of its credit. Nothing is
sent before the first credit, so no frame can come before somebody listens.

The state machines are in `lattice.frames`; this module waits, subscribes and publishes. Handlers only feed
the machine and wake whoever waits; frames that answer the peer are published by the task that uses the end.
"""

from __future__ import annotations

import contextlib
import math
import secrets
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import anyio

from lattice import subjects
from lattice.bus import Bus, Handler, Message, Subscription
from lattice.errors import Interrupted, Invalid, LatticeError
from lattice.frames import (
    ALIVE_FRAME,
    FIRST_CREDIT_BYTES,
    MAX_CHUNK_BYTES,
    Broken,
    Ended,
    Event,
    Granted,
    Received,
    ReceivingStream,
    SendingStream,
)
from lattice.replies import NO_RESPONDERS
from lattice.wire import StreamId

IDLE_SECONDS = 30.0
"""How long an end waits for its peer before it takes it for lost."""

CLOSE_SECONDS = 2.0
"""How long closing may take to tell the peer; it learns by its idle limit otherwise."""

FRAME_OVERHEAD_BYTES = 256
"""What a frame has around its data, generously; servers with tiny payload limits get smaller frames."""

SMALL_CHUNK_BYTES = 4096
"""Chunks are joined up to this size while they wait, so that a stream of single bytes costs little memory."""


class ByteSender(Protocol):
    """The end of a byte stream that sends. Leaving its context without `end` tells the peer `interrupted`."""

    async def send(self, data: bytes) -> None:
        """Send; waits while the peer has not taken enough. Raises what ended the stream.

        A cancelled `send` over the bus may have lost a frame: the stream is broken then.
        """

    async def end(self, trailers: Mapping[str, str] | None = None) -> None:
        """Say that these were all bytes."""

    async def fail(self, error: LatticeError) -> None:
        """Give up and tell the peer why; does nothing when the stream is over."""

    def abort(self, error: LatticeError) -> None:
        """Treat the peer as lost: whoever waits here gets `error` at once."""

    async def aclose(self) -> None:
        """Give up if not ended, and release everything."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ByteReceiver(Protocol):
    """The end of a byte stream that receives: iterate over it. Leaving it as a context early cancels."""

    @property
    def trailers(self) -> Mapping[str, str]:
        """What the sending end added; known once all bytes were received."""

    async def receive(self) -> bytes:
        """The next bytes, never none. Raises `anyio.EndOfStream` after the last, or what broke the stream."""

    def abort(self, error: LatticeError) -> None:
        """Treat the peer as lost: what came is still received, then `error` is raised."""

    async def aclose(self) -> None:
        """Cancel if not ended, and release everything."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """Limits of one stream."""

    window_bytes: int = FIRST_CREDIT_BYTES
    idle_seconds: float = IDLE_SECONDS


DEFAULT_SETTINGS = StreamSettings()

PIPE_SETTINGS = StreamSettings(idle_seconds=math.inf)
"""Within a process no end is lost unnoticed: whoever owns an end closes it, or has a budget."""


def new_stream_id(owner: str) -> StreamId:
    """A stream whose sending end is `owner`, with an id that nobody can guess."""
    return StreamId(owner=owner, stream=secrets.token_hex(16))


Listen = Callable[[str, Handler], Awaitable[Subscription]]
"""Hands what comes on a subject to a handler, from when it returns: `Bus.subscribe`, or a share of one."""


async def open_sender(
    bus: Bus,
    lattice: str,
    stream: StreamId,
    settings: StreamSettings = DEFAULT_SETTINGS,
    *,
    listen: Listen | None = None,
) -> BusSender:
    """The sending end of a stream, listening: its id may be told to the peer now. Close it."""
    sender = BusSender(bus, lattice, stream, settings)
    await sender.listen(listen or bus.subscribe)
    return sender


async def open_receiver(
    bus: Bus,
    lattice: str,
    owner: str,
    stream: StreamId,
    settings: StreamSettings = DEFAULT_SETTINGS,
    *,
    listen: Listen | None = None,
) -> BusReceiver:
    """The receiving end, at `owner`, of a stream that a peer announced; gives the first credit. Close it."""
    receiver = BusReceiver(bus, lattice, owner, stream, settings)
    try:
        await receiver.listen(listen or bus.subscribe)
    except BaseException:
        await receiver.aclose()
        raise
    return receiver


def pair(settings: StreamSettings = PIPE_SETTINGS) -> tuple[ByteSender, ByteReceiver]:
    """Both ends of a stream within this process; `send` waits while a window of bytes has not been taken."""
    pipe = _Pipe(settings)
    return PipeSender(pipe), PipeReceiver(pipe)


async def send_body(sender: ByteSender, body: bytes) -> None:
    """Send all of `body` and end the stream."""
    await sender.send(body)
    await sender.end()


async def receive_body(receiver: ByteReceiver, *, max_bytes: int) -> bytes:
    """All bytes of a stream. Raises `Invalid` as soon as there are more than `max_bytes`."""
    body = bytearray()
    async for chunk in receiver:
        body += chunk
        if len(body) > max_bytes:
            raise Invalid(f"the body has more than {max_bytes} bytes, which is the limit")
    return bytes(body)


class _Wakeup:
    """Wakes whoever waits for the peer; waiting longer than the idle limit means that the peer is lost."""

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._event = anyio.Event()

    def notify(self) -> None:
        self._event.set()
        self._event = anyio.Event()

    async def wait(self) -> None:
        with anyio.move_on_after(self._idle_seconds) as scope:
            await self._event.wait()
        if scope.cancelled_caught:
            raise Interrupted(f"a byte stream stood still for {self._idle_seconds:g} s")


class _End(ABC):
    """What all four ends share: they are contexts that close."""

    @abstractmethod
    async def aclose(self) -> None:
        """Free the end; an unfinished stream is aborted."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Receiving(_End):
    """Base of receiving ends: with `receive` and `aclose` they are iterators, and contexts that close."""

    @abstractmethod
    async def receive(self) -> bytes:
        """The next bytes; raises `anyio.EndOfStream` after the last."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None


class BusSender(_End):
    """The sending end over the bus; made by `open_sender`. One task sends at a time."""

    def __init__(self, bus: Bus, lattice: str, stream: StreamId, settings: StreamSettings) -> None:
        self._bus = bus
        self._lattice = lattice
        self._stream = stream
        self._chunk_bytes = max(1, min(MAX_CHUNK_BYTES, bus.max_payload - FRAME_OVERHEAD_BYTES))
        self._wakeup = _Wakeup(settings.idle_seconds)
        # The mutable state: the machine, where the peer listens once it said so, and what broke the stream.
        self._machine = SendingStream()
        self._data_subject: str | None = None
        self._error: LatticeError | None = None
        self._reply: bytes | None = None
        self._subscription: Subscription | None = None
        self._on_break: Callable[[], object] | None = None

    def __repr__(self) -> str:
        return f"<BusSender {self._stream.text} {self._machine!r}>"

    @property
    def stream(self) -> StreamId:
        """What to tell the peer."""
        return self._stream

    async def listen(self, listen: Listen) -> None:
        """Listen to the peer's credit."""
        subject = subjects.stream_credit(self._lattice, self._stream.owner, self._stream.stream)
        self._subscription = await listen(subject, self._on_message)

    async def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            size = min(len(rest), await self.wait_sendable(), self._chunk_bytes)
            await self._publish(self._machine.data(bytes(rest[:size])))
            rest = rest[size:]

    async def end(self, trailers: Mapping[str, str] | None = None) -> None:
        await self.wait_sendable(0)
        await self._publish(self._machine.end(trailers))

    async def fail(self, error: LatticeError) -> None:
        frame = self._machine.fail(error) or self._reply
        self._reply = None
        self.abort(error)
        if frame is not None and self._data_subject is not None:
            await self._publish(frame)

    def abort(self, error: LatticeError) -> None:
        self._error = self._error or error
        self._machine.fail(error)
        self._wakeup.notify()
        self._tell_break()

    def on_break(self, action: Callable[[], object]) -> None:
        """Have `action` called once the peer wants no more or is lost, at once if that is so already."""
        self._on_break = action
        if self._error is not None:
            self._tell_break()

    async def keep_alive(self) -> None:
        """Tell the peer that there is nothing to send just now, but that this end lives."""
        if self._machine.is_open and self._data_subject is not None:
            # With a reply subject, so that the server says if the peer is gone.
            own = subjects.stream_credit(self._lattice, self._stream.owner, self._stream.stream)
            await self._bus.publish(self._data_subject, ALIVE_FRAME, reply=own)

    async def aclose(self) -> None:
        self._on_break = None
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            try:
                await self.fail(Interrupted("the sending end gave up"))
            except LatticeError:
                pass  # the peer can't be told; its idle limit ends the stream there
            finally:
                if self._subscription is not None:
                    await self._subscription.unsubscribe()

    async def wait_sendable(self, at_least: int = 1) -> int:
        """Wait until the peer listens and takes so many bytes; raises what ended the stream."""
        while self._error is None and (self._data_subject is None or self._machine.sendable < at_least):
            await self._wakeup.wait()
        if self._error is not None:
            raise self._error
        return self._machine.sendable

    async def _publish(self, frame: bytes) -> None:
        assert self._data_subject is not None
        try:
            await self._bus.publish(self._data_subject, frame)
        except LatticeError as error:
            self.abort(Interrupted(f"a byte stream was cut off: {error.message}"))
            raise
        except BaseException:
            self.abort(Interrupted("sending to a byte stream was cancelled"))
            raise

    def _on_message(self, message: Message) -> None:
        if _says_nobody_listens(message):
            self.abort(Interrupted("the receiving end of a byte stream is gone"))
            return
        event = self._machine.receive(message.data)
        if isinstance(event, Granted):
            self._data_subject = self._data_subject or self._peer(message.reply)
        if isinstance(event, Broken):
            self._error = self._error or event.error
            self._reply = event.reply
            self._tell_break()
        self._wakeup.notify()  # a credit that repeats the last one says that the peer lives

    def _tell_break(self) -> None:
        action, self._on_break = self._on_break, None
        if action is not None:
            action()

    def _peer(self, reply: str | None) -> str | None:
        # Only a subject of this very stream is taken: the peer must not make us publish anywhere else.
        try:
            parsed = subjects.parse(reply or "")
        except Invalid:
            return None
        match parsed:
            case subjects.Stream(lattice=self._lattice, stream=self._stream.stream, part="data"):
                return reply
        return None


class BusReceiver(Receiving):
    """The receiving end over the bus; made by `open_receiver`. One task receives at a time."""

    def __init__(
        self, bus: Bus, lattice: str, owner: str, stream: StreamId, settings: StreamSettings
    ) -> None:
        self._bus = bus
        self._stream = stream
        self._data_subject = subjects.stream_data(lattice, owner, stream.stream)
        self._credit_subject = subjects.stream_credit(lattice, stream.owner, stream.stream)
        self._wakeup = _Wakeup(settings.idle_seconds)
        # The mutable state: the machine, what came and was not taken (bounded by the credit), and the end.
        self._machine = ReceivingStream(settings.window_bytes)
        self._chunks: deque[bytes] = deque()
        self._trailers: Mapping[str, str] | None = None
        self._error: LatticeError | None = None
        self._reply: bytes | None = None
        self._subscription: Subscription | None = None

    def __repr__(self) -> str:
        return f"<BusReceiver {self._stream.text} {self._machine!r}>"

    @property
    def trailers(self) -> Mapping[str, str]:
        return self._trailers or {}

    async def listen(self, listen: Listen) -> None:
        """Listen to the data and give the first credit."""
        self._subscription = await listen(self._data_subject, self._on_message)
        await self._give_credit()

    async def receive(self) -> bytes:
        while True:
            if self._machine.is_credit_due:
                await self._give_credit()
            if self._chunks:
                chunk = _take(self._chunks)
                self._machine.consume(len(chunk))
                return chunk
            if self._error is not None:
                with contextlib.suppress(LatticeError):  # what broke the stream says more
                    await self._tell()
                raise self._error
            if self._trailers is not None:
                raise anyio.EndOfStream
            await self._wakeup.wait()

    def abort(self, error: LatticeError) -> None:
        if self._trailers is None:
            self._on_event(Broken(error, self._machine.cancel(error)))

    async def keep_alive(self) -> None:
        """Tell the peer that this end lives, although it takes nothing just now."""
        if self._machine.is_open:
            await self._give_credit()

    async def aclose(self) -> None:
        self._reply = self._reply or self._machine.cancel()
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            try:
                await self._tell()
            except LatticeError:
                pass  # the peer can't be told; its idle limit ends the stream there
            finally:
                if self._subscription is not None:
                    await self._subscription.unsubscribe()

    async def _tell(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            await self._bus.publish(self._credit_subject, reply, reply=self._data_subject)

    async def _give_credit(self) -> None:
        frame = self._machine.credit()
        try:
            await self._bus.publish(self._credit_subject, frame, reply=self._data_subject)
        except LatticeError as error:
            raise Interrupted(f"a byte stream was cut off: {error.message}") from error
        self._machine.credit_sent()

    def _on_message(self, message: Message) -> None:
        if _says_nobody_listens(message):
            self.abort(Interrupted("the sending end of a byte stream is gone"))
            return
        self._on_event(self._machine.receive(message.data))

    def _on_event(self, event: Event | None) -> None:
        match event:
            case Received(data):
                _append(self._chunks, data)
            case Ended(trailers):
                self._trailers = trailers
            case Broken(error, reply):
                self._error = self._error or error
                self._reply = self._reply or reply
        self._wakeup.notify()


class _Pipe:
    """What the two ends of a stream within a process share."""

    def __init__(self, settings: StreamSettings) -> None:
        self.window_bytes = settings.window_bytes
        self.chunks: deque[bytes] = deque()
        self.waiting_bytes = 0
        self.trailers: Mapping[str, str] | None = None
        self.error: LatticeError | None = None
        self.taken = _Wakeup(settings.idle_seconds)
        self.given = _Wakeup(settings.idle_seconds)

    def break_off(self, error: LatticeError) -> None:
        if self.trailers is None:
            self.error = self.error or error
        self.taken.notify()
        self.given.notify()


class PipeSender(_End):
    """The sending end within a process; made by `pair`."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe

    async def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            room = await self._room()
            _append(self._pipe.chunks, bytes(rest[:room]))
            self._pipe.waiting_bytes += min(room, len(rest))
            self._pipe.given.notify()
            rest = rest[room:]

    async def end(self, trailers: Mapping[str, str] | None = None) -> None:
        if self._pipe.error is not None:
            raise self._pipe.error
        self._pipe.trailers = dict(trailers or {})
        self._pipe.given.notify()

    async def fail(self, error: LatticeError) -> None:
        self._pipe.break_off(error)

    def abort(self, error: LatticeError) -> None:
        self._pipe.break_off(error)

    async def aclose(self) -> None:
        self._pipe.break_off(Interrupted("the sending end gave up"))

    async def _room(self) -> int:
        pipe = self._pipe
        while pipe.error is None and pipe.waiting_bytes >= pipe.window_bytes:
            await pipe.taken.wait()
        if pipe.error is not None:
            raise pipe.error
        return min(pipe.window_bytes - pipe.waiting_bytes, MAX_CHUNK_BYTES)


class PipeReceiver(Receiving):
    """The receiving end within a process; made by `pair`."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe

    @property
    def trailers(self) -> Mapping[str, str]:
        return self._pipe.trailers or {}

    async def receive(self) -> bytes:
        pipe = self._pipe
        while not pipe.chunks:
            if pipe.error is not None:
                raise pipe.error
            if pipe.trailers is not None:
                raise anyio.EndOfStream
            await pipe.given.wait()
        chunk = _take(pipe.chunks)
        pipe.waiting_bytes -= len(chunk)
        pipe.taken.notify()
        return chunk

    def abort(self, error: LatticeError) -> None:
        self._pipe.break_off(error)

    async def aclose(self) -> None:
        self._pipe.break_off(Interrupted("the receiving end wants no more"))


class DelegatingReceiver(Receiving):
    """A receiving end around another one, for those that do something more when they are closed."""

    def __init__(self, inner: ByteReceiver) -> None:
        self._inner = inner

    @property
    def trailers(self) -> Mapping[str, str]:
        return self._inner.trailers

    async def receive(self) -> bytes:
        return await self._inner.receive()

    def abort(self, error: LatticeError) -> None:
        self._inner.abort(error)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _says_nobody_listens(message: Message) -> bool:
    """Whether the server answers so to what was published to a peer that is gone."""
    return not message.data and message.headers.get("Status") == NO_RESPONDERS


def _take(chunks: deque[bytes]) -> bytes:
    """The next chunk, with those after it as far as they make one frame: small ones cost as much as large."""
    size, count = len(chunks[0]), 1
    while count < len(chunks) and size + len(chunks[count]) <= MAX_CHUNK_BYTES:
        size += len(chunks[count])
        count += 1
    return chunks.popleft() if count == 1 else b"".join(chunks.popleft() for _ in range(count))


def _append(chunks: deque[bytes], data: bytes) -> None:
    if chunks and len(chunks[-1]) + len(data) <= SMALL_CHUNK_BYTES:
        chunks[-1] += data
    else:
        chunks.append(data)
