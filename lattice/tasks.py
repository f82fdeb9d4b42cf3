"""A task group out of which a single error comes as itself, not wrapped in a group."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.abc


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
