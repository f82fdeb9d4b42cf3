"""A bus that misbehaves on purpose, the same way for the same seed: for tests of what runs on top.

It wraps any other bus and spoils what comes in: messages are dropped, doubled, delayed (and thereby
reordered), store operations fail before or after they were done, and the connection can be cut and restored.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import anyio

from lattice.bus import (
    Bus,
    BusStatistics,
    ConnectionHandler,
    Disconnect,
    DisconnectHandler,
    Entry,
    Handler,
    KeyValue,
    Message,
    ObjectInfo,
    ObjectPage,
    ObjectStore,
    OwnedQueue,
    QueueSettings,
    Subscription,
    WatchHandler,
    WorkQueue,
)
from lattice.errors import Interrupted, LatticeError, TimedOut, Unreachable
from lattice.streams import ByteReceiver
from lattice.tasks import own_task

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often what goes wrong; each is a probability, but for the delay's length in seconds."""

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    longest_delay_seconds: float = 0.05
    store_unreachable: float = 0.0
    """Store operations that fail before anything was done."""
    store_timeout: float = 0.0
    """Store operations that are done, but whose answer is lost."""


class FaultyBus:
    """A `Bus` around another one; `disconnect` and `reconnect` cut it off and restore it."""

    # The mutable state is whether it is cut off, the requests under way and the watches to be made anew.

    def __init__(self, bus: Bus, faults: Faults, *, seed: int) -> None:
        self._bus = bus
        self._faults = faults
        self._random = random.Random(seed)
        self._is_cut = False
        self._restored = anyio.Event()
        self._requests: set[anyio.CancelScope] = set()
        self._connection_handlers: list[ConnectionHandler] = []
        self._watches: list[_FaultyWatch] = []
        self.statistics_of_faults: dict[str, int] = {}
        bus.on_connection_change(self._notify)

    def __repr__(self) -> str:
        return f"<FaultyBus {'cut off from ' if self._is_cut else ''}{self._bus!r}>"

    @property
    def max_payload(self) -> int:
        return self._bus.max_payload

    @property
    def is_connected(self) -> bool:
        return self._bus.is_connected and not self._is_cut

    @property
    def server_id(self) -> str:
        return self._bus.server_id

    @property
    def client_id(self) -> int:
        return self._bus.client_id

    def statistics(self) -> BusStatistics:
        return self._bus.statistics()

    # Faults

    def disconnect(self) -> None:
        """Cut it off: requests under way end with `Interrupted`, nothing comes or goes."""
        if self._is_cut:
            return
        self._is_cut = True
        for request in list(self._requests):
            request.cancel()
        self._notify(False)

    async def reconnect(self) -> None:
        """Restore it; watches are made anew."""
        if not self._is_cut:
            return
        self._is_cut = False
        restored, self._restored = self._restored, anyio.Event()
        restored.set()
        for watch in list(self._watches):
            await watch.start_over()
        self._notify(True)

    def happens(self, what: str, probability: float) -> bool:
        """Throw the dice for one fault and count it."""
        happened = probability > 0 and self._random.random() < probability
        if happened:
            self.statistics_of_faults[what] = self.statistics_of_faults.get(what, 0) + 1
        return happened

    def _notify(self, is_connected: bool) -> None:
        for handler in list(self._connection_handlers):
            handler(is_connected and not self._is_cut)

    def _require_connection(self) -> None:
        if self._is_cut:
            raise Unreachable("not connected")

    def _deliver(self, handler: Callable[[Message], None], message: Message) -> None:
        if self._is_cut or self.happens("drop", self._faults.drop):
            return
        times = 2 if self.happens("duplicate", self._faults.duplicate) else 1
        for _ in range(times):
            if self.happens("delay", self._faults.delay):
                seconds = self._random.uniform(0, self._faults.longest_delay_seconds)
                asyncio.get_running_loop().call_later(seconds, self._deliver_late, handler, message)
            else:
                handler(message)

    def _deliver_late(self, handler: Handler, message: Message) -> None:
        if not self._is_cut:
            handler(message)

    # Messages

    def new_inbox(self) -> str:
        return self._bus.new_inbox()

    async def publish(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        reply: str | None = None,
    ) -> None:
        self._require_connection()
        await self._bus.publish(subject, data, headers=headers, reply=reply)

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float,
    ) -> Message:
        self._require_connection()
        await own_task()
        with anyio.CancelScope() as scope:
            self._requests.add(scope)
            try:
                reply = await self._bus.request(
                    subject, data, headers=headers, timeout_seconds=timeout_seconds
                )
                if self.happens("drop", self._faults.drop):
                    await anyio.sleep(timeout_seconds)
                    raise TimedOut(f"no answer from {subject} within {timeout_seconds:g} s")
                return reply
            finally:
                self._requests.discard(scope)
        raise Interrupted(f"the connection was lost while {subject} was called")

    def interrupt(self, prefix: str, reason: str) -> None:
        self._bus.interrupt(prefix, reason)

    async def subscribe(self, subject: str, handler: Handler, *, queue: str | None = None) -> Subscription:
        while self._is_cut:
            await self._restored.wait()
        return await self._bus.subscribe(
            subject, lambda message: self._deliver(handler, message), queue=queue
        )

    async def flush(self) -> None:
        self._require_connection()
        await self._bus.flush()

    def on_connection_change(self, handler: ConnectionHandler) -> None:
        self._connection_handlers.append(handler)

    # Stores

    async def key_value(self, bucket: str, *, history: int = 1, ttl_seconds: float | None = None) -> KeyValue:
        opened = await self.spoil(
            lambda: self._bus.key_value(bucket, history=history, ttl_seconds=ttl_seconds)
        )
        return _FaultyKeyValue(self, opened)

    async def object_store(self, bucket: str, *, make: bool = True) -> ObjectStore:
        return _FaultyObjectStore(self, await self.spoil(lambda: self._bus.object_store(bucket, make=make)))

    async def object_stores(self, prefix: str) -> list[str]:
        return await self.spoil(lambda: self._bus.object_stores(prefix))

    async def delete_object_store(self, bucket: str) -> None:
        await self.spoil(lambda: self._bus.delete_object_store(bucket))

    async def work_queue(self, settings: QueueSettings) -> WorkQueue:
        return await self.spoil(lambda: self._bus.work_queue(settings))

    async def owned_queues(self, owner: str) -> list[OwnedQueue]:
        return await self.spoil(lambda: self._bus.owned_queues(owner))

    async def retire_queue(self, queue: OwnedQueue, *, idle_seconds: float) -> None:
        await self.spoil(lambda: self._bus.retire_queue(queue, idle_seconds=idle_seconds))

    async def make_stream(self, name: str, subject: str) -> None:
        await self.spoil(lambda: self._bus.make_stream(name, subject))

    async def publish_stored(
        self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None, timeout_seconds: float
    ) -> int:
        return await self.spoil(
            lambda: self._bus.publish_stored(subject, data, headers=headers, timeout_seconds=timeout_seconds)
        )

    async def spoil(self, operation: Callable[[], Awaitable[Result]]) -> Result:
        """Do a store's operation, unless it is to fail before, or fail after it was done."""
        self._require_connection()
        if self.happens("store_unreachable", self._faults.store_unreachable):
            raise Unreachable("the store does not answer")
        result = await operation()
        self._require_connection()
        if self.happens("store_timeout", self._faults.store_timeout):
            raise TimedOut("the store's answer did not come")
        return result

    async def watch(
        self, store: KeyValue, handler: WatchHandler, on_restart: Callable[[bool], None] | None
    ) -> Subscription:
        """Watch a store in such a way that a cut leaves a gap and the restored connection a new replay."""
        watch = _FaultyWatch(self, store, handler, on_restart)
        await watch.start()
        self._watches.append(watch)
        return watch

    def forget(self, watch: _FaultyWatch) -> None:
        if watch in self._watches:
            self._watches.remove(watch)

    async def watch_disconnects(self, handler: DisconnectHandler) -> bool:
        def receive(disconnect: Disconnect) -> None:
            if not self._is_cut and not self.happens("drop", self._faults.drop):
                handler(disconnect)

        return await self._bus.watch_disconnects(receive)

    async def aclose(self) -> None:
        await self._bus.aclose()


