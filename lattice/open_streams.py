"""The byte streams that a process has open beside its calls: one table, one clock for all of them.

An end that has nothing to say tells its peer every few seconds that it lives, so that silence means loss: a
job may compute for an hour without a line of output. When a peer is known to be lost, or the own
connection is, its streams end at once instead of by their idle limit.

Error handling: what ends a stream is raised at its ends; nothing here raises for the sake of one stream.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import anyio
import structlog
from anyio.abc import TaskGroup

from lattice import streams, subjects
from lattice.bodies import Peer
from lattice.bus import Handler, Message, Subscription
from lattice.clock import now
from lattice.errors import Failed, Interrupted, LatticeError, TimedOut
from lattice.streams import BusReceiver, BusSender, ByteReceiver, DelegatingReceiver
from lattice.wire import StreamId

log = structlog.get_logger()

ALIVE_SHARE = 6
"""How often an end shows life within the idle limit; to a peer that is gone, the server answers at once."""

TOTAL_SECONDS = 24 * 3600.0
"""No stream beside a call lasts longer."""


class _Listening:
    """One subscription for all streams of an owner: to open one costs no way to the server and back."""

    # The mutable state is the subscription, once there was a stream, and who listens to what.

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._handlers: dict[str, Handler] = {}
        self._lock = anyio.Lock()
        self._subscription: Subscription | None = None

    async def listen(self, subject: str, handler: Handler) -> Subscription:
        if self._subscription is None:
            async with self._lock:
                await self._subscribe()
        self._handlers[subject] = handler
        return _Listener(self._handlers, subject)

    async def _subscribe(self) -> None:
        if self._subscription is None:
            peer = self._peer
            own = subjects.streams_of(peer.lattice, peer.owner)
            self._subscription = await peer.bus.subscribe(own, self._on_message)

    def _on_message(self, message: Message) -> None:
        handler = self._handlers.get(message.subject)
        if handler is not None:  # else its end has been closed
            handler(message)


class _Listener:
    """A share of that subscription."""

    def __init__(self, handlers: dict[str, Handler], subject: str) -> None:
        self._handlers = handlers
        self._subject = subject

    async def unsubscribe(self) -> None:
        self._handlers.pop(self._subject, None)


class OpenStreams:
    """The mutable state is the open ends: whose peer, and until when at most."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._listening = _Listening(peer)
        self._ends: dict[BusSender | BusReceiver, tuple[str | None, float]] = {}
        peer.bus.on_connection_change(self._on_connection_change)

    def __repr__(self) -> str:
        return f"<OpenStreams {len(self._ends)} ends>"

    def __len__(self) -> int:
        return len(self._ends)

    async def sender(self, node: str | None) -> BusSender:
        """A new stream to that node or client, listening. Give it back with `close`."""
        peer, stream = self.peer, streams.new_stream_id(self.peer.owner)
        listen = self._listening.listen
        end = await streams.open_sender(peer.bus, peer.lattice, stream, peer.settings, listen=listen)
        self._ends[end] = (node, now() + TOTAL_SECONDS)
        return end

    async def receiver(self, stream: StreamId) -> BusReceiver:
        """The receiving end of a stream that its owner announced. Give it back with `close`."""
        peer, listen = self.peer, self._listening.listen
        end = await streams.open_receiver(
            peer.bus, peer.lattice, peer.owner, stream, peer.settings, listen=listen
        )
        self._ends[end] = (stream.owner, now() + TOTAL_SECONDS)
        return end

    async def close(self, end: BusSender | BusReceiver) -> None:
        """Close an end and forget it; may be called again."""
        if self._ends.pop(end, None) is not None:
            await end.aclose()

    def node_lost(self, node: str) -> None:
        """End all streams from and to that node with `interrupted`."""
        error = Interrupted(f"node {node[:8].lower()} was lost while a byte stream was open")
        for end, (of, _) in list(self._ends.items()):
            if of == node:
                end.abort(error)

    async def run(self) -> None:
        """Show the peers that this process lives, and end streams that are too old."""
        while True:
            await anyio.sleep(self.peer.settings.idle_seconds / ALIVE_SHARE)
            for end, (_, until) in list(self._ends.items()):
                if now() > until:
                    end.abort(TimedOut(f"a byte stream was open for {TOTAL_SECONDS / 3600:g} hours"))
                with contextlib.suppress(LatticeError):  # its own users see it
                    await end.keep_alive()

    def _on_connection_change(self, is_connected: bool) -> None:
        if not is_connected:
            for end in list(self._ends):
                end.abort(Interrupted("the connection was lost while a byte stream was open"))


class Upload:
    """A body on its way to the callee, pumped by a task of its own; given to whoever awaits the result."""

    def __init__(self, opened: OpenStreams, source: ByteReceiver, sender: BusSender) -> None:
        self._opened = opened
        self._source = source
        self._sender = sender
        self._scope = anyio.CancelScope()
        self._is_over = anyio.Event()

    @property
    def stream(self) -> StreamId:
        """What to tell the callee."""
        return self._sender.stream

    def start(self, tasks: TaskGroup) -> None:
        """Send from now on."""
        tasks.start_soon(self._run)

    def stop_soon(self) -> None:
        """Send no more."""
        self._scope.cancel()

    async def stop(self) -> None:
        """Send no more; returns when the source is not read any longer."""
        self._scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._is_over.wait()

    async def _run(self) -> None:
        try:
            with self._scope:
                await pump(self._source, self._sender)
        finally:
            with anyio.CancelScope(shield=True):
                await self._opened.close(self._sender)
                await self._source.aclose()
            self._is_over.set()


class ReplyBody(DelegatingReceiver):
    """The bytes beside a result, as the caller reads them; at their end all of the exchange is over."""

    def __init__(self, opened: OpenStreams, receiver: BusReceiver, upload: Upload | None) -> None:
        super().__init__(receiver)
        self._opened = opened
        self._receiver = receiver
        self._upload = upload

    async def receive(self) -> bytes:
        try:
            return await self._receiver.receive()
        except (anyio.EndOfStream, LatticeError):
            await self.aclose()
            raise

    async def aclose(self) -> None:
        if self._upload is not None:
            self._upload.stop_soon()
        await self._opened.close(self._receiver)


async def pump(source: ByteReceiver, sender: BusSender) -> None:
    """Send all that comes from `source`, and its trailers; returns when either end is over.

    What breaks the source is told to the peer; a peer that wants no more ends it at once. Neither is closed.
    """
    with anyio.CancelScope() as scope:
        sender.on_break(scope.cancel)
        try:
            while True:
                await sender.wait_sendable()  # nothing is taken from the source that the peer may not want
                await sender.send(await source.receive())
        except anyio.EndOfStream:
            await _end(sender, source.trailers)
        except LatticeError as error:
            await _fail(sender, error)
        except Exception as error:  # a source may be anybody's; its peer must learn that it broke
            log.warning("stream.source-failed", reason=repr(error))
            await _fail(sender, Failed(f"the source of a byte stream broke: {error}"))


async def _end(sender: BusSender, trailers: Mapping[str, str]) -> None:
    try:
        await sender.end(trailers)
    except LatticeError as error:  # trailers that can't be sent, or a peer that is gone
        await _fail(sender, error)


async def _fail(sender: BusSender, error: LatticeError) -> None:
    with contextlib.suppress(LatticeError):  # it can't be told, or it was the peer's error
        await sender.fail(error)
