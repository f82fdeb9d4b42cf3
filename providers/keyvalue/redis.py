"""Key-value on a Redis server (or one that speaks its protocol).

Keys are `PREFIX:NAMESPACE:BUCKET:KEY`, values as the guest gave them, so that other programs can read them.
The version of a value for `swap` is a digest of it: what was changed and changed back counts as unchanged.

Error handling: what fails before a command was sent is `unreachable`, what fails afterwards `interrupted`.
Commands are never repeated here, as they may have been done.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import anyio

from lattice.errors import Failed, Invalid, LatticeError, Overloaded, Unreachable
from lattice.quantities import parse_duration, parse_size
from lattice.settings import setting, text
from lattice.tasks import own_task
from providers.keyvalue.interface import KeyValueProvider, Refused, Store
from providers.keyvalue.redis_connection import RedisConnection, Refusal, connect
from providers.keyvalue.redis_tls import check_options, failure_text
from providers.registry import Kind, ProviderContext

SWAP = """
local present = redis.call('GET', KEYS[1])
local version = present and redis.sha1hex(present) or '-'
if version ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""
ABSENT = "-"
SCAN_ROUNDS = 100
"""Steps through a large server in search of one page; few of its keys may be the bucket's."""

_GLOB = re.compile(r"([*?\[\]\\^])")


def _url(raw: str, source: str) -> str:
    if urlsplit(raw).scheme not in ("redis", "rediss", "unix"):
        raise Invalid(f"{source}: use redis://HOST:PORT/N, rediss:// for TLS, or unix://PATH")
    check_options(raw, source)
    return raw


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """Of `keyvalue-redis`."""

    url: str = setting(
        "redis://127.0.0.1:6379",
        "Server, with user, password and database if need be.",
        _url,
        metavar="URL",
        is_secret=True,
    )
    prefix: str = setting("", "First part of all keys; by default `lattice:NAME`.", text, metavar="TEXT")
    timeout: float = setting(
        5.0, "How long connecting to the server may take.", parse_duration, metavar="TIME"
    )
    max_value: int = setting(2 * 2**20, "Largest value.", parse_size, metavar="SIZE")


class RedisKeyValue(KeyValueProvider):
    """The mutable state is the connection."""

    def __init__(self, context: ProviderContext, settings: RedisSettings) -> None:
        self.max_value_bytes = settings.max_value
        self._prefix = settings.prefix or f"lattice:{context.lattice}"
        self._settings = settings
        self._connecting = anyio.Lock()
        self._connection: RedisConnection | None = None

    async def start(self) -> None:
        await self.check()

    async def check(self) -> None:
        try:
            await self.command("PING")
        except Refused as error:
            raise Failed(f"Redis refuses the provider: {error}") from None

    async def aclose(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def store(self, namespace: str, bucket: str) -> Store:
        return RedisStore(self, f"{self._prefix}:{namespace}:{quote(bucket, safe='')}:")

    async def command(self, *parts: Any) -> Any:
        """The answer to one command."""
        connection = self._connection
        if connection is None or not connection.is_open:
            connection = await self._connected()
        try:
            return await connection.send(*parts)
        except Refusal as error:
            raise _refused(error) from None

    async def _connected(self) -> RedisConnection:
        await own_task()
        async with self._connecting:
            if self._connection is None or not self._connection.is_open:
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> RedisConnection:
        url, seconds = self._settings.url, self._settings.timeout
        try:
            return await connect(url, seconds)
        except Refusal as error:
            raise Failed(f"Redis refuses the provider: {error}") from None
        except (OSError, TimeoutError, ValueError, LatticeError) as error:
            raise Unreachable(f"Redis can't be reached: {failure_text(error, url, seconds)}") from None


class RedisStore(Store):
    """One bucket: the keys that begin with a prefix."""

    def __init__(self, owner: RedisKeyValue, prefix: str) -> None:
        self._do = owner.command
        self._prefix = prefix

    async def get(self, key: str) -> bytes | None:
        return await self._do("GET", self._prefix + key)  # type: ignore[no-any-return]

    async def set(self, key: str, value: bytes) -> None:
        await self._do("SET", self._prefix + key, value)

    async def delete(self, key: str) -> None:
        await self._do("DEL", self._prefix + key)

    async def exists(self, key: str) -> bool:
        return bool(await self._do("EXISTS", self._prefix + key))

    async def keys(self, cursor: int, limit: int) -> tuple[list[str], int | None]:
        pattern = _GLOB.sub(r"\\\1", self._prefix) + "*"
        found: dict[str, None] = {}
        for _ in range(SCAN_ROUNDS):
            raw, page = await self._do("SCAN", cursor, "MATCH", pattern, "COUNT", limit)
            found.update({key.decode("utf-8", "replace")[len(self._prefix) :]: None for key in page})
            cursor = int(raw)
            if not cursor or found:
                break
        return list(found), cursor or None

    async def increment(self, key: str, delta: int) -> int:
        return int(await self._do("INCRBY", self._prefix + key, delta))

    async def current(self, key: str) -> tuple[bytes | None, str]:
        value = await self.get(key)
        return value, ABSENT if value is None else hashlib.sha1(value).hexdigest()

    async def swap(self, key: str, value: bytes, version: str) -> bool:
        return bool(await self._do("EVAL", SWAP, 1, self._prefix + key, value, version))

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return list(await self._do("MGET", *(self._prefix + key for key in keys))) if keys else []

    async def set_many(self, items: Mapping[str, bytes]) -> None:
        if items:
            parts = (part for key, value in items.items() for part in (self._prefix + key, value))
            await self._do("MSET", *parts)

    async def delete_many(self, keys: Sequence[str]) -> None:
        if keys:
            await self._do("DEL", *(self._prefix + key for key in keys))


def _refused(error: Refusal) -> Exception:
    """What the server said no to: that it is busy or starts may pass, the rest is the caller's affair."""
    word = str(error).partition(" ")[0]
    if word in ("LOADING", "MASTERDOWN", "READONLY"):
        return Unreachable(f"Redis refuses: {error}")
    if word in ("BUSY", "OOM"):
        return Overloaded(f"Redis refuses: {error}")
    return Refused(str(error))


KIND = Kind(
    name="keyvalue-redis",
    settings=RedisSettings,
    make=RedisKeyValue,
    help="Key-value on a Redis server.",
)
