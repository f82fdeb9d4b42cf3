"""Waiting for what tells nobody."""

from __future__ import annotations

from collections.abc import Callable

import anyio


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Return once the condition holds; fails when it does not within the time."""
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.002)
