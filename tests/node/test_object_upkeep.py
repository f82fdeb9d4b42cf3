"""What no object names goes once it has stood still for long; nothing else does."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping

import anyio
import pytest

from lattice.bus import ObjectStore
from lattice.nats_bus import NatsBus
from lattice.subjects import artifacts_bucket, blobs_prefix
from node.object_upkeep import Abandoned, ObjectUpkeep, SeenStore
from providers.blobstore.nats import NatsStore
from tests.servers import NatsServer

PIECE = os.urandom(600_000)


def test_what_stands_still_for_long_is_abandoned() -> None:
    abandoned = Abandoned(seconds=60)

    assert abandoned.look({"a": 1, "b": 1}, 0) == []
    assert abandoned.look({"a": 1, "b": 2}, 59) == []
    assert abandoned.look({"a": 1, "b": 2}, 60) == ["a"]
    assert abandoned.look({"b": 2}, 119) == ["b"]


def test_what_has_got_its_name_meanwhile_begins_anew() -> None:
    abandoned = Abandoned(seconds=60)
    abandoned.look({"a": 1}, 0)
    abandoned.look({}, 30)

    assert abandoned.look({"a": 1}, 61) == []


async def left_behind(bus: NatsBus, name: str) -> ObjectStore:
    """A store with an object, and chunks that a writer sent before it was lost."""
    store = await bus.object_store(name)
    await store.put("kept", PIECE)
    await bus.publish_stored(f"$O.{name}.C.lost", PIECE, timeout_seconds=5)
    return store


@pytest.mark.slow
async def test_the_leader_purges_what_lost_writers_left_in_the_lattices_stores(
    nats_server: NatsServer, nats_bus: NatsBus, lattice_name: str
) -> None:
    await NatsStore(nats_bus, lattice_name).bucket("b").create("c")
    ours = [
        await left_behind(nats_bus, name)
        for name in (f"{blobs_prefix(lattice_name)}b_c", artifacts_bucket(lattice_name))
    ]
    others = await left_behind(nats_bus, f"OTHER_{lattice_name}")
    release = anyio.Event()

    async def going_on() -> AsyncIterator[bytes]:
        while not release.is_set():
            yield PIECE
            await anyio.sleep(0.05)

    async with NatsBus(nats_server.settings()) as bus, anyio.create_task_group() as tasks:
        upkeep = ObjectUpkeep(
            bus, lattice_name, is_leading=lambda: True, look_seconds=0.1, abandoned_seconds=2.5
        )
        tasks.start_soon(upkeep.run)
        tasks.start_soon(ours[0].write, "large", going_on())
        with anyio.fail_after(10):
            while any(["lost" in await store.unnamed() for store in ours]):  # noqa: ASYNC110 - as below
                await anyio.sleep(0.02)
        release.set()
        with anyio.fail_after(10):
            while await ours[0].info("large") is None:  # noqa: ASYNC110 - the server tells nobody
                await anyio.sleep(0.02)
        tasks.cancel_scope.cancel()

    assert [await store.get("kept") for store in (*ours, others)] == [PIECE] * 3
    assert set(await ours[0].get("large")) == set(PIECE)
    assert await others.unnamed() == {"lost": 1}


class Lagging:
    """A store as a copy of it sees it that lacks the last description, unless the leader itself is asked."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.bucket = store.bucket

    async def mark(self) -> str:
        return await self._store.mark()

    async def unnamed(self, *, exactly: bool = False) -> Mapping[str, int]:
        return (
            await self._store.unnamed(exactly=True) if exactly else {**await self._store.unnamed(), "new": 1}
        )

    async def purge(self, version: str) -> None:
        assert version == "lost"
        await self._store.purge(version)


async def test_what_a_lagging_copy_does_not_know_yet_is_not_purged(
    nats_bus: NatsBus, lattice_name: str
) -> None:
    store = Lagging(await left_behind(nats_bus, lattice_name))

    await SeenStore(Abandoned(seconds=0)).purge(store)  # type: ignore[arg-type]  # it needs no more

    assert await store.unnamed(exactly=True) == {}


@pytest.mark.slow
async def test_who_does_not_lead_purges_nothing(nats_bus: NatsBus, lattice_name: str) -> None:
    store = await left_behind(nats_bus, artifacts_bucket(lattice_name))
    upkeep = ObjectUpkeep(
        nats_bus, lattice_name, is_leading=lambda: False, look_seconds=0.02, abandoned_seconds=0.0
    )

    with anyio.move_on_after(0.3):
        await upkeep.run()

    assert await store.unnamed() == {"lost": 1}
