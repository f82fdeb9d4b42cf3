"""Key-value on the lattice's own NATS server: shared by all nodes, durable, one bucket per namespace.

Keys may be any text: what NATS does not take in a key is written `=XX`, its bytes in hexadecimal. The version
of a value for `swap` is its revision. A deleted key leaves a marker of some bytes in the bucket.

Increments and swaps compare and set by revision. Those of one process take turns, so that they meet only
others' and a few attempts are enough.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from lattice import subjects
from lattice.bus import Bus, KeyValue
from lattice.errors import Conflict, Overloaded
from lattice.quantities import parse_size
from lattice.settings import setting
from providers.keyvalue.interface import KeyValueProvider, Refused, Store, check_sum, parse_number
from providers.registry import Kind, ProviderContext

ATTEMPTS = 50
"""To change a value that others change, too."""
FIRST_PAUSE_SECONDS = 0.002
MAX_PAUSE_SECONDS = 0.1
PARALLEL = 32
"""Operations of one batch that are under way at a time."""
OVERHEAD_BYTES = 8192
"""What a message has beside the value, generously: subject and headers."""

_UNSAFE = re.compile(rb"[^A-Za-z0-9_/-]")
_ESCAPED = re.compile(rb"=([0-9A-F]{2})")
EMPTY = "="
"""Stands for an empty text, which can't be a token."""


def escape(text: str) -> str:
    """A token of a key for any text; different texts have different tokens."""
    found = _UNSAFE.sub(lambda match: b"=%02X" % match[0][0], text.encode("utf-8", "surrogatepass"))
    return found.decode() or EMPTY


def unescape(token: str) -> str:
    """The inverse of `escape`."""
    found = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), token.encode())
    return "" if token == EMPTY else found.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsSettings:
    """Of `keyvalue-nats`."""

    max_value: int = setting(
        2**20, "Largest value; the server's largest message is a limit as well.", parse_size, metavar="SIZE"
    )


class NatsKeyValue(KeyValueProvider):
    """The mutable state is the buckets opened, and the keys whose values are being changed."""

    def __init__(self, context: ProviderContext, settings: NatsSettings) -> None:
        self._bus: Bus = context.bus
        self._lattice = context.lattice
        self._max_value = settings.max_value
        self._buckets: dict[str, KeyValue] = {}
        self._opening = anyio.Lock()
        self.turns = Turns()

    @property
    def max_value_bytes(self) -> int:  # type: ignore[override]  # grows with the server that is connected
        return min(self._max_value, self._message_bytes)

    @property
    def limit_reason(self) -> str:  # type: ignore[override]  # as above
        return (
            "" if self._max_value <= self._message_bytes else " (what one message of the NATS server carries)"
        )

    @property
    def _message_bytes(self) -> int:
        return max(0, self._bus.max_payload - OVERHEAD_BYTES)

    async def check(self) -> None:
        """The connection looks after itself, and the process that lost it is not asked anyway."""

    def store(self, namespace: str, bucket: str) -> Store:
        return NatsStore(self, namespace, bucket)

    async def bucket(self, namespace: str) -> KeyValue:
        """The bucket of a namespace, made if it is missing."""
        found = self._buckets.get(namespace)
        if found is None:
            async with self._opening:
                name = subjects.keyvalue_bucket(self._lattice, namespace)
                found = self._buckets.get(namespace) or await self._bus.key_value(name)
                self._buckets[namespace] = found
        return found


