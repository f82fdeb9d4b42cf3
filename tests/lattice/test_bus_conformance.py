"""The memory bus and the NATS bus keep the same promises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from lattice.conformance import CHECKS
from lattice.conformance_setting import Setting
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.nats_bus import NatsBus
from tests.servers import NatsServer

Check = Callable[[Setting], Awaitable[None]]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_memory_bus(check: Check, lattice_name: str) -> None:
    broker = MemoryBroker()
    async with MemoryBus(broker) as one, MemoryBus(broker) as two:
        await check(Setting(one=one, two=two, name=lattice_name))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_nats_bus(check: Check, lattice_name: str, nats_server: NatsServer) -> None:
    settings = nats_server.settings()
    async with NatsBus(settings) as one, NatsBus(settings) as two:
        await check(Setting(one=one, two=two, name=lattice_name))
