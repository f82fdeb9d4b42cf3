"""Keeps a node quiet after its own process stood still: the others have given it up and re-placed its work.

A stopped process (SIGSTOP, a suspended machine) that goes on reads calls that were sent long ago, and holds
replicas that others run by now. It answers `unreachable` until it has announced itself again and the
controller says that it has its orders.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import structlog

from lattice.clock import now

log = structlog.get_logger()

STALL_SECONDS = 3.0
TICK_SECONDS = 0.25
RESUME_SECONDS = 6.0
"""After which it serves what it has although no controller spoke: there may be none."""

Settle = Callable[[], Awaitable[bool]]
"""Announces this node and returns whether the controller says that it has its orders."""


class StallGuard:
    """The mutable state is when this process was last seen running, and since when it is quiet."""

    def __init__(self) -> None:
        self._alive_at = now()
        self._quiet_since: float | None = None

    @property
    def is_quiet(self) -> bool:
        """Whether to refuse calls. Asked for each call, so it notices a stall before any timer does."""
        if self._quiet_since is None and now() - self._alive_at > STALL_SECONDS:
            self._quiet_since = now()
            log.warning("node.stalled", seconds=round(self._quiet_since - self._alive_at, 1))
        return self._quiet_since is not None

    async def run(self, settle: Settle) -> None:
        """Watch the clock until cancelled; after a stall, settle and resume."""
        while True:
            if self.is_quiet:
                await self._settle(settle)
            self._alive_at = now()
            await anyio.sleep(TICK_SECONDS)

    async def _settle(self, settle: Settle) -> None:
        with anyio.move_on_after(RESUME_SECONDS):
            while not await settle():  # noqa: ASYNC110 - each round asks the controller anew
                await anyio.sleep(TICK_SECONDS)
        self._quiet_since = None
        log.info("node.resumed")