class Turns:
    """Locks by name, kept while somebody holds or awaits one."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[anyio.Lock, list[None]]] = {}

    @asynccontextmanager
    async def of(self, name: str) -> AsyncGenerator[None]:
        """One at a time."""
        lock, users = self._locks.setdefault(name, (anyio.Lock(), []))
        users.append(None)
        try:
            async with lock:
                yield
        finally:
            users.pop()
            if not users:
                del self._locks[name]


class NatsStore(Store):
    """One bucket of a namespace: the keys of its NATS bucket that begin with its name."""

    def __init__(self, owner: NatsKeyValue, namespace: str, bucket: str) -> None:
        self._owner = owner
        self._namespace = namespace
        self._prefix = f"{escape(bucket)}."
        self._opened: KeyValue | None = None

    async def get(self, key: str) -> bytes | None:
        entry = await (self._opened or await self._open()).peek(self._key(key))
        return None if entry is None else entry.value

    async def set(self, key: str, value: bytes) -> None:
        await (self._opened or await self._open()).put(self._key(key), value)

    async def delete(self, key: str) -> None:
        bucket = self._opened or await self._open()
        if await bucket.get(self._key(key)) is not None:  # else it would leave a marker
            await bucket.delete(self._key(key))

    async def keys(self, cursor: int, limit: int) -> tuple[list[str], int | None]:
        bucket = self._opened or await self._open()
        keys, following = await bucket.keys(self._prefix, after=cursor, limit=limit)
        return [unescape(key.removeprefix(self._prefix)) for key in keys], following

    async def increment(self, key: str, delta: int) -> int:
        bucket = self._opened or await self._open()
        name = self._key(key)
        async with self._owner.turns.of(f"{self._namespace}/{name}"):
            for attempt in range(ATTEMPTS):
                entry = await bucket.get(name)
                before = parse_number(entry.value or b"", key) if entry is not None else 0
                number = check_sum(before + delta)
                try:
                    if entry is None:
                        await bucket.create(name, str(number).encode())
                    else:
                        await bucket.update(name, str(number).encode(), entry.revision)
                    return number
                except Conflict:
                    pause = min(FIRST_PAUSE_SECONDS * 2**attempt, MAX_PAUSE_SECONDS)
                    await anyio.sleep(pause * random.random())
        raise Overloaded(f"{key!r} was changed by others {ATTEMPTS} times meanwhile; nothing was added")

    async def current(self, key: str) -> tuple[bytes | None, str]:
        entry = await (self._opened or await self._open()).get(self._key(key))
        return (None, "0") if entry is None else (entry.value, str(entry.revision))

    async def swap(self, key: str, value: bytes, version: str) -> bool:
        if not version.isdecimal():
            raise Refused(f"{version[:40]!r} is no version of a value")
        bucket = self._opened or await self._open()
        try:
            if version == "0":
                await bucket.create(self._key(key), value)
            else:
                await bucket.update(self._key(key), value, int(version))
        except Conflict:
            return False
        return True

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        found: dict[str, bytes | None] = {}

        async def read(key: str) -> None:
            found[key] = await self.get(key)

        await _all(read, dict.fromkeys(keys))
        return [found[key] for key in keys]

    async def set_many(self, items: Mapping[str, bytes]) -> None:
        await _all(lambda key: self.set(key, items[key]), items)

    async def delete_many(self, keys: Sequence[str]) -> None:
        await _all(self.delete, dict.fromkeys(keys))

    async def _open(self) -> KeyValue:
        self._opened = await self._owner.bucket(self._namespace)
        return self._opened

    def _key(self, key: str) -> str:
        return self._prefix + escape(key)


async def _all(operation: Callable[[str], Awaitable[Any]], keys: Mapping[str, Any]) -> None:
    """Do it for each key, several at a time; raises what went wrong first."""
    waiting = iter(keys)
    errors: list[Exception] = []

    async def work() -> None:
        for key in waiting:
            try:
                await operation(key)
            except Exception as error:
                errors.append(error)
            if errors:
                return

    async with anyio.create_task_group() as tasks:
        for _ in range(min(PARALLEL, len(keys))):
            tasks.start_soon(work)
    if errors:
        raise errors[0]


KIND = Kind(
    name="keyvalue-nats",
    settings=NatsSettings,
    make=NatsKeyValue,
    help="Key-value on the lattice's NATS server: shared by all nodes, durable.",
    is_default=True,
)
