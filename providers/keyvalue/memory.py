"""Key-value in the memory of one process: fast, private to each node, gone with it.

For caches and tests. Every node that offers it has its own; a component with replicas on two nodes sees two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, dropwhile, islice

from lattice.quantities import parse_size
from lattice.settings import setting
from providers.keyvalue.interface import KeyValueProvider, Refused, Store, check_sum, parse_number
from providers.registry import Kind, ProviderContext

ENTRY_BYTES = 200
"""What an entry takes beside its key and value, about."""
BUCKET_BYTES = 800
"""What a bucket with entries takes beside them, about: its names and its table."""

Entries = dict[str, tuple[bytes, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySettings:
    """Of `keyvalue-memory`."""

    max_bytes: int = setting(
        64 * 2**20, "All keys and values together, of all components.", parse_size, metavar="SIZE"
    )
    max_value: int = setting(2**20, "Largest value.", parse_size, metavar="SIZE")


class MemoryKeyValue(KeyValueProvider):
    """The mutable state is all entries by namespace and bucket, and how many bytes they take.

    A bucket is there while it has entries: a guest may ask for any number of others.
    """

    def __init__(self, context: ProviderContext, settings: MemorySettings) -> None:
        self.max_value_bytes = settings.max_value
        self.max_bytes = settings.max_bytes
        self.used_bytes = 0
        self.revisions = count(1)
        self.buckets: dict[tuple[str, str], Entries] = {}

    def store(self, namespace: str, bucket: str) -> Store:
        return MemoryStore(self, (namespace, bucket))


class MemoryStore(Store):
    """One bucket; entries are in the order of their last writes, each with the number of that."""

    def __init__(self, owner: MemoryKeyValue, bucket: tuple[str, str]) -> None:
        self._owner = owner
        self._bucket = bucket

    @property
    def _entries(self) -> Entries:
        """For reading: a bucket without entries is not kept."""
        return self._owner.buckets.get(self._bucket) or {}

    async def get(self, key: str) -> bytes | None:
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    async def set(self, key: str, value: bytes) -> None:
        owner = self._owner
        added = self._added_bytes(key, value)
        if owner.used_bytes + added > owner.max_bytes:
            raise Refused(f"the store is full: all of it may take {owner.max_bytes} bytes")
        owner.used_bytes += added
        entries = owner.buckets.setdefault(self._bucket, {})
        entries.pop(key, None)  # so that it comes last
        entries[key] = value, next(owner.revisions)

    def _added_bytes(self, key: str, value: bytes) -> int:
        before = self._entries.get(key)
        if before is not None:
            return len(value) - len(before[0])
        is_new_bucket = self._bucket not in self._owner.buckets
        return len(key) + len(value) + ENTRY_BYTES + BUCKET_BYTES * is_new_bucket

    async def delete(self, key: str) -> None:
        entries = self._entries
        entry = entries.pop(key, None)
        if entry is None:
            return
        self._owner.used_bytes -= len(key) + len(entry[0]) + ENTRY_BYTES
        if not entries:
            del self._owner.buckets[self._bucket]
            self._owner.used_bytes -= BUCKET_BYTES

    async def keys(self, cursor: int, limit: int) -> tuple[list[str], int | None]:
        after = dropwhile(lambda item: item[1][1] <= cursor, self._entries.items())
        page = list(islice(after, limit + 1))
        following = page[limit - 1][1][1] if len(page) > limit else None
        return [key for key, _ in page[:limit]], following

    async def increment(self, key: str, delta: int) -> int:
        entry = self._entries.get(key)
        number = check_sum((parse_number(entry[0], key) if entry else 0) + delta)
        await self.set(key, str(number).encode())
        return number

    async def current(self, key: str) -> tuple[bytes | None, str]:
        entry = self._entries.get(key)
        return (None, "0") if entry is None else (entry[0], str(entry[1]))

    async def swap(self, key: str, value: bytes, version: str) -> bool:
        if (await self.current(key))[1] != version:
            return False
        await self.set(key, value)
        return True

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return [await self.get(key) for key in keys]

    async def set_many(self, items: Mapping[str, bytes]) -> None:
        for key, value in items.items():
            await self.set(key, value)

    async def delete_many(self, keys: Sequence[str]) -> None:
        for key in keys:
            await self.delete(key)


KIND = Kind(
    name="keyvalue-memory",
    settings=MemorySettings,
    make=MemoryKeyValue,
    help="Key-value in the node's memory: fast, not shared with other nodes, gone when it ends.",
    is_default=True,
)
