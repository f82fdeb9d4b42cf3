"""The stores of the bus within one process."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import time
from collections.abc import AsyncIterable, Callable
from typing import Protocol

from lattice.bus import (
    ConnectionHandler,
    Entry,
    ObjectInfo,
    ObjectPage,
    Subscription,
    WatchHandler,
    check_key,
)
from lattice.errors import Conflict, Invalid, LatticeError, NotFound
from lattice.sources import BytesSource
from lattice.streams import ByteReceiver

_created = itertools.count(1)


class Bucket:
    """The keys of one bucket; deleted ones stay as entries without a value."""

    # The mutable state of a bucket is its entries, its last revision and its watches.

    def __init__(self, name: str, *, ttl_seconds: float | None, clock: Callable[[], float]) -> None:
        self.name = name
        self.identity = next(_created)
        self.watches: list[MemoryWatch] = []
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._written: dict[str, float] = {}
        self._revision = 0

    def last(self, key: str) -> Entry | None:
        """The key's last entry, a deletion too."""
        self._expire()
        return self._entries.get(key)

    def entries(self) -> list[Entry]:
        """All last entries, deletions too, in the order of their revisions."""
        self._expire()
        return sorted(self._entries.values(), key=lambda entry: entry.revision)

    def write(self, key: str, value: bytes | None, expected: int | None) -> int:
        """Write if the key's revision is as expected (None: whatever it is)."""
        self._expire()
        present = self._entries.get(key)
        if expected is not None and expected != (present.revision if present else 0):
            raise Conflict(f"key {key!r} of {self.name} was changed meanwhile")
        return self._store(key, value)

    def lose(self) -> None:
        """Tell the watches that this bucket is gone."""
        watches, self.watches = self.watches, []
        for watch in watches:
            watch.restart()

    def _store(self, key: str, value: bytes | None) -> int:
        self._revision += 1
        entry = Entry(key, value, self._revision)
        self._entries[key] = entry
        self._written[key] = self._clock()
        for watch in self.watches:
            watch.send(entry)
        return self._revision

    def _expire(self) -> None:
        if self._ttl_seconds is None:
            return
        oldest = self._clock() - self._ttl_seconds
        for key in [key for key, written in self._written.items() if written <= oldest]:
            if self._entries[key].value is not None:
                self._store(key, None)


class Connection(Protocol):
    """What a watch needs of its bus."""

    @property
    def is_connected(self) -> bool: ...

    def on_connection_change(self, handler: ConnectionHandler) -> None: ...


class MemoryWatch:
    """One watch; it starts over when its bus reconnects or its bucket is lost."""

    def __init__(
        self,
        open_bucket: Callable[[], Bucket],
        bus: Connection,
        handler: WatchHandler,
        on_restart: Callable[[bool], None] | None,
    ) -> None:
        self._open = open_bucket
        self._bus = bus
        self._handler = handler
        self._on_restart = on_restart
        self._is_active = True
        self._epoch = 0
        self._bucket = self._join()
        bus.on_connection_change(self._on_connection_change)

    def send(self, entry: Entry | None) -> None:
        """Hand over later, in order, unless the watch has started over by then."""
        asyncio.get_running_loop().call_soon(self._receive, entry, self._epoch)

    def restart(self) -> None:
        """Replay the bucket as it is now; waits for the bus if that is not connected."""
        self._epoch += 1
        if not self._is_active or not self._bus.is_connected:
            return
        before = self._bucket.identity
        try:
            bucket = self._open()
        except LatticeError:
            asyncio.get_running_loop().call_later(0.05, self.restart)
            return
        if self._on_restart is not None:
            asyncio.get_running_loop().call_soon(self._on_restart, bucket.identity != before)
        self._leave()
        self._bucket = self._join()

    async def unsubscribe(self) -> None:
        self._is_active = False
        self._leave()

    def _join(self) -> Bucket:
        bucket = self._open()
        for entry in bucket.entries():
            self.send(entry)
        self.send(None)
        bucket.watches.append(self)
        return bucket

    def _leave(self) -> None:
        if self in self._bucket.watches:
            self._bucket.watches.remove(self)

    def _on_connection_change(self, is_connected: bool) -> None:
        if is_connected:
            self.restart()

    def _receive(self, entry: Entry | None, epoch: int) -> None:
        if self._is_active and epoch == self._epoch and self._bus.is_connected:
            self._handler(entry)


