"""One connection to a Redis server, shared by all calls: commands go as they come, answers come in order.

A connection of redis-py serves one command at a time, and taking turns on many of them costs as much as the
commands themselves. What redis-py does well, reading URLs, is left to it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast

from redis.asyncio.connection import SSLConnection, parse_url

from lattice.errors import Interrupted, Unreachable
from providers.keyvalue.redis_tls import tls_context

CRLF = b"\r\n"
MAX_NESTING = 8


class Refusal(Exception):
    """An answer of the server that says no; its first word is the kind."""


class _Incomplete(Exception):
    """Raised while more bytes have to come."""


def encode(parts: tuple[Any, ...]) -> bytes:
    """A command of bytes, text and numbers, as it is sent."""
    pieces = [b"*%d\r\n" % len(parts)]
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        pieces += (b"$%d\r\n" % len(data), data, CRLF)
    return b"".join(pieces)


def parse(data: bytes | bytearray, start: int, nesting: int = 0) -> tuple[Any, int]:
    """The answer that begins there, and where the next one does. Raises `_Incomplete`, or `ValueError`."""
    end = data.find(CRLF, start)
    if end < 0:
        raise _Incomplete
    kind, line, after = data[start], bytes(data[start + 1 : end]), end + 2
    if kind == 0x24:  # $
        length = int(line)
        if length < 0:
            return None, after
        if len(data) < after + length + 2:
            raise _Incomplete
        return bytes(data[after : after + length]), after + length + 2
    if kind == 0x3A:  # :
        return int(line), after
    if kind == 0x2B:  # +
        return line, after
    if kind == 0x2D:  # -
        return Refusal(line.decode("utf-8", "replace")), after
    if kind != 0x2A or nesting > MAX_NESTING:  # *
        raise ValueError(f"{bytes(data[start : start + 20])!r} is no answer of Redis")
    items = []
    for _ in range(int(line)):
        item, after = parse(data, after, nesting + 1)
        items.append(item)
    return items, after


class RedisConnection(asyncio.Protocol):
    """The mutable state is the commands that wait for their answers, and bytes of an incomplete one."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._rest = bytearray()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def is_open(self) -> bool:
        """Whether commands can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, *parts: Any) -> asyncio.Future[Any]:
        """Send a command; its answer raises `Refusal`, or `Interrupted` if the connection ends before it."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._transport is None:
            future.set_exception(Unreachable("Redis: the connection is closed"))
            return future
        self._waiting.append(future)
        self._transport.write(encode(parts))
        return future

    def close(self) -> None:
        """End it; what waits is `Interrupted`."""
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        whole: bytes | bytearray = data
        if self._rest:
            self._rest += data
            whole = self._rest
        position = 0
        try:
            while position < len(whole):
                answer, position = parse(whole, position)
                self._settle(answer)
        except _Incomplete:
            pass
        except ValueError:
            self.close()
            return
        self._rest = bytearray(whole[position:]) if position < len(whole) else bytearray()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                reason = f": {error}" if error else ""
                future.set_exception(Interrupted(f"Redis closed the connection{reason}"))

    def _settle(self, answer: Any) -> None:
        future = self._waiting.popleft()
        if future.done():
            return  # the caller has given up
        if isinstance(answer, Refusal):
            future.set_exception(answer)
        else:
            future.set_result(answer)


async def connect(url: str, seconds: float) -> RedisConnection:
    """A connection that has logged in and chosen its database.

    Raises `OSError`, `TimeoutError` or `ValueError` where there is none, `Refusal` for the server's no.
    """
    asked: dict[str, Any] = dict(parse_url(url))
    connection: RedisConnection | None = None
    try:
        async with asyncio.timeout(seconds):
            connection = await _opened(asked)
            if asked.get("password") is not None:
                user = (asked["username"],) if asked.get("username") else ()
                await connection.send("AUTH", *user, asked["password"])
            if asked.get("db"):
                await connection.send("SELECT", asked["db"])
            return connection
    except BaseException:
        if connection is not None:
            connection.close()
        raise


async def _opened(asked: dict[str, Any]) -> RedisConnection:
    loop = asyncio.get_running_loop()
    if "path" in asked:
        _, opened = await loop.create_unix_connection(RedisConnection, asked["path"])
        return opened
    is_tls = asked.get("connection_class") is SSLConnection
    host, port = asked.get("host", "localhost"), asked.get("port", 6379)
    context = await loop.run_in_executor(None, tls_context, asked) if is_tls else None
    _, opened = await loop.create_connection(RedisConnection, host, port, ssl=context)
    return opened
