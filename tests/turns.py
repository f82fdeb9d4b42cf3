"""Whether others have the event loop meanwhile."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel


class Turns:
    """How many turns of the event loop another task has had."""

    count = 0

    async def take(self) -> None:
        """Take one after the other, until cancelled."""
        while True:
            await anyio.lowlevel.checkpoint()
            self.count += 1


@asynccontextmanager
async def counted_turns() -> AsyncGenerator[Turns]:
    """Count them as long as the block runs."""
    turns = Turns()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(turns.take)
        yield turns
        tasks.cancel_scope.cancel()
