"""Task groups out of which a single error comes as itself, and tasks that begin at once.

A call that never waits needs no task of its own, and making one costs as much as the call. `start_at_once`
runs a coroutine up to where it first waits, and makes it a task only then. Until it waits it has no task:
whatever needs one, cancel scopes above all, must be preceded by `await own_task()`, else it fails at once.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.abc

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


def start_at_once(
    tasks: anyio.abc.TaskGroup,
    coroutine: Coroutine[Any, Any, None],
    *,
    within: AbstractContextManager[object] | None = None,
) -> None:
    """Run a coroutine up to where it first waits; the rest, if any, becomes a task of the group.

    What it raises before it waits is raised here. The task enters `within` first, a cancel scope say.
    """
    waits_for = _begin(coroutine)
    if waits_for is not _OVER:
        tasks.start_soon(
            _continue if within is None else partial(_continue_within, within), coroutine, waits_for
        )


def start_cancellable(
    tasks: anyio.abc.TaskGroup, coroutine: Coroutine[Any, Any, None]
) -> anyio.CancelScope | None:
    """The same; the scope that is returned cancels the rest, and it is None when there is no rest."""
    waits_for = _begin(coroutine)
    if waits_for is _OVER:
        return None
    scope = anyio.CancelScope()
    tasks.start_soon(_continue_within, scope, coroutine, waits_for)
    return scope


def _begin(coroutine: Coroutine[Any, Any, None]) -> Any:
    """Run up to the first wait; returns what is waited for, or `_OVER`."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        asyncio.tasks._leave_task(loop, task)
    try:
        return coroutine.send(None)
    except StopIteration:
        return _OVER
    finally:
        if task is not None:
            asyncio.tasks._enter_task(loop, task)


@types.coroutine
def own_task() -> Generator[object]:
    """Give the running coroutine a task if it has none; cancel scopes may be entered afterwards."""
    if asyncio.current_task() is None:
        yield _TASK_WANTED


async def _continue(coroutine: Coroutine[Any, Any, None], waits_for: Any) -> None:
    await _rest(coroutine, waits_for)


async def _continue_within(
    within: AbstractContextManager[object], coroutine: Coroutine[Any, Any, None], waits_for: Any
) -> None:
    with within:
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
