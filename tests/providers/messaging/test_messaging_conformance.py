"""Messaging keeps its promises on every bus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from lattice.errors import Invalid
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.nats_bus import NatsBus
from providers.messaging import MessagingNats, PublishGrant
from providers.messaging.conformance import CHECKS, Setting

Check = Callable[[Setting], Awaitable[None]]
every_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


@every_check
async def test_memory(check: Check, lattice_name: str) -> None:
    broker = MemoryBroker()
    async with MemoryBus(broker) as one, MemoryBus(broker) as two:
        await check(Setting(provider=MessagingNats(one), bus=two, name=lattice_name))


@every_check
async def test_nats(check: Check, nats_bus: NatsBus, lattice_name: str) -> None:
    await check(Setting(provider=MessagingNats(nats_bus), bus=nats_bus, name=lattice_name))


@pytest.mark.parametrize(
    ("configuration", "named"),
    [
        ({"publishes": "a"}, "did you mean `publish`"),
        ({"url": "nats://elsewhere"}, "`url`"),
        ({"stored": "maybe"}, "`stored`"),
        ({"publish": "a b"}, "`publish`"),
    ],
)
def test_a_bad_configuration_is_invalid_and_named(configuration: dict[str, str], named: str) -> None:
    with pytest.raises(Invalid, match=named):
        PublishGrant.parse(configuration)
