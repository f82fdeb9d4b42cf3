"""Task groups out of which a single error comes as itself, and tasks that begin at once.

A call that never waits needs no task of its own, and making one costs as much as the call. `start_at_once`
runs a coroutine up to where it first waits, and makes it a task only then. Until it waits it has no task:
whatever needs one, cancel scopes above all, must be preceded by `await own_task()`, else it fails at once.

`PromptTasks` goes further: a coroutine that waits for the reply to a request (`Expected`) needs no task for
that either, as the request has a place in a table and a time at which it ends. It has none behind it, too.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, TypeVar

import anyio
import anyio.abc

T = TypeVar("T")

_TASK_WANTED = object()
"""What a coroutine gives that was begun without a task and needs one."""
_OVER = object()
"""Stands for a coroutine that ended without waiting."""


@asynccontextmanager
async def open_tasks() -> AsyncGenerator[anyio.abc.TaskGroup]:
    """An anyio task group; the errors of its body and its tasks can be caught by their type."""
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        error = group.exceptions[0]
        raise error from error.__cause__


@asynccontextmanager
async def outlasting(context: AbstractAsyncContextManager[T]) -> AsyncGenerator[T]:
    """A context that a cancellation ends only after the body, with its tasks still at work until then.

    It is entered in a task of its own, which can be cancelled meanwhile. Leaving it cannot: the context must
    bound the time that it takes for that itself. Its errors cancel the body, and come out of here.
    """
    is_left = anyio.Event()

    async def hold(*, task_status: anyio.abc.TaskStatus[T]) -> None:
        with anyio.CancelScope() as scope:
            async with context as entered:
                scope.shield = True
                task_status.started(entered)
                await is_left.wait()

    async with open_tasks() as tasks:
        try:
            yield await tasks.start(hold)
        finally:
            is_left.set()


def start_at_once(tasks: anyio.abc.TaskGroup, coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine up to where it first waits; the rest, if any, becomes a task of the group.

    What it raises before it waits is raised here.
    """
    waits_for = _begin(coroutine)
    if waits_for is not _OVER:
        tasks.start_soon(_continue, coroutine, waits_for)


async def cancel(awaitable: Awaitable[object]) -> None:
    """Have it cancelled where it first waits, as nobody wants to know what it comes to."""
    with anyio.CancelScope() as scope, suppress(Exception):
        scope.cancel()
        await awaitable


class Expected(asyncio.Future[T]):
    """What a coroutine may wait for without a task: surely settled, by whoever made it."""

    __slots__ = ()


class PromptTasks:
    """Coroutines that begin at once, and are tasks of a group if they wait for more than what is `Expected`.

    The mutable state is those that wait without being tasks, and whether the group is being cancelled. A task
    of the group runs `keep`.
    """

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.tasks = tasks
        self._waiting: set[PromptTask] = set()
        self._is_cancelled = False

    def __repr__(self) -> str:
        return f"<PromptTasks {len(self._waiting)} waiting>"

    def __len__(self) -> int:
        """How many wait without being tasks."""
        return len(self._waiting)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> PromptTask | None:
        """Run a coroutine up to where it first waits; what is returned can cancel the rest, if there is any.

        What it raises before it waits is raised here, and later in the group.
        """
        waits_for = _begin(coroutine)
        return None if waits_for is _OVER else PromptTask(self, coroutine, waits_for)

    async def keep(self) -> None:
        """Run until cancelled: then those that wait, or will, become tasks for the group to cancel."""
        try:
            await anyio.sleep_forever()
        finally:
            self._is_cancelled = True
            for each in list(self._waiting):
                each.become_task()


class PromptTask:
    """The rest of a coroutine. The mutable state is what it waits for, or the scope of its task."""

    __slots__ = ("_coroutine", "_expected", "_owner", "_scope")

    def __init__(self, owner: PromptTasks, coroutine: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._owner = owner
        self._coroutine = coroutine
        self._expected: Expected[Any] | None = None
        self._scope: anyio.CancelScope | None = None
        self._wait(waits_for)

    def cancel(self) -> None:
        """End it where it waits, as a task; a second call does nothing."""
        if self._expected is not None:
            self.become_task()
        if self._scope is not None:
            self._scope.cancel()

    def become_task(self) -> None:
        """Go on waiting as a task of the group."""
        expected, self._expected = self._expected, None
        assert expected is not None
        self._owner._waiting.discard(self)
        expected._asyncio_future_blocking = True
        self._start(expected)

    def _wait(self, waits_for: Any) -> None:
        if not isinstance(waits_for, Expected) or self._owner._is_cancelled:
            self._start(waits_for)
            return
        self._expected = waits_for
        self._owner._waiting.add(self)
        waits_for._asyncio_future_blocking = False
        waits_for.add_done_callback(self._go_on)

    def _start(self, waits_for: Any) -> None:
        self._scope = anyio.CancelScope()
        self._owner.tasks.start_soon(_continue_within, self._scope, self._coroutine, waits_for)

    def _go_on(self, expected: Expected[Any]) -> None:
        if self._expected is None:  # it has become a task
            return
        self._expected = None
        self._owner._waiting.discard(self)
        try:
            waits_for = next(self._coroutine.__await__(), _OVER)
        except Exception as error:
            self._owner.tasks.start_soon(_fail, error)
        else:
            if waits_for is not _OVER:
                self._wait(waits_for)


async def _fail(error: Exception) -> None:
    raise error


def _begin(coroutine: Coroutine[Any, Any, None]) -> Any:
    """Run up to the first wait; returns what is waited for, or `_OVER`."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task(loop)
    if task is not None:
        asyncio.tasks._leave_task(loop, task)
    try:
        return next(coroutine.__await__(), _OVER)  # its end is no exception that way
    finally:
        if task is not None:
            asyncio.tasks._enter_task(loop, task)


@types.coroutine
def own_task() -> Generator[object]:
    """Give the running coroutine a task if it has none; cancel scopes may be entered afterwards."""
    if asyncio.current_task() is None:
        yield _TASK_WANTED


def is_being_cancelled() -> bool:
    """Whether somebody cancels the running task, who must get the `CancelledError` that it meets."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _continue(coroutine: Coroutine[Any, Any, None], waits_for: Any) -> None:
    await _rest(coroutine, waits_for)


async def _continue_within(
    scope: anyio.CancelScope, coroutine: Coroutine[Any, Any, None], waits_for: Any
) -> None:
    with scope:
        await _rest(coroutine, waits_for)


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any]:
    """What is left of the coroutine, seen by its task as if it had been the task's from its beginning."""
    try:
        while True:
            try:
                if waits_for is not _TASK_WANTED:
                    yield waits_for
            except BaseException as error:
                waits_for = coroutine.throw(error)
            else:
                waits_for = coroutine.send(None)
    except StopIteration:
        return
