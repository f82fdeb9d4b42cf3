"""The protocol of Redis, in whatever pieces it comes; and a server that goes away."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.errors import Failed, Interrupted, Unreachable
from providers.keyvalue.redis import RedisKeyValue, RedisSettings
from providers.keyvalue.redis_connection import RedisConnection, Refusal, connect, encode, parse
from providers.registry import ProviderContext
from tests.redis_server import RedisServer

ANSWERS = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=50),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=10,
)


def answer(value: Any) -> bytes:
    """As a server writes it."""
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    return b"*%d\r\n" % len(value) + b"".join(answer(item) for item in value)


def test_command_is_written_as_the_server_reads_it() -> None:
    assert encode(("SET", "ä", b"\r\n", 7)) == (
        b"*4\r\n$3\r\nSET\r\n$2\r\n\xc3\xa4\r\n$2\r\n\r\n\r\n$1\r\n7\r\n"
    )


@given(value=ANSWERS)
def test_answer_is_read_back(value: Any) -> None:
    data = b"rest" + answer(value) + b"more"

    assert parse(data, 4) == (value, len(data) - 4)


@given(values=st.lists(ANSWERS, max_size=5), sizes=st.lists(st.integers(1, 20), min_size=1, max_size=20))
def test_answers_are_the_same_in_any_pieces(values: list[Any], sizes: list[int]) -> None:
    async def read() -> list[Any]:
        connection = RedisConnection()
        connection.connection_made(_Transport())
        futures = [connection.send("GET", str(number)) for number in range(len(values))]
        data, turn = b"".join(map(answer, values)), 0
        while data:
            size = sizes[turn % len(sizes)]
            connection.data_received(data[:size])
            data, turn = data[size:], turn + 1
        return [future.result() for future in futures]

    assert asyncio.run(read()) == values


@pytest.mark.parametrize("data", [b"?\r\n", b"$x\r\n", b"*1\r\n" * 20 + b":1\r\n"])
async def test_what_is_no_answer_ends_the_connection(data: bytes) -> None:
    transport = _Transport()
    connection = RedisConnection()
    connection.connection_made(transport)

    connection.data_received(data)

    assert transport.is_aborted


async def test_commands_in_progress_are_interrupted_and_later_ones_unreachable_when_the_server_dies(
    own_redis_server: RedisServer,
) -> None:
    settings = RedisSettings(url=own_redis_server.url)
    provider = RedisKeyValue(ProviderContext(name="a", lattice="a", bus=None), settings)  # type: ignore[arg-type]
    await provider.start()
    ended: list[Exception] = []

    async def wait_for_ever() -> None:
        try:
            await provider.command("BLPOP", "never", 0)
        except Interrupted as error:
            ended.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait_for_ever)
        await provider.command("PING")
        await anyio.to_thread.run_sync(own_redis_server.kill)
    assert len(ended) == 1
    with pytest.raises(Unreachable):
        await provider.check()
    await anyio.to_thread.run_sync(own_redis_server.start)
    await provider.check()
    await provider.aclose()


async def test_wrong_password_is_refused(own_redis_server: RedisServer) -> None:
    with pytest.raises(Refusal, match="AUTH"):
        await connect(own_redis_server.url.replace("//", "//:wrong@"), 5)


class _Transport(asyncio.Transport):
    is_aborted = False

    def write(self, data: Any) -> None:
        pass

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


async def test_a_server_that_wants_a_password_is_told_of_by_the_check(own_redis_server: RedisServer) -> None:
    context = ProviderContext(name="store", lattice="default", bus=None)  # type: ignore[arg-type]
    operator, provider = (RedisKeyValue(context, RedisSettings(url=own_redis_server.url)) for _ in range(2))
    await operator.command("CONFIG", "SET", "requirepass", "secret")

    with pytest.raises(Failed, match="Redis refuses the provider: NOAUTH"):
        await provider.start()

    await operator.aclose()
    await provider.aclose()
