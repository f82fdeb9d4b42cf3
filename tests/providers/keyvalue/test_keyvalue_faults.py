"""What becomes of operations on a key-value store whose server is killed while they are in progress."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from lattice.errors import Interrupted, LatticeError, Unreachable
from lattice.nats_bus import NatsBus
from providers.keyvalue.conformance import Client
from providers.keyvalue.interface import ATOMICS, STORE, KeyValueProvider
from providers.keyvalue.nats import NatsKeyValue, NatsSettings
from providers.keyvalue.redis import RedisKeyValue, RedisSettings
from providers.registry import ProviderContext
from tests.redis_server import RedisServer, require_redis
from tests.servers import NatsServer

pytestmark = pytest.mark.fault

CALLS = 20
PROMPTLY_SECONDS = 3.0
"""What is promised is 0.1 s; the machine of the tests may be busy with other things."""


@dataclass
class Stage:
    """A provider, and the server that it stands before."""

    provider: KeyValueProvider
    server: NatsServer | RedisServer


@pytest.fixture(params=["nats", "redis"])
async def stage(
    request: pytest.FixtureRequest, make_nats_server: Callable[..., NatsServer], tmp_path: Path
) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        if request.param == "nats":
            streams = {"sync_interval": "always", "store_dir": str(tmp_path / "streams")}
            server = make_nats_server(jetstream=streams)
            bus = await stack.enter_async_context(NatsBus(server.settings()))
            context = ProviderContext(name="store", lattice="test", bus=bus)
            yield Stage(NatsKeyValue(context, NatsSettings()), server)
            return
        require_redis()
        redis = RedisServer(tmp_path)
        await anyio.to_thread.run_sync(redis.start)
        stack.callback(redis.kill)
        context = ProviderContext(name="store", lattice="test", bus=None)  # type: ignore[arg-type]
        provider = RedisKeyValue(context, RedisSettings(url=redis.url))
        stack.push_async_callback(provider.aclose)
        yield Stage(provider, redis)


async def test_operations_in_progress_end_at_once_and_later_ones_count_on(stage: Stage) -> None:
    client = Client(stage.provider, "counter")
    confirmed = await client.ok(ATOMICS, "increment", "count", 1)
    await client.ok(STORE, "set", "kept", b"value")
    ends: list[tuple[float, Any]] = []

    async def increment() -> None:
        try:
            outcome: Any = await client.ok(ATOMICS, "increment", "count", 1)
        except LatticeError as error:
            outcome = error
        ends.append((time.monotonic(), outcome))

    await anyio.to_thread.run_sync(stage.server.suspend)  # so that they surely are in progress
    async with anyio.create_task_group() as tasks:
        for _ in range(CALLS):
            tasks.start_soon(increment)
        await anyio.wait_all_tasks_blocked()
        assert ends == []
        await anyio.to_thread.run_sync(stage.server.kill)
        killed = time.monotonic()

    assert max(at for at, _ in ends) - killed < PROMPTLY_SECONDS
    assert {type(outcome) for _, outcome in ends} <= {Interrupted, Unreachable}
    await anyio.to_thread.run_sync(stage.server.start)
    total = await until_done(lambda: client.ok(ATOMICS, "increment", "count", 1))
    assert total > confirmed
    assert await client.ok(STORE, "get", "kept") == b"value"


ATTEMPTS = 1000


async def until_done(operation: Callable[[], Awaitable[Any]]) -> Any:
    """The value, as soon as there is one again."""
    with anyio.fail_after(20):
        for _ in range(ATTEMPTS):
            try:
                return await operation()
            except LatticeError:
                await anyio.sleep(0.05)
    raise AssertionError("the store did not come back")
