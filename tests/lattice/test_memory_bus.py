"""What the memory bus can be made to do beyond the promises that every bus keeps."""

from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint

from lattice.bus import Disconnect, Entry
from lattice.conformance_setting import Inbox, Watched, refused
from lattice.errors import Interrupted, Unreachable
from lattice.memory_bus import MemoryBroker, MemoryBus


async def test_a_lost_connection_ends_requests_and_is_announced() -> None:
    broker = MemoryBroker()
    bus, other = MemoryBus(broker), MemoryBus(broker)
    gone: list[Disconnect] = []
    changes: list[bool] = []
    assert await other.watch_disconnects(gone.append)
    bus.on_connection_change(changes.append)
    await other.subscribe("mute", Inbox())
    before = Disconnect(bus.server_id, bus.client_id)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(refused, Interrupted, bus.request("mute", timeout_seconds=5))
        await checkpoint()
        bus.disconnect()
    await refused(Unreachable, bus.publish("x"))
    bus.reconnect()
    await other.flush()

    assert gone == [before]
    assert changes == [False, True]
    assert bus.client_id != before.client_id


async def test_a_watch_starts_over_after_a_reconnect() -> None:
    broker = MemoryBroker()
    bus, other = MemoryBus(broker), MemoryBus(broker)
    store, watched = await bus.key_value("b"), Watched()
    await store.put("key", b"1")
    await store.watch(watched, on_restart=watched.restarts.append)
    await watched.wait_until(lambda entries: len(entries) == 2)

    bus.disconnect()
    await (await other.key_value("b")).put("key", b"2")
    bus.reconnect()

    entries = await watched.wait_until(lambda entries: len(entries) == 4)
    assert entries == [Entry("key", b"1", 1), None, Entry("key", b"2", 2), None]
    assert watched.restarts == [False]


async def test_lost_data_are_reported_and_the_bucket_is_made_anew() -> None:
    broker = MemoryBroker()
    bus = MemoryBus(broker)
    store, watched = await bus.key_value("b"), Watched()
    await store.put("key", b"1")
    await store.watch(watched, on_restart=watched.restarts.append)
    await watched.wait_until(lambda entries: len(entries) == 2)

    broker.lose_data()

    await watched.wait_until(lambda entries: len(entries) == 3)
    assert watched.restarts == [True]
    assert await store.entries() == []
    assert await store.create("key", b"2") == 1
    assert (await watched.wait_until(lambda entries: len(entries) == 4))[-1] == Entry("key", b"2", 1)


async def test_values_grow_too_old_by_the_brokers_clock() -> None:
    now = [0.0]
    bus = MemoryBus(MemoryBroker(clock=lambda: now[0]))
    store, watched = await bus.key_value("b", ttl_seconds=2.0), Watched()
    await store.put("key", b"1")
    await store.watch(watched)

    now[0] = 1.9
    assert await store.get("key") is not None
    now[0] = 2.0
    assert await store.get("key") is None

    entries = await watched.wait_until(lambda entries: len(entries) == 3)
    assert entries[-1] == Entry("key", None, 2)


async def test_a_store_that_is_away_is_unreachable() -> None:
    broker = MemoryBroker()
    bus = MemoryBus(broker)
    store, objects = await bus.key_value("b"), await bus.object_store("o")

    broker.is_store_available = False

    await refused(Unreachable, store.get("key"))
    await refused(Unreachable, objects.names())
    await refused(Unreachable, bus.key_value("other"))
