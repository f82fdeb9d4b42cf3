"""The faulty bus spoils as it is told, the same way for the same seed, and is a good bus without faults."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from lattice.bus import Entry, Message
from lattice.conformance import CHECKS
from lattice.conformance_setting import Inbox, Setting, Watched, refused
from lattice.errors import Interrupted, TimedOut, Unreachable
from lattice.faulty_bus import Faults, FaultyBus
from lattice.memory_bus import MemoryBroker, MemoryBus

Check = Callable[[Setting], Awaitable[None]]


def _bus(faults: Faults, seed: int = 1, broker: MemoryBroker | None = None) -> FaultyBus:
    return FaultyBus(MemoryBus(broker or MemoryBroker()), faults, seed=seed)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_without_faults_it_keeps_all_promises(check: Check, lattice_name: str) -> None:
    broker = MemoryBroker()
    one, two = _bus(Faults(), broker=broker), _bus(Faults(), broker=broker)
    await check(Setting(one=one, two=two, name=lattice_name))


async def _received(seed: int) -> list[bytes]:
    bus = _bus(Faults(drop=0.2, duplicate=0.2, delay=0.5, longest_delay_seconds=0.01), seed)
    inbox = Inbox()
    await bus.subscribe("x", inbox)
    for number in range(50):
        await bus.publish("x", bytes([number]))
    await anyio.sleep(0.05)
    return [message.data for message in inbox.messages]


async def test_messages_are_lost_doubled_and_reordered_by_the_seed() -> None:
    first, other = await _received(1), await _received(2)

    assert sorted(first) != sorted(other)
    assert first != sorted(first)
    assert len(set(first)) < 50
    assert len(first) > len(set(first))
    assert sorted(await _received(1)) == sorted(first)


async def test_a_lost_answer_times_out_after_the_call_was_made() -> None:
    inner = MemoryBus(MemoryBroker())
    bus = FaultyBus(inner, Faults(drop=1.0), seed=1)
    calls: list[Message] = []

    def answer(message: Message) -> None:
        calls.append(message)
        inner.publish_nowait(message.reply or "")

    await inner.subscribe("x", answer)

    await refused(TimedOut, bus.request("x", timeout_seconds=0.01))
    assert len(calls) == 1


async def test_store_operations_fail_before_or_after_they_are_done() -> None:
    store = await _bus(Faults()).key_value("b")
    assert await store.put("key", b"") == 1
    broker = MemoryBroker()
    good = await _bus(Faults(), broker=broker).key_value("b")
    late = _bus(Faults(store_timeout=1.0), broker=broker)
    early = _bus(Faults(store_unreachable=1.0), broker=broker)

    await refused(TimedOut, late.key_value("b"))
    await refused(TimedOut, late.spoil(lambda: good.put("done", b"")))
    await refused(Unreachable, early.spoil(lambda: good.put("undone", b"")))

    assert [entry.key for entry in await good.entries()] == ["done"]


async def test_a_cut_ends_requests_and_leaves_a_gap_that_a_new_replay_fills() -> None:
    broker = MemoryBroker()
    bus, other = _bus(Faults(), broker=broker), MemoryBus(broker)
    changes: list[bool] = []
    bus.on_connection_change(changes.append)
    inbox, watched, restarts = Inbox(), Watched(), list[bool]()
    await bus.subscribe("x", inbox)
    await other.subscribe("mute", Inbox())
    store = await bus.key_value("b")
    await store.watch(watched, on_restart=restarts.append)
    await watched.wait_until(lambda entries: entries == [None])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(refused, Interrupted, bus.request("mute", timeout_seconds=5))
        await checkpoint()
        bus.disconnect()
    await refused(Unreachable, bus.publish("x"))
    await refused(Unreachable, store.get("key"))
    await (await other.key_value("b")).put("key", b"1")
    await other.publish("x", b"lost")
    await other.flush()
    await bus.reconnect()
    await other.publish("x", b"found")

    assert [message.data for message in await inbox.wait_for(1)] == [b"found"]
    assert await watched.wait_until(lambda entries: len(entries) == 3) == [None, Entry("key", b"1", 1), None]
    assert changes == [False, True]
    assert restarts == [False]