class _FaultyWatch:
    def __init__(
        self,
        bus: FaultyBus,
        store: KeyValue,
        handler: WatchHandler,
        on_restart: Callable[[bool], None] | None,
    ) -> None:
        self._bus = bus
        self._store = store
        self._handler = handler
        self._on_restart = on_restart
        self._inner: Subscription | None = None

    async def start(self) -> None:
        self._inner = await self._store.watch(self._receive, on_restart=self._on_restart)

    async def start_over(self) -> None:
        if self._inner is not None:
            await self._inner.unsubscribe()
        if self._on_restart is not None:
            self._on_restart(False)
        await self.start()

    def _receive(self, entry: Entry | None) -> None:
        if self._bus.is_connected:
            self._handler(entry)

    async def unsubscribe(self) -> None:
        self._bus.forget(self)
        if self._inner is not None:
            await self._inner.unsubscribe()


class _FaultyKeyValue:
    def __init__(self, bus: FaultyBus, store: KeyValue) -> None:
        self._bus = bus
        self._store = store

    @property
    def bucket(self) -> str:
        return self._store.bucket

    async def get(self, key: str) -> Entry | None:
        return await self._bus.spoil(lambda: self._store.get(key))

    async def peek(self, key: str) -> Entry | None:
        return await self._bus.spoil(lambda: self._store.peek(key))

    async def keys(self, prefix: str, *, after: int = 0, limit: int) -> tuple[list[str], int | None]:
        return await self._bus.spoil(lambda: self._store.keys(prefix, after=after, limit=limit))

    async def create(self, key: str, value: bytes) -> int:
        return await self._bus.spoil(lambda: self._store.create(key, value))

    async def update(self, key: str, value: bytes, revision: int) -> int:
        return await self._bus.spoil(lambda: self._store.update(key, value, revision))

    async def put(self, key: str, value: bytes) -> int:
        return await self._bus.spoil(lambda: self._store.put(key, value))

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        await self._bus.spoil(lambda: self._store.delete(key, revision=revision))

    async def entries(self) -> list[Entry]:
        return await self._bus.spoil(self._store.entries)

    async def watch(
        self, handler: WatchHandler, *, on_restart: Callable[[bool], None] | None = None
    ) -> Subscription:
        return await self._bus.spoil(lambda: self._bus.watch(self._store, handler, on_restart))


