"""The bus within one process, for tests and simulations: deterministic, and as strict as the real one.

Several `MemoryBus`es share a `MemoryBroker`, which stands for the server. Messages are handed over by the
event loop in the order in which they were sent; of a queue group the members take turns. The broker can
be made to lose its data and to refuse its stores, a bus to lose its connection.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog
from anyio import AsyncContextManagerMixin

from lattice.bus import (
    NO_HEADERS,
    BusStatistics,
    ConnectionHandler,
    Disconnect,
    DisconnectHandler,
    Handler,
    KeyValue,
    Message,
    ObjectStore,
    OwnedQueue,
    QueueSettings,
    Subscription,
    WorkQueue,
    check_subject,
)
from lattice.errors import Interrupted, Invalid, LatticeError, NotFound, TimedOut, Unreachable
from lattice.memory_queue import MemoryStream, MemoryWorkQueue
from lattice.memory_store import Bucket, MemoryKeyValue, MemoryObjectStore, Objects
from lattice.patterns import matches
from lattice.tasks import Expected

MAX_PAYLOAD = 1024 * 1024
SERVER_ID = "MEMORY"

log = structlog.get_logger()


class MemoryBroker:
    """What the buses of one lattice have in common."""

    # The mutable state of a broker is who subscribes, the buckets, and who watches for disconnects.

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, has_system: bool = True) -> None:
        self.clock = clock
        self.has_system = has_system
        self.is_store_available = True
        self.objects: dict[str, Objects] = {}
        self.streams: dict[str, MemoryStream] = {}
        self.disconnect_handlers: list[tuple[MemoryBus, DisconnectHandler]] = []
        self.next_client = itertools.count(1).__next__
        self.next_inbox = itertools.count(1).__next__
        self._buckets: dict[str, Bucket] = {}
        self._subscriptions: list[MemorySubscription] = []
        self._turns: dict[tuple[str, str], int] = {}

    def bucket(self, name: str, *, ttl_seconds: float | None = None) -> Bucket:
        """The bucket, made if it is missing."""
        if not self.is_store_available:
            raise Unreachable("the store does not answer")
        if name not in self._buckets:
            self._buckets[name] = Bucket(name, ttl_seconds=ttl_seconds, clock=self.clock)
        return self._buckets[name]

    def lose_data(self) -> None:
        """Forget all buckets and objects, as a server whose disk was wiped; watches are made anew."""
        lost, self._buckets = self._buckets, {}
        self.objects.clear()
        self.streams.clear()
        for bucket in lost.values():
            bucket.lose()

    def add(self, subscription: MemorySubscription) -> None:
        self._subscriptions.append(subscription)

    def remove(self, subscription: MemorySubscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def deliver(self, message: Message) -> bool:
        """Hand over to all who subscribe and to one of each queue group; False when there is nobody."""
        groups: dict[tuple[str, str], list[MemorySubscription]] = {}
        receivers: list[MemorySubscription] = []
        for subscription in self._subscriptions:
            if not subscription.takes(message.subject):
                continue
            if subscription.queue is None:
                receivers.append(subscription)
            else:
                groups.setdefault((subscription.subject, subscription.queue), []).append(subscription)
        for group, members in groups.items():
            turn = self._turns.get(group, 0)
            self._turns[group] = turn + 1
            receivers.append(members[turn % len(members)])
        for subscription in receivers:
            asyncio.get_running_loop().call_soon(subscription.receive, message)
        stream = self.stream_of(message.subject)
        if stream is not None:
            stream.add(message)
        return bool(receivers) or stream is not None

    def stream_of(self, subject: str) -> MemoryStream | None:
        """The stream that stores messages of this subject."""
        tokens = subject.split(".")
        return next((s for s in self.streams.values() if matches(s.subject.split("."), tokens)), None)

    def announce_disconnect(self, disconnect: Disconnect) -> None:
        """Tell those who watch and are connected, like a server's advisory."""
        for bus, handler in list(self.disconnect_handlers):
            if bus.is_connected:
                asyncio.get_running_loop().call_soon(handler, disconnect)


