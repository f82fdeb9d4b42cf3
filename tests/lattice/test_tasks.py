"""What begins at once is a task only once it waits, and then in every respect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint

from lattice.tasks import Expected, PromptTasks, open_tasks, outlasting, own_task, start_at_once


async def test_what_never_waits_is_done_before_the_next_line() -> None:
    done: list[str | None] = []

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


# Prompt tasks


async def test_what_never_waits_cannot_be_cancelled() -> None:
    async def work() -> None:
        pass

    async with anyio.create_task_group() as tasks:
        assert PromptTasks(tasks).start(work()) is None


@pytest.mark.parametrize("kind", [asyncio.Future, Expected])
async def test_what_waits_can_be_cancelled_alone(kind: type[asyncio.Future[None]]) -> None:
    ended = []

    async def wait() -> None:
        try:
            await kind()
        finally:
            await own_task()
            with anyio.CancelScope(shield=True):
                await checkpoint()
            ended.append("cleaned up")

    async with anyio.create_task_group() as tasks:
        rest = PromptTasks(tasks).start(wait())
        assert rest is not None
        rest.cancel()
        rest.cancel()

    assert ended == ["cleaned up"] and not tasks.cancel_scope.cancel_called


async def test_what_is_expected_is_waited_for_without_a_task() -> None:
    first, second, seen = Expected[str](), Expected[str](), []

    async def wait() -> None:
        seen.append((await first, asyncio.current_task()))
        seen.append((await second, asyncio.current_task()))

    async with anyio.create_task_group() as tasks:
        assert PromptTasks(tasks).start(wait()) is not None
        first.set_result("one")
        await checkpoint()
        second.set_result("two")
        await checkpoint()

        assert seen == [("one", None), ("two", None)]


async def test_what_waits_for_more_afterwards_is_a_task_from_there() -> None:
    expected, event, seen = Expected[str](), anyio.Event(), []

    async def wait() -> None:
        await expected
        await own_task()
        with anyio.CancelScope():
            await event.wait()
        seen.append(asyncio.current_task() is not None)

    async with anyio.create_task_group() as tasks:
        PromptTasks(tasks).start(wait())
        expected.set_result("")
        await checkpoint()
        event.set()

    assert seen == [True]


async def test_cancelled_between_the_reply_and_what_follows_it_ends_there() -> None:
    expected, seen = Expected[str](), []

    async def wait() -> None:
        try:
            seen.append(await expected)
            await checkpoint()
            seen.append("not reached")
        finally:
            seen.append("ended")

    async with anyio.create_task_group() as tasks:
        rest = PromptTasks(tasks).start(wait())
        assert rest is not None
        expected.set_result("reply")
        rest.cancel()

    assert seen[-1] == "ended" and "not reached" not in seen


async def test_a_group_that_is_cancelled_cancels_them() -> None:
    ended = []

    async def wait() -> None:
        try:
            await Expected[None]()
        finally:
            await own_task()
            with anyio.CancelScope(shield=True):
                await checkpoint()
            ended.append(True)

    async with anyio.create_task_group() as tasks:
        prompt = PromptTasks(tasks)
        tasks.start_soon(prompt.keep)
        prompt.start(wait())
        await checkpoint()
        assert len(prompt) == 1
        tasks.cancel_scope.cancel()

    assert ended == [True] and not len(prompt)


async def test_what_begins_to_wait_when_the_group_is_cancelled_already_is_cancelled_too() -> None:
    ended, is_cancelled = [], anyio.Event()

    async def wait() -> None:
        try:
            await Expected[None]()
        finally:
            ended.append(asyncio.current_task() is not None)

    async def begin_late(prompt: PromptTasks) -> None:
        with anyio.CancelScope(shield=True):
            await is_cancelled.wait()
            await checkpoint()
            prompt.start(wait())

    async with anyio.create_task_group() as tasks:
        prompt = PromptTasks(tasks)
        tasks.start_soon(prompt.keep)
        tasks.start_soon(begin_late, prompt)
        await checkpoint()
        tasks.cancel_scope.cancel()
        is_cancelled.set()

    assert ended == [True] and not len(prompt)


async def test_errors_behind_a_reply_are_raised_by_the_group() -> None:
    expected = Expected[None]()

    async def fail() -> None:
        await expected
        raise ValueError("it failed")

    async def run() -> None:
        async with open_tasks() as tasks:
            PromptTasks(tasks).start(fail())
            expected.set_result(None)
            await anyio.sleep_forever()

    with pytest.raises(ValueError):
        await run()


class Held:
    """A context with a task of its own, which tells what was done."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.fails = anyio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[str]:
        async with open_tasks() as tasks:
            tasks.start_soon(self._work)
            try:
                yield "entered"
            finally:
                with anyio.CancelScope(shield=True):
                    await checkpoint()
                self.events.append("left")
            tasks.cancel_scope.cancel()

    async def _work(self) -> None:
        try:
            await self.fails.wait()
            raise ValueError("broken")
        except anyio.get_cancelled_exc_class():
            self.events.append("task cancelled")
            raise


async def test_a_context_that_outlasts_cancellation_works_until_the_body_has_ended() -> None:
    held = Held()

    with anyio.CancelScope() as scope:
        async with outlasting(held.open()) as entered:
            held.events.append(entered)
            scope.cancel()
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.wait_all_tasks_blocked()
                held.events.append("body ended")

    assert held.events == ["entered", "body ended", "left", "task cancelled"]


async def test_a_context_that_outlasts_cancellation_can_be_cancelled_before_it_is_entered() -> None:
    @asynccontextmanager
    async def never() -> AsyncGenerator[None]:
        await anyio.sleep_forever()
        yield

    with anyio.fail_after(5), anyio.move_on_after(0.01):
        async with outlasting(never()):
            raise AssertionError


async def test_what_fails_in_a_context_that_outlasts_cancellation_ends_the_body_and_is_raised() -> None:
    held = Held()

    async def use() -> None:
        async with outlasting(held.open()):
            held.fails.set()
            await anyio.sleep_forever()

    with anyio.fail_after(5), pytest.raises(ValueError, match="broken"):
        await use()

    assert held.events == ["left"]


async def test_what_the_body_raises_comes_out_of_a_context_that_outlasts_cancellation() -> None:
    held = Held()

    with anyio.fail_after(5), pytest.raises(KeyError):
        async with outlasting(held.open()):
            raise KeyError("body")

    assert "left" in held.events
