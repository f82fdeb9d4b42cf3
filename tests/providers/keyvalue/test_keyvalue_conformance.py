"""Every key-value backend keeps every promise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from lattice.nats_bus import NatsBus
from providers.keyvalue.conformance import CHECKS, Client
from providers.keyvalue.interface import KeyValueProvider
from providers.keyvalue.memory import MemoryKeyValue, MemorySettings
from providers.keyvalue.nats import NatsKeyValue, NatsSettings
from providers.keyvalue.redis import RedisKeyValue, RedisSettings
from providers.registry import ProviderContext

Prepare = Callable[[pytest.FixtureRequest], Any]
Make = Callable[[ProviderContext, Any], KeyValueProvider]

BACKENDS: list[tuple[str, Prepare, Make]] = [
    ("memory", lambda request: None, lambda context, _: MemoryKeyValue(context, MemorySettings())),
    ("nats", lambda request: None, lambda context, _: NatsKeyValue(context, NatsSettings())),
    (
        "redis",
        lambda request: request.getfixturevalue("redis_server"),
        lambda context, server: RedisKeyValue(context, RedisSettings(url=server.url)),
    ),
]


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend[0])
def make(request: pytest.FixtureRequest) -> Callable[[ProviderContext], KeyValueProvider]:
    _, prepare, make = request.param
    server = prepare(request)
    return lambda context: make(context, server)


@pytest.fixture
async def client(
    make: Callable[[ProviderContext], KeyValueProvider], lattice_name: str, nats_bus: NatsBus
) -> AsyncIterator[Client]:
    provider = make(ProviderContext(name="store", lattice=lattice_name, bus=nats_bus))
    await provider.start()
    yield Client(provider, "counter")
    await provider.aclose()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_backend_keeps_the_promise(client: Client, check: Callable[[Client], Awaitable[None]]) -> None:
    await check(client)
