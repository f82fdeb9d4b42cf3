"""Channels: what is added is taken in order, whoever waits is woken, and they may go in any order."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from lattice.pouring import Loan
from node.capabilities.http.outgoing_body import BodyPipe
from node.engine.byte_store import Chunks
from node.engine.channels import Channel, Doorbell
from node.engine.store import DRIVER
from tests.waiting import until

WINDOW = 4096

pytestmark = pytest.mark.skipif(DRIVER is None, reason="channels are the native helper's")


@pytest.fixture
async def bell() -> AsyncIterator[Doorbell]:
    assert DRIVER is not None
    bell = Doorbell(DRIVER, asyncio.get_running_loop())
    yield bell
    bell.close()


@pytest.mark.parametrize("is_native", [True, False])
async def test_what_is_added_is_taken_in_order(bell: Doorbell, is_native: bool) -> None:
    store = Channel(bell, WINDOW) if is_native else Chunks()
    parts = [bytes([index]) * (index * 37) for index in range(1, 200)]
    taken = b""

    for part in parts:
        store.add(part)
    assert store.size == sum(map(len, parts))
    while part := store.take(1000):
        taken += part

    assert taken == b"".join(parts)
    assert store.size == 0


async def test_what_is_dropped_is_gone(bell: Doorbell) -> None:
    channel = Channel(bell, WINDOW)
    channel.add(b"x" * 10_000)

    channel.clear()

    assert (channel.size, channel.take(10)) == (0, b"")


async def test_who_would_wait_for_what_is_there_is_told_at_once(bell: Doorbell) -> None:
    channel = Channel(bell, WINDOW)

    assert channel.await_room(lambda: None)
    assert not channel.await_data(lambda: None)
    channel.add(b"x" * WINDOW)
    assert channel.await_data(lambda: None)
    assert not channel.await_room(lambda: None)


async def test_a_bell_and_its_channels_may_go_in_any_order() -> None:
    assert DRIVER is not None
    bell = Doorbell(DRIVER, asyncio.get_running_loop())
    channels = [Channel(bell, WINDOW) for _ in range(3)]
    channels[0].await_data(lambda: None)

    bell.close()
    bell.__del__()
    bell.driver = type("Done", (), {"free_bell": lambda self, address: None})()  # once only
    del channels
    gc.collect()
    await anyio.lowlevel.checkpoint()


class Waiter:
    """Somebody who has a channel and waits for it, as the receiver of a body does."""

    def __init__(self, bell: Doorbell) -> None:
        self.channel = Channel(bell, WINDOW)
        self.woken = 0
        self.channel.await_data(self.wake)

    def wake(self) -> None:
        self.woken += 1


async def test_a_bell_keeps_nobody_alive_who_waits(bell: Doorbell) -> None:
    gone = weakref.ref(Waiter(bell))

    gc.collect()

    assert gone() is None
    assert len(bell.waiting) == 0


async def test_a_received_body_is_freed_at_once_with_its_channel(bell: Doorbell) -> None:
    pipe = BodyPipe(store=Channel(bell, WINDOW))
    gone = weakref.ref(pipe)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pipe.receive)
        await anyio.wait_all_tasks_blocked()
        pipe.write(b"x")
    del pipe

    assert gone() is None
    assert len(bell.waiting) == 0


class NoLender:
    """Somebody who has a socket, and keeps it."""

    left = 0

    def lend(self, recall: Callable[[], None]) -> Loan | None:
        return None

    def give_back(self, moved: int, rest: bytes) -> None:
        raise AssertionError("it was never lent")


async def test_a_body_that_was_sent_is_freed_at_once_and_keeps_no_connection(bell: Doorbell) -> None:
    pipe, lender = BodyPipe(store=Channel(bell, WINDOW)), NoLender()
    gone = weakref.ref(pipe), weakref.ref(lender)

    pipe.borrow_from(lender)  # by then the guest may have ended, and parted from its channels
    pipe.finish()
    await pipe.aclose()
    del lender

    assert gone[1]() is None
    del pipe
    assert gone[0]() is None


async def test_who_fails_when_woken_keeps_no_other_asleep(bell: Doorbell) -> None:
    assert DRIVER is not None
    errors: list[dict[str, Any]] = []

    def fail() -> None:
        raise KeyError("nothing")

    asyncio.get_running_loop().set_exception_handler(lambda _, told: errors.append(told))
    failing, other = Channel(bell, WINDOW), Channel(bell, WINDOW)
    woken: list[str] = []
    other.await_data(lambda: woken.append("other"))
    failing.await_data(fail)

    for channel in (other, failing):  # the last one is told of first
        cells = DRIVER.new_cells()
        DRIVER.join(cells, channel.address, 0, False)
        channel.add(b"x")
        DRIVER.tell(cells)
    await until(lambda: bool(woken))

    assert woken == ["other"]
    assert isinstance(errors[0]["exception"], KeyError)