@dataclass(eq=False, slots=True)
class MemorySubscription:
    """One subscription; it is silent while its bus is disconnected."""

    bus: MemoryBus
    subject: str
    queue: str | None
    handler: Handler
    tokens: list[str] = field(init=False)
    is_active: bool = True

    def __post_init__(self) -> None:
        self.tokens = self.subject.split(".")

    def takes(self, subject: str) -> bool:
        """Whether messages on that subject are for it now."""
        return self.bus.is_connected and matches(self.tokens, subject.split("."))

    def receive(self, message: Message) -> None:
        """Call the handler; what it raises is counted."""
        if not self.is_active or not self.bus.is_connected:
            return
        self.bus.count_received()
        try:
            self.handler(message)
        except Exception:
            self.bus.count_handler_error()
            log.exception("bus.handler_failed", subject=message.subject)

    async def unsubscribe(self) -> None:
        self.is_active = False
        self.bus.broker.remove(self)


class MemoryBus(AsyncContextManagerMixin):
    """A `Bus` on a `MemoryBroker`; usable at once, `async with` closes it at the end."""

    # The mutable state of a bus is whether it is connected, its pending requests and its counts.

    def __init__(self, broker: MemoryBroker, *, max_payload: int = MAX_PAYLOAD) -> None:
        self.broker = broker
        self._max_payload = max_payload
        self._client_id = broker.next_client()
        self._is_connected = True
        self._is_closed = False
        self._pending: dict[asyncio.Future[Message], str] = {}
        self._connection_handlers: list[ConnectionHandler] = []
        self._reconnected = asyncio.Event()
        self._sent = self._received = self._reconnects = self._handler_errors = 0

    def __repr__(self) -> str:
        state = "connected" if self._is_connected else "not connected"
        return f"<MemoryBus {state} as {self._client_id} | {len(self._pending)} pending>"

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[MemoryBus]:
        try:
            yield self
        finally:
            await self.aclose()

    @property
    def max_payload(self) -> int:
        return self._max_payload

    @property
    def is_connected(self) -> bool:
        return self._is_connected

    @property
    def server_id(self) -> str:
        return SERVER_ID

    @property
    def client_id(self) -> int:
        return self._client_id

    def statistics(self) -> BusStatistics:
        return BusStatistics(
            sent=self._sent,
            received=self._received,
            pending_requests=len(self._pending),
            reconnects=self._reconnects,
            handler_errors=self._handler_errors,
        )

    def count_received(self) -> None:
        self._received += 1

    def count_handler_error(self) -> None:
        self._handler_errors += 1

    # Faults

    def disconnect(self) -> None:
        """Lose the connection: pending requests end, nothing comes or goes until `reconnect`."""
        if not self._is_connected:
            return
        self._is_connected = False
        self._reconnected.clear()
        for future in self._pending:
            if not future.done():
                future.set_exception(Interrupted("the connection was lost"))
        self.broker.announce_disconnect(Disconnect(SERVER_ID, self._client_id))
        self._notify(False)

    def reconnect(self) -> None:
        """Be connected again, as another client; watches are made anew."""
        if self._is_connected or self._is_closed:
            return
        self._is_connected = True
        self._client_id = self.broker.next_client()
        self._reconnects += 1
        self._reconnected.set()
        self._notify(True)

    def _notify(self, is_connected: bool) -> None:
        for handler in list(self._connection_handlers):
            handler(is_connected)

    # Messages

    def new_inbox(self) -> str:
        return f"_INBOX.{self._client_id}.{self.broker.next_inbox()}"

    async def publish(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        reply: str | None = None,
    ) -> None:
        self.publish_nowait(subject, data, headers=headers, reply=reply)

    def publish_nowait(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        reply: str | None = None,
    ) -> None:
        """As `publish`, for handlers."""
        self._send(subject, data, headers, reply)

    def _send(self, subject: str, data: bytes, headers: Mapping[str, str] | None, reply: str | None) -> bool:
        check_subject(subject)
        self._require_connection()
        if len(data) > self._max_payload:
            raise Invalid(f"a message of {len(data)} bytes is over the limit of {self._max_payload}")
        self._sent += 1
        copied = dict(headers) if headers else NO_HEADERS
        return self.broker.deliver(Message(subject, bytes(data), copied, reply))

    def _require_connection(self) -> None:
        if not self._is_connected:
            raise Unreachable("not connected")

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float,
    ) -> Message:
        future = Expected[Message]()
        inbox = self.new_inbox()

        def receive(message: Message) -> None:
            if not future.done():
                future.set_result(message)

        subscription = MemorySubscription(self, inbox, None, receive)
        self.broker.add(subscription)
        self._pending[future] = subject
        late = TimedOut(f"no answer from {subject} within {timeout_seconds:g} s")
        timer = asyncio.get_running_loop().call_later(timeout_seconds, _fail, future, late)
        try:
            if not self._send(subject, data, headers, inbox):
                raise Unreachable(f"nobody answers to {subject}")
            return await future
        finally:
            timer.cancel()
            del self._pending[future]
            self.broker.remove(subscription)

    def interrupt(self, prefix: str, reason: str) -> None:
        for future, subject in self._pending.items():
            if subject.startswith(prefix) and not future.done():
                future.set_exception(Interrupted(reason))

    async def subscribe(self, subject: str, handler: Handler, *, queue: str | None = None) -> Subscription:
        check_subject(subject)
        await self._wait_until_connected()
        subscription = MemorySubscription(self, subject, queue, handler)
        self.broker.add(subscription)
        return subscription

    async def _wait_until_connected(self) -> None:
        while not self._is_connected:
            if self._is_closed:
                raise Unreachable("the bus is closed")
            await self._reconnected.wait()

    async def flush(self) -> None:
        self._require_connection()
        await asyncio.sleep(0)

    # The connection, stores

    def on_connection_change(self, handler: ConnectionHandler) -> None:
        self._connection_handlers.append(handler)

    async def key_value(self, bucket: str, *, history: int = 1, ttl_seconds: float | None = None) -> KeyValue:
        self._require_connection()
        opened = MemoryKeyValue(bucket, lambda: self._open(bucket, ttl_seconds=ttl_seconds), self)
        self._open(bucket, ttl_seconds=ttl_seconds)
        return opened

    def _open(self, bucket: str, *, ttl_seconds: float | None) -> Bucket:
        self._require_connection()
        return self.broker.bucket(bucket, ttl_seconds=ttl_seconds)

    async def object_store(self, bucket: str, *, make: bool = True) -> ObjectStore:
        if make:
            self._objects(bucket, make=True)
        return MemoryObjectStore(bucket, lambda: self._objects(bucket, make=make))

    async def object_stores(self, prefix: str) -> list[str]:
        self._require_store()
        return [bucket for bucket in self.broker.objects if bucket.startswith(prefix)]

    async def delete_object_store(self, bucket: str) -> None:
        self._objects(bucket, make=False)
        del self.broker.objects[bucket]

    def _objects(self, bucket: str, *, make: bool) -> Objects:
        self._require_store()
        if bucket not in self.broker.objects:
            if not make:
                raise NotFound(f"there is no object store {bucket!r}")
            self.broker.objects[bucket] = Objects()
        return self.broker.objects[bucket]

    def _require_store(self) -> None:
        self._require_connection()
        if not self.broker.is_store_available:
            raise Unreachable("the store does not answer")

    async def work_queue(self, settings: QueueSettings) -> WorkQueue:
        def open_stream() -> MemoryStream:
            self._require_store()
            streams = self.broker.streams
            if settings.stream not in streams:
                streams[settings.stream] = MemoryStream(settings.subject)
            return streams[settings.stream]

        queue = MemoryWorkQueue(self, settings, open_stream)
        queue.open()
        return queue

    async def owned_queues(self, owner: str) -> list[OwnedQueue]:
        self._require_store()
        return [
            OwnedQueue(stream=stream, name=queue.settings.name, is_retired=queue.idle_seconds is not None)
            for stream, item in self.broker.streams.items()
            for queue in item.queues()
            if queue.settings.owner == owner
        ]

    async def retire_queue(self, queue: OwnedQueue, *, idle_seconds: float) -> None:
        self._require_store()
        if (stream := self.broker.streams.get(queue.stream)) is not None:
            stream.retire(queue.name, idle_seconds)

    async def make_stream(self, name: str, subject: str) -> None:
        self._require_store()
        if self.broker.stream_of(subject) is None:
            self.broker.streams.setdefault(name, MemoryStream(subject))

    async def publish_stored(
        self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None, timeout_seconds: float
    ) -> int:
        self._require_store()
        check_subject(subject)
        stream = self.broker.stream_of(subject)
        if stream is None:
            raise NotFound(f"no stream stores {subject!r}")
        self._send(subject, data, headers, None)
        return stream.last

    async def watch_disconnects(self, handler: DisconnectHandler) -> bool:
        if self.broker.has_system:
            self.broker.disconnect_handlers.append((self, handler))
        return self.broker.has_system

    async def aclose(self) -> None:
        if self._is_closed:
            return
        await asyncio.sleep(0)
        self._is_closed = True
        self._connection_handlers.clear()
        self.disconnect()
        self._reconnected.set()


def _fail(future: Expected[Message], error: LatticeError) -> None:
    if not future.done():
        future.set_exception(error)
