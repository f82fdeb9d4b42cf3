"""Slots and the queue before them."""

from __future__ import annotations

import anyio
import pytest

from lattice.errors import Overloaded
from node.engine.permits import Permits


def permits(slots: int = 1, length: int = 10, seconds: float = 10) -> Permits:
    return Permits(slots, queue_length=length, queue_seconds=seconds)


def soon() -> float:
    return anyio.current_time() + 10


async def test_waiters_are_served_in_order() -> None:
    queue = permits()
    await queue.acquire(soon())
    order: list[int] = []

    async def wait(number: int) -> None:
        await queue.acquire(soon())
        order.append(number)
        queue.release()

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(wait, number)
            await anyio.wait_all_tasks_blocked()
        queue.release()

    assert order == [0, 1, 2, 3, 4]
    assert queue.in_use == 0


async def test_newcomer_does_not_overtake_those_who_wait() -> None:
    queue = permits()
    await queue.acquire(soon())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.acquire, soon())
        await anyio.wait_all_tasks_blocked()
        queue.release()
        assert not queue.acquire_nowait()


async def test_deadline_bounds_the_wait() -> None:
    queue = permits()
    await queue.acquire(soon())

    with pytest.raises(Overloaded), anyio.fail_after(5):
        await queue.acquire(anyio.current_time() + 0.01)
    assert queue.queued == 0


async def test_permit_given_to_a_cancelled_waiter_goes_to_the_next() -> None:
    queue = permits()
    await queue.acquire(soon())
    scope = anyio.CancelScope()
    served = anyio.Event()

    async def cancelled() -> None:
        with scope:
            await queue.acquire(soon())
            queue.release()  # the cancellation came too late

    async def next_one() -> None:
        await queue.acquire(soon())
        served.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancelled)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(next_one)
        await anyio.wait_all_tasks_blocked()
        queue.release()
        scope.cancel()
        with anyio.fail_after(5):
            await served.wait()

    assert queue.in_use == 1


async def test_fewer_slots_take_effect_as_calls_end() -> None:
    queue = permits(slots=3)
    for _ in range(3):
        await queue.acquire(soon())

    queue.resize(1)
    queue.release()
    queue.release()
    assert not queue.acquire_nowait()

    queue.release()
    assert queue.acquire_nowait()


async def test_idle_is_awaited_until_the_last_waiter_has_been_served() -> None:
    queue = permits()
    await queue.acquire(soon())
    is_idle = anyio.Event()

    async def idle() -> None:
        await queue.wait_idle()
        is_idle.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.acquire, soon())
        tasks.start_soon(idle)
        await anyio.wait_all_tasks_blocked()
        queue.release()
        await anyio.wait_all_tasks_blocked()
        assert not is_idle.is_set()
        queue.release()

    assert is_idle.is_set()


async def test_all_who_wait_for_idle_are_told() -> None:
    queue = permits()
    await queue.acquire(soon())

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(queue.wait_idle)
            await anyio.wait_all_tasks_blocked()
            queue.release()


async def test_a_waiter_that_gives_up_at_last_leaves_it_idle() -> None:
    queue = permits(slots=0, seconds=0.05)

    async def give_up() -> None:
        with pytest.raises(Overloaded):
            await queue.acquire(soon())

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(give_up)
            await anyio.wait_all_tasks_blocked()
            await queue.wait_idle()
