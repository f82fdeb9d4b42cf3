"""Key-value on a Redis server (or one that speaks its protocol).

Keys are `PREFIX:NAMESPACE:BUCKET:KEY`, values as the guest gave them, so that other programs can read them.
The version of a value for `swap` is a digest of it: what was changed and changed back counts as unchanged.

Error handling: what fails before a command was sent is `unreachable`, what fails afterwards `interrupted`.
Commands are never repeated here, as they may have been done.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import anyio
from redis.asyncio.connection import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from lattice.errors import Failed, Interrupted, Invalid, LatticeError, Overloaded, Unreachable
from lattice.quantities import parse_duration, parse_size
from lattice.settings import setting, text, whole_number
from providers.keyvalue.interface import KeyValueProvider, Refused, Store
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
    return raw


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """Of `keyvalue-redis`."""

    url: str = setting(
        "redis://127.0.0.1:6379", "Server, with user, password and database if need be.", _url, metavar="URL"
    )
    prefix: str = setting("", "First part of all keys; by default `lattice:NAME`.", text, metavar="TEXT")
    max_connections: int = setting(
        32, "Connections at most; more calls wait for one.", whole_number(1, 10_000), metavar="N"
    )
    timeout: float = setting(
        5.0, "How long the server may take for an answer.", parse_duration, metavar="TIME"
    )
    max_value: int = setting(4 * 2**20, "Largest value.", parse_size, metavar="SIZE")


class RedisKeyValue(KeyValueProvider):
    """The mutable state is the connections that nobody uses, the last one used at the end."""

    def __init__(self, context: ProviderContext, settings: RedisSettings) -> None:
        self.max_value_bytes = settings.max_value
        self._prefix = settings.prefix or f"lattice:{context.lattice}"
        self._settings = settings
        self._turns = anyio.Semaphore(settings.max_connections)
        self._pool = ConnectionPool.from_url(
            settings.url,
            max_connections=settings.max_connections,
            socket_timeout=settings.timeout,
            socket_connect_timeout=settings.timeout,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,  # it would be read from disk for each connection
        )
        self._idle: list[Connection] = []
        self._is_closed = False

    async def start(self) -> None:
        await self.check()

    async def check(self) -> None:
        await self.command("PING")

    async def aclose(self) -> None:
        self._is_closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)

    def store(self, namespace: str, bucket: str) -> Store:
        return RedisStore(self, f"{self._prefix}:{namespace}:{quote(bucket, safe='')}:")

    async def command(self, *parts: Any) -> Any:
        """The answer to one command."""
        async with self._connection() as connection:
            try:
                await connection.send_command(*parts)
                return await connection.read_response()
            except ResponseError:
                raise
            except (RedisError, OSError, TimeoutError) as error:
                raise Interrupted(f"Redis did not answer: {error}") from None

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Connection]:
        """One that is open; closed if its answer was not read to the end."""
        async with self._turns:
            connection = await self._opened()
            is_whole = False
            try:
                yield connection
                is_whole = True
            except ResponseError as error:
                is_whole = True
                raise _refused(error) from None
            finally:
                if is_whole and not self._is_closed:
                    self._idle.append(connection)
                else:
                    with anyio.CancelScope(shield=True):
                        await connection.disconnect(nowait=True)

    async def _opened(self) -> Connection:
        """The last one used if the server has not closed it, else a new one."""
        try:
            while self._idle:
                connection = self._idle.pop()
                if await _is_clean(connection):
                    return connection
                await connection.disconnect(nowait=True)
            made: Connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
            await made.connect()  # type: ignore[no-untyped-call]
            return made
        except AuthenticationError as error:
            raise Failed(f"Redis refuses the provider: {error}") from None
        except (RedisError, OSError, TimeoutError) as error:
            raise Unreachable(f"Redis can't be reached: {error}") from None


async def _is_clean(connection: Connection) -> bool:
    try:
        return connection.is_connected and not await connection.can_read()
    except (RedisError, OSError):
        return False


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


def _refused(error: ResponseError) -> Exception:
    """What the server said no to: that it is busy or starts may pass, the rest is the caller's affair."""
    message = str(error)
    busy: Mapping[str, type[LatticeError]] = {"LOADING": Unreachable, "BUSY": Overloaded, "OOM": Overloaded}
    for word, kind in busy.items():
        if message.startswith(word) or type(error).__name__.upper().startswith(word):
            return kind(f"Redis refuses: {message}")
    return Refused(message)


KIND = Kind(
    name="keyvalue-redis",
    settings=RedisSettings,
    make=RedisKeyValue,
    help="Key-value on a Redis server.",
)
