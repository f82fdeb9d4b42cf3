import asyncio
import time
from collections.abc import Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from node.capabilities.wasi.pollables import Always, Deadline, Disarm, Pollable, Signal, Source, wait_any


class Door:
    """A source that the test opens."""

    def __init__(self) -> None:
        self.is_open = False
        self.armed = 0
        self._signal = Signal()

    def is_ready(self) -> bool:
        return self.is_open

    def arm(self, wake: Callable[[], None]) -> Disarm:
        self.armed += 1
        disarm = self._signal.arm(wake)

        def leave() -> None:
            self.armed -= 1
            disarm()

        return leave

    def open(self) -> None:
        self.is_open = True
        self._signal.notify()

    def rattle(self) -> None:
        self._signal.notify()


async def test_all_ready_sources_are_reported_and_nothing_is_armed() -> None:
    door = Door()

    ready = await wait_any([Always(), door, Always()])

    assert ready == [0, 2]
    assert door.armed == 0


async def test_a_wait_ends_with_the_first_that_becomes_ready_and_leaves_none_armed() -> None:
    doors = [Door(), Door(), Door()]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_open_when_armed, doors[1])
        ready = await wait_any(doors)

    assert ready == [1]
    assert [door.armed for door in doors] == [0, 0, 0]


async def test_a_false_alarm_does_not_end_a_wait() -> None:
    door = Door()
    results: list[list[int]] = []

    async def wait() -> None:
        results.append(await wait_any([door]))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        door.rattle()
        await anyio.wait_all_tasks_blocked()
        seen_after_rattle = list(results)
        door.open()

    assert seen_after_rattle == []
    assert results == [[0]]


async def test_a_cancelled_wait_leaves_nothing_armed() -> None:
    door = Door()
    sources: list[Source] = [door, Deadline(time.monotonic_ns() + 10**12, time.monotonic_ns)]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait_any, sources)
        await anyio.wait_all_tasks_blocked()
        armed = door.armed
        tasks.cancel_scope.cancel()

    assert armed == 1
    assert door.armed == 0


async def test_several_calls_may_wait_for_one_source() -> None:
    door = Door()
    results: list[list[int]] = []

    async def wait() -> None:
        results.append(await wait_any([door]))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        door.open()

    assert results == [[0], [0], [0]]


async def test_a_deadline_waits_its_time_and_not_less() -> None:
    begun = time.monotonic_ns()

    await Pollable(Deadline(begun + 20_000_000, time.monotonic_ns)).block()

    assert 20_000_000 <= time.monotonic_ns() - begun < 500_000_000


async def test_a_deadline_follows_its_own_clock_and_not_the_loops() -> None:
    clock = [0]
    deadline = Deadline(5_000_000, lambda: clock[0])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Pollable(deadline).block)
        await anyio.wait_all_tasks_blocked()
        early = deadline.is_ready()
        clock[0] = 5_000_000

    assert not early
    assert deadline.is_ready()


@pytest.mark.parametrize("when", [0, 1])
async def test_a_deadline_in_the_past_is_ready_at_once(when: int) -> None:
    assert await wait_any([Deadline(when, lambda: 1)]) == [0]


async def test_the_farthest_deadline_of_the_interface_can_be_armed() -> None:
    wake = asyncio.Event()

    disarm = Deadline(2**64 - 1 + 2**64, time.monotonic_ns).arm(wake.set)
    await checkpoint()
    disarm()

    assert not wake.is_set()


async def _open_when_armed(door: Door) -> None:
    await anyio.wait_all_tasks_blocked()
    door.open()
