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


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySettings:
    """Of `keyvalue-memory`."""

    max_bytes: int = setting(
        64 * 2**20, "All keys and values together, of all components.", parse_size, metavar="SIZE"
    )
    max_value: int = setting(2**20, "Largest value.", parse_size, metavar="SIZE")


class MemoryKeyValue(KeyValueProvider):
    """The mutable state is all entries by namespace and bucket, and how many bytes they take."""

    def __init__(self, context: ProviderContext, settings: MemorySettings) -> None:
        self.max_value_bytes = settings.max_value
        self.max_bytes = settings.max_bytes
        self.used_bytes = 0
        self.revisions = count(1)
        self._buckets: dict[tuple[str, str], dict[str, tuple[bytes, int]]] = {}

    def store(self, namespace: str, bucket: str) -> Store:
        return MemoryStore(self, self._buckets.setdefault((namespace, bucket), {}))


class MemoryStore(Store):
    """One bucket; entries are in the order of their last writes, each with the number of that."""

    def __init__(self, owner: MemoryKeyValue, entries: dict[str, tuple[bytes, int]]) -> None:
        self._owner = owner
        self._entries = entries

    async def get(self, key: str) -> bytes | None:
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    async def set(self, key: str, value: bytes) -> None:
        before = self._entries.get(key)
        added = len(value) - len(before[0]) if before else len(key) + len(value) + ENTRY_BYTES
        if self._owner.used_bytes + added > self._owner.max_bytes:
            raise Refused(f"the store is full: all of it may take {self._owner.max_bytes} bytes")
        self._owner.used_bytes += added
        self._entries.pop(key, None)  # so that it comes last
        self._entries[key] = value, next(self._owner.revisions)

    async def delete(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._owner.used_bytes -= len(key) + len(entry[0]) + ENTRY_BYTES

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
