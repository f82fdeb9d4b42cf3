"""Named values that operators keep in the lattice beside applications: configurations and secrets.

As for desired state, the store is not the only copy. Every node watches the bucket and keeps what it has
seen, in memory and in files; a record only ever grows by its version. Where the store lacks a record, or has
an older one, because it was lost, whoever knows better writes it back by compare-and-set: so all converge on
the highest version that anybody knows. A deletion is a record too, kept for a week.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, Self, TypeVar

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskStatus

from lattice import wire
from lattice.bus import Bus, Entry, KeyValue
from lattice.errors import Conflict, Invalid, LatticeError
from lattice.fields import Value, check_range
from lattice.model import MAX_NUMBER, TOMBSTONE_SECONDS
from lattice.names import check_name
from lattice.observer import encode_value

log = structlog.get_logger()

ATTEMPTS = 5
"""Of an edit that can be made on top of whatever somebody else wrote meanwhile."""
RESTORE_SECONDS = 1.0
"""Within which nodes, each at a moment of its own, write back what a store lacks: mostly one does it all."""
RETRY_SECONDS = 1.0
UPKEEP_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Value):
    """One named value with its version; with `deleted_at` it says that there is none."""

    name: str
    incarnation: int
    generation: int = 1
    deleted_at: int | None = None
    """Milliseconds since 1970 by the deleter's clock; decides only when the deletion may be forgotten."""

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        check_range(self.incarnation, 1, MAX_NUMBER, "incarnation")
        check_range(self.generation, 1, MAX_NUMBER, "generation")

    @property
    def version(self) -> tuple[int, ...]:
        """Grows with every change; decides between copies."""
        return self.incarnation, self.generation

    @property
    def is_deleted(self) -> bool:
        """Whether this is a tombstone."""
        return self.deleted_at is not None

    def supersedes(self, other: Record | None) -> bool:
        """Whether this copy wins over `other`; of two different ones of a version, the same for all nodes."""
        if other is None or self.version != other.version:
            return other is None or self.version > other.version
        return (self.is_deleted, encode_value(self)) > (other.is_deleted, encode_value(other))

    def is_forgettable(self, now_ms: int) -> bool:
        """Whether this is a tombstone old enough to be removed."""
        return self.deleted_at is not None and now_ms - self.deleted_at > TOMBSTONE_SECONDS * 1000

    def deleted(self, now_ms: int) -> Self:
        """The next generation, which says that there is none; a subclass drops its contents."""
        return replace(self, generation=self.generation + 1, deleted_at=now_ms)


def next_version(previous: Record | None, now_ms: int) -> tuple[int, int]:
    """Incarnation and generation of what replaces `previous`; a new one wins over all forgotten ones."""
    if previous is None or previous.is_deleted:
        return max(previous.incarnation + 1 if previous else 1, now_ms), 1
    return previous.incarnation, previous.generation + 1


class Copies(Protocol):
    """Where a node keeps its copies; called off the event loop."""

    def load(self) -> Sequence[bytes]:
        """All that are kept, or none if they are so old that deletions may have been forgotten since."""

    def keep(self, name: str, data: bytes | None) -> None:
        """Replace a copy, or drop it."""

    def in_contact(self) -> None:
        """Note that the store is in reach now."""


R = TypeVar("R", bound=Record)

RecordChange = Callable[[R | None, int], R]
"""`change(previous, now_ms)` gives the wanted record, or `previous` itself when nothing is to do."""