class MemoryKeyValue:
    """A `KeyValue` over a bucket that is looked up, and made if need be, at each operation."""

    def __init__(self, bucket: str, open_bucket: Callable[[], Bucket], bus: Connection) -> None:
        self._name = bucket
        self._open = open_bucket
        self._bus = bus

    def __repr__(self) -> str:
        return f"<MemoryKeyValue {self._name}>"

    @property
    def bucket(self) -> str:
        return self._name

    async def get(self, key: str) -> Entry | None:
        check_key(key)
        await asyncio.sleep(0)
        entry = self._open().last(key)
        return entry if entry is not None and entry.value is not None else None

    async def peek(self, key: str) -> Entry | None:
        return await self.get(key)

    async def keys(self, prefix: str, *, after: int = 0, limit: int) -> tuple[list[str], int | None]:
        await asyncio.sleep(0)
        entries = [
            entry
            for entry in self._open().entries()
            if entry.revision > after and entry.key.startswith(prefix)
        ]
        page = entries[:limit]
        keys = [entry.key for entry in page if entry.value is not None]
        return keys, page[-1].revision if len(entries) > limit else None

    async def create(self, key: str, value: bytes) -> int:
        check_key(key)
        await asyncio.sleep(0)
        bucket = self._open()
        last = bucket.last(key)
        if last is not None and last.value is not None:
            raise Conflict(f"key {key!r} of {self._name} exists at revision {last.revision}")
        return bucket.write(key, value, None)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        return await self._write(key, value, revision)

    async def put(self, key: str, value: bytes) -> int:
        return await self._write(key, value, None)

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        await self._write(key, None, revision)

    async def entries(self) -> list[Entry]:
        await asyncio.sleep(0)
        return [entry for entry in self._open().entries() if entry.value is not None]

    async def watch(
        self, handler: WatchHandler, *, on_restart: Callable[[bool], None] | None = None
    ) -> Subscription:
        return MemoryWatch(self._open, self._bus, handler, on_restart)

    async def _write(self, key: str, value: bytes | None, revision: int | None) -> int:
        check_key(key)
        await asyncio.sleep(0)
        return self._open().write(key, value, revision)


class Objects(dict[str, tuple[ObjectInfo, bytes]]):
    """The objects of one store, and when it was made."""

    def __init__(self) -> None:
        super().__init__()
        self.created_at = time.time()


class MemoryObjectStore:
    """An `ObjectStore` in a dictionary."""

    def __init__(self, bucket: str, open_objects: Callable[[], Objects]) -> None:
        self._name = bucket
        self._open = open_objects

    def __repr__(self) -> str:
        return f"<MemoryObjectStore {self._name}>"

    @property
    def bucket(self) -> str:
        return self._name

    async def put(self, name: str, data: bytes) -> None:
        if not name:
            raise Invalid("an object's name must not be empty")
        digest = f"SHA-256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()}"
        info = ObjectInfo(name=name, size=len(data), modified=time.time(), digest=digest)
        self._open()[name] = (info, bytes(data))

    async def get(self, name: str) -> bytes:
        return self._find(name)[1]

    async def delete(self, name: str) -> None:
        self._open().pop(name, None)

    async def names(self) -> list[str]:
        return sorted(self._open())

    async def write(self, name: str, chunks: AsyncIterable[bytes]) -> ObjectInfo:
        self._open()
        data = b"".join([chunk async for chunk in chunks])
        await self.put(name, data)
        return self._find(name)[0]

    async def read(
        self, name: str, *, start: int = 0, end: int | None = None
    ) -> tuple[ObjectInfo, ByteReceiver]:
        info, data = self._find(name)
        return info, BytesSource(data[start:end])

    async def info(self, name: str) -> ObjectInfo | None:
        found = self._open().get(name)
        return None if found is None else found[0]

    async def page(self, cursor: str = "", limit: int = 1000) -> ObjectPage:
        objects = self._open()
        later = sorted(name for name in objects if name > cursor)
        names = later[:limit]
        found = tuple(objects[name][0] for name in names)
        return ObjectPage(objects=found, cursor=names[-1] if len(later) > limit else "")

    async def clear(self) -> None:
        self._open().clear()

    async def mark(self) -> str:
        self._open()
        return str(time.monotonic_ns())

    async def unnamed(self, *, exactly: bool = False) -> dict[str, int]:
        self._open()
        return {}  # what is being written is the writer's, and what was replaced its readers'

    async def purge(self, version: str) -> None:
        pass

    async def created_at(self) -> float:
        return self._open().created_at

    def _find(self, name: str) -> tuple[ObjectInfo, bytes]:
        try:
            return self._open()[name]
        except KeyError:
            raise NotFound(f"object {name!r} is not in {self._name}") from None
