"""A cluster of three servers: buckets have three copies, and the loss of one server loses nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from lattice.conformance_setting import Setting, Watched
from lattice.conformance_stores import (
    a_queue_is_found_by_its_owner_alone,
    a_retired_queue_ends_once_nobody_takes_from_it,
    a_retired_queue_that_is_opened_again_stays_as_it_was,
)
from lattice.connection import ConnectionSettings, Credentials
from lattice.errors import Interrupted, TimedOut, Unreachable
from lattice.nats_bus import NatsBus
from tests.ports import own_port
from tests.servers import NatsServer

WAIT_SECONDS = 30.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[NatsServer]]:
    """Three servers that know each other."""
    ports = [own_port() for _ in range(3)]
    routes = [f"nats://127.0.0.1:{port}" for port in ports]
    servers = [
        NatsServer(
            tmp_path / str(port), cluster={"name": "test", "listen": f"127.0.0.1:{port}", "routes": routes}
        )
        for port in ports
    ]
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.kill()


@pytest.mark.fault
@pytest.mark.slow
async def test_the_loss_of_one_server_loses_nothing(cluster: list[NatsServer]) -> None:
    settings = ConnectionSettings(
        urls=(cluster[0].url,), credentials=Credentials(user="app", password="app"), connect_seconds=5
    )
    async with NatsBus(settings) as bus:
        await _until_ready(bus)
        store, watched = await bus.key_value("b"), Watched()
        await store.put("key", b"1")
        objects = await bus.object_store("o")
        await objects.put("object", bytes(2_000_000))
        await store.watch(watched)
        await watched.wait_until(lambda entries: len(entries) == 2)
        reply = await bus.request("$JS.API.STREAM.INFO.KV_b", timeout_seconds=5)
        assert json.loads(reply.data)["config"]["num_replicas"] == 3

        cluster[0].kill()  # the only server that we were told of; the others were learnt

        await _until_written(bus, "key", b"2")
        await watched.wait_until(
            lambda entries: any(entry and entry.value == b"2" for entry in entries), seconds=WAIT_SECONDS
        )
        assert await _when_read(bus, "object") == bytes(2_000_000)


@pytest.mark.fault
@pytest.mark.slow
async def test_queues_of_three_copies_are_retired_and_objects_of_three_tell_what_they_lack(
    cluster: list[NatsServer],
) -> None:
    settings = [
        ConnectionSettings(
            urls=(server.url,), credentials=Credentials(user="app", password="app"), connect_seconds=5
        )
        for server in cluster[:2]
    ]
    async with NatsBus(settings[0]) as one, NatsBus(settings[1]) as two:
        await _until_ready(one)
        for check in (
            a_queue_is_found_by_its_owner_alone,
            a_retired_queue_ends_once_nobody_takes_from_it,
            a_retired_queue_that_is_opened_again_stays_as_it_was,
        ):
            await check(Setting(one=one, two=two, name=check.__name__))
        objects = await two.object_store("o")
        for size in (700_000, 900_000):
            await objects.put("object", bytes(size))

        assert len(await objects.unnamed(exactly=True)) == 1
        assert await two.object_stores("") == ["o"]


async def _until_ready(bus: NatsBus) -> None:
    """A cluster that has just been started has no leader yet."""
    with anyio.fail_after(WAIT_SECONDS):
        while True:
            try:
                await bus.key_value("ready")
                return
            except (Unreachable, TimedOut):
                await anyio.sleep(0.1)


async def _until_written(bus: NatsBus, key: str, value: bytes) -> None:
    with anyio.fail_after(WAIT_SECONDS):
        while True:
            try:
                await (await bus.key_value("b")).put(key, value)
                return
            except (Unreachable, TimedOut, Interrupted):
                await anyio.sleep(0.1)


async def _when_read(bus: NatsBus, name: str) -> bytes:
    """Each bucket is a group of its own: that one has a leader again says nothing of another."""
    with anyio.fail_after(WAIT_SECONDS):
        while True:
            try:
                return await (await bus.object_store("o")).get(name)
            except (Unreachable, TimedOut, Interrupted):
                await anyio.sleep(0.1)
