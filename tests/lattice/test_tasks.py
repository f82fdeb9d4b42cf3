"""What begins at once is a task only once it waits, and then in every respect."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from lattice.tasks import open_tasks, own_task, start_at_once, start_cancellable


async def test_what_never_waits_is_done_before_the_next_line() -> None:
    done = []

    async def append() -> None:
        done.append(anyio.get_current_task().name if done else "first")

    async with anyio.create_task_group() as tasks:
        start_at_once(tasks, append())

        assert done == ["first"]


async def test_what_waits_goes_on_as_a_task_of_the_group() -> None:
    event, done = anyio.Event(), []

    async def wait() -> None:
        await event.wait()
        await checkpoint()
        done.append("waited")

    async with anyio.create_task_group() as tasks:
        start_at_once(tasks, wait())
        assert done == []
        event.set()

    assert done == ["waited"]


async def test_cancel_scopes_work_in_a_task_of_its_own() -> None:
    timed_out = []

    async def wait() -> None:
        await own_task()
        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep_forever()
        timed_out.append(scope.cancelled_caught)

    async with anyio.create_task_group() as tasks:
        start_at_once(tasks, wait())

    assert timed_out == [True]


async def test_own_task_costs_a_task_nothing() -> None:
    with anyio.move_on_after(0) as scope:
        await own_task()

    assert not scope.cancelled_caught


async def test_cancel_scope_without_a_task_fails_and_cancels_nobody_else() -> None:
    async def scoped() -> None:
        with anyio.CancelScope():
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        with pytest.raises(TypeError):
            start_at_once(tasks, scoped())
        await checkpoint()


async def test_group_cancels_what_waits_and_its_cleanup_runs() -> None:
    ended = []

    async def wait() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(True)

    async with anyio.create_task_group() as tasks:
        start_at_once(tasks, wait())
        await checkpoint()
        tasks.cancel_scope.cancel()

    assert ended == [True]


async def test_errors_before_the_first_wait_are_raised_at_once() -> None:
    async def fail() -> None:
        raise ValueError("it failed")

    async with anyio.create_task_group() as tasks:
        with pytest.raises(ValueError):
            start_at_once(tasks, fail())


async def test_later_errors_are_raised_by_the_group() -> None:
    async def fail() -> None:
        await checkpoint()
        raise ValueError("it failed")

    with pytest.raises(ValueError):
        async with open_tasks() as tasks:
            start_at_once(tasks, fail())


async def test_what_never_waits_cannot_be_cancelled() -> None:
    async def work() -> None:
        pass

    async with anyio.create_task_group() as tasks:
        assert start_cancellable(tasks, work()) is None


async def test_what_waits_can_be_cancelled_alone() -> None:
    ended = []

    async def wait() -> None:
        try:
            await anyio.Event().wait()
        finally:
            ended.append("cleaned up")

    async with anyio.create_task_group() as tasks:
        scope = start_cancellable(tasks, wait())
        assert scope is not None
        scope.cancel()

    assert ended == ["cleaned up"] and not tasks.cancel_scope.cancel_called