class _FaultyObjectStore:
    def __init__(self, bus: FaultyBus, store: ObjectStore) -> None:
        self._bus = bus
        self._store = store

    @property
    def bucket(self) -> str:
        return self._store.bucket

    async def put(self, name: str, data: bytes) -> None:
        await self._bus.spoil(lambda: self._store.put(name, data))

    async def get(self, name: str) -> bytes:
        return await self._bus.spoil(lambda: self._store.get(name))

    async def delete(self, name: str) -> None:
        await self._bus.spoil(lambda: self._store.delete(name))

    async def names(self) -> list[str]:
        return await self._bus.spoil(self._store.names)

    async def write(self, name: str, chunks: AsyncIterable[bytes]) -> ObjectInfo:
        return await self._bus.spoil(lambda: self._store.write(name, chunks))

    async def read(
        self, name: str, *, start: int = 0, end: int | None = None
    ) -> tuple[ObjectInfo, ByteReceiver]:
        return await self._bus.spoil(lambda: self._store.read(name, start=start, end=end))

    async def info(self, name: str) -> ObjectInfo | None:
        return await self._bus.spoil(lambda: self._store.info(name))

    async def page(self, cursor: str = "", limit: int = 1000) -> ObjectPage:
        return await self._bus.spoil(lambda: self._store.page(cursor, limit))

    async def clear(self) -> None:
        await self._bus.spoil(self._store.clear)

    async def mark(self) -> str:
        return await self._bus.spoil(self._store.mark)

    async def unnamed(self, *, exactly: bool = False) -> Mapping[str, int]:
        return await self._bus.spoil(lambda: self._store.unnamed(exactly=exactly))

    async def purge(self, version: str) -> None:
        with suppress(LatticeError):
            await self._bus.spoil(lambda: self._store.purge(version))

    async def created_at(self) -> float:
        return await self._bus.spoil(self._store.created_at)