class Records(Generic[R]):
    """The records of one bucket.

    The mutable state is the records known, what the store has of each, and which copies are to be written.
    """

    def __init__(self, bus: Bus, bucket: str, kind: type[R], copies: Copies | None = None) -> None:
        self._bus = bus
        self._bucket = bucket
        self._kind = kind
        self._copies = copies
        self._store: KeyValue | None = None
        self._known: dict[str, R] = {}
        self._stored: dict[str, tuple[tuple[int, ...], int]] = {}  # name -> version, revision
        self._unkept: dict[str, R | None] = {}
        self._listeners: list[Callable[[R], None]] = []
        self._caught_up = anyio.Event()
        self._is_unkept = anyio.Event()
        self._is_store_behind = anyio.Event()

    def __repr__(self) -> str:
        return f"<Records of {self._bucket} {len(self._known)}>"

    @property
    def is_caught_up(self) -> bool:
        """Whether the store was read, so that what is unknown does not exist."""
        return self._caught_up.is_set()

    def get(self, name: str) -> R | None:
        """The present record of that name."""
        found = self._known.get(name)
        return None if found is None or found.is_deleted else found

    def last(self, name: str) -> R | None:
        """The last record of that name, a tombstone too."""
        return self._known.get(name)

    def all(self) -> list[R]:
        """All present records by name."""
        return [self._known[name] for name in sorted(self._known) if not self._known[name].is_deleted]

    def on_change(self, listener: Callable[[R], None]) -> None:
        """Call with every record that is new or changed, deletions too."""
        self._listeners.append(listener)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Follow the store until cancelled; started when it was read."""
        if self._copies is not None:
            for data in await to_thread.run_sync(self._copies.load):
                self._take_copy(data)
        self._store = await self._bus.key_value(self._bucket)
        subscription = await self._store.watch(self._entry, on_restart=self._watch_restarted)
        try:
            await self._caught_up.wait()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write_back_when_due)
                tasks.start_soon(self._keep_copies)
                task_status.started()
                await self._look_after()
        finally:
            with anyio.move_on_after(1, shield=True):
                await subscription.unsubscribe()

    # Changes by this process

    async def edit(self, name: str, change: RecordChange[R]) -> tuple[R, bool]:
        """Make the change; the record as it is now and whether this changed it. Raises `Conflict`."""
        assert self._store is not None
        for _ in range(ATTEMPTS):
            entry = await self._store.get(name)
            previous = self._previous(name, entry)
            wanted = change(previous, time.time_ns() // 1_000_000)
            if wanted is previous:
                return wanted, False
            try:
                await self._write(wanted, entry.revision if entry else None)
            except Conflict:
                continue
            self._merge(wanted)
            return wanted, True
        raise Conflict(f"{name!r} was changed by somebody else at the same time; look at it, then repeat")

    def _previous(self, name: str, entry: Entry | None) -> R | None:
        """The highest version known: a store that was wiped knows less than this process."""
        stored = self._decode(entry.value) if entry and entry.value else None
        known = self._known.get(name)
        if stored is None or (known is not None and known.supersedes(stored)):
            return known
        return stored

    async def _write(self, record: R, revision: int | None) -> None:
        assert self._store is not None
        value = encode_value(record)
        if revision is None:
            await self._store.create(record.name, value)
        else:
            await self._store.update(record.name, value, revision)

    # The store's watch

    def _entry(self, entry: Entry | None) -> None:
        if entry is None:
            self._caught_up.set()
            self._look_who_is_behind()
        elif entry.value is None:
            self._stored.pop(entry.key, None)  # tombstones are values; a key that is gone says nothing
        else:
            try:
                record = self._decode(entry.value)
                if record.name != entry.key:
                    raise Invalid(f"it is a record of {record.name!r}")
            except Invalid as error:
                log.warning("record.unreadable", bucket=self._bucket, key=entry.key, reason=error.message)
                return
            self._stored[record.name] = record.version, entry.revision
            self._merge(record)
            self._look_who_is_behind([record.name])

    def _watch_restarted(self, is_lost: bool) -> None:
        self._stored.clear()

    def _merge(self, record: R) -> None:
        if not record.supersedes(self._known.get(record.name)):
            return
        self._known[record.name] = record
        self._unkept[record.name] = record
        self._is_unkept.set()
        for listener in self._listeners:
            listener(record)

    def _take_copy(self, data: bytes) -> None:
        try:
            record = self._decode(data)
        except Invalid as error:
            log.warning("copy.unreadable", bucket=self._bucket, reason=error.message)
            return
        if record.supersedes(self._known.get(record.name)):
            self._known[record.name] = record

    def _decode(self, data: bytes) -> R:
        return self._kind.from_dict(wire.decode_json(data))

    # A store that knows less

    def _look_who_is_behind(self, names: Iterable[str] | None = None) -> None:
        if self._caught_up.is_set() and self._missing(names):
            self._is_store_behind.set()

    def _missing(self, names: Iterable[str] | None = None) -> list[R]:
        now_ms = time.time_ns() // 1_000_000
        records = [self._known[name] for name in (self._known if names is None else names)]
        return [
            record
            for record in records
            if self._stored.get(record.name, ((),))[0] < record.version and not record.is_forgettable(now_ms)
        ]

    async def _write_back_when_due(self) -> None:
        while True:
            await self._is_store_behind.wait()
            await anyio.sleep(random.uniform(0, RESTORE_SECONDS))
            self._is_store_behind = anyio.Event()
            try:
                for record in self._missing():
                    await self._write_back(record)
            except LatticeError as error:
                log.debug("records.not-restored", bucket=self._bucket, reason=error.message)
                await anyio.sleep(RETRY_SECONDS)
                self._is_store_behind.set()

    async def _write_back(self, record: R) -> None:
        stored = self._stored.get(record.name)
        try:
            await self._write(record, stored[1] if stored else None)
        except Conflict:
            return  # somebody was faster; the watch tells what is there now, and begins this anew if need be
        log.info("record.restored", bucket=self._bucket, name=record.name)

    # Copies and old tombstones

    async def _keep_copies(self) -> None:
        while True:
            await self._is_unkept.wait()
            self._is_unkept = anyio.Event()
            unkept, self._unkept = self._unkept, {}
            for name, record in unkept.items() if self._copies else ():
                await to_thread.run_sync(
                    self._copies.keep,  # type: ignore[union-attr]  # looked at above
                    name,
                    None if record is None else encode_value(record),
                )

    async def _look_after(self) -> None:
        while True:
            if self._bus.is_connected and self._copies is not None:
                await to_thread.run_sync(self._copies.in_contact)
            await self._forget(time.time_ns() // 1_000_000)
            await anyio.sleep(UPKEEP_SECONDS)

    async def _forget(self, now_ms: int) -> None:
        """Drop tombstones that are old enough, here and in the store."""
        assert self._store is not None
        for record in [item for item in self._known.values() if item.is_forgettable(now_ms)]:
            del self._known[record.name]
            self._unkept[record.name] = None
            self._is_unkept.set()
            version, revision = self._stored.pop(record.name, ((), 0))
            if version == record.version:
                try:
                    await self._store.delete(record.name, revision=revision)
                except LatticeError as error:
                    log.debug("tombstone.not-removed", bucket=self._bucket, reason=error.message)


def describe(record: Record) -> dict[str, Any]:
    """What may be said of any record to anybody."""
    return {"name": record.name, "incarnation": record.incarnation, "generation": record.generation}
