"""What a node does for the memory of the lattice, in the background.

A store that was lost gets back the artifacts and descriptions that this node has, as soon as it takes them;
what no component has needed for a while is dropped from this node.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import anyio
import structlog
from anyio import to_thread

from lattice.edits import Editor
from lattice.errors import LatticeError
from lattice.observer import Observer
from node.artifacts import Artifacts
from node.component_logs import ComponentLogs
from node.copies import Copies

log = structlog.get_logger()

RETRY_SECONDS = 1.0
CONTACT_SECONDS = 60.0
KEEP_SECONDS = 3600.0
"""How long what no component needs stays here: it may be about to be deployed, or deployed again."""


class Upkeep:
    """The mutable state is whether the store is to be filled up, and since when what is here is unwanted."""

    def __init__(
        self,
        observer: Observer,
        *,
        artifacts: Artifacts,
        editor: Editor,
        copies: Copies,
        logs: ComponentLogs,
        evict: Callable[[Collection[str]], None],
        is_connected: Callable[[], bool],
    ) -> None:
        """`evict` tells that this node is no longer ready to start what has these digests."""
        self._observer = observer
        self._artifacts = artifacts
        self._editor = editor
        self._copies = copies
        self._logs = logs
        self._evict = evict
        self._is_connected = is_connected
        self._is_due = anyio.Event()
        self._unwanted: dict[str, float] = {}

    def restore_soon(self) -> None:
        """The store may have been lost; never waits."""
        self._is_due.set()

    async def run(self) -> None:
        """Restore and prune until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._restore_when_due)
            while True:
                if self._is_connected() and self._observer.is_caught_up:
                    await to_thread.run_sync(self._copies.in_contact)
                    await self.prune(anyio.current_time())
                await anyio.sleep(CONTACT_SECONDS)

    # Filling up the store

    async def _restore_when_due(self) -> None:
        while True:
            await self._is_due.wait()
            self._is_due = anyio.Event()
            while not await self._restore():  # noqa: ASYNC110 - a store that has just started needs seconds
                await anyio.sleep(RETRY_SECONDS)

    async def _restore(self) -> bool:
        wanted = self._wanted()
        try:
            restored = await self._artifacts.restore(wanted)
            for digest in sorted(wanted):
                description = self._observer.descriptions.get(digest)
                if description is not None:
                    await self._editor.restore(description)
        except LatticeError as error:
            log.warning("artifacts.not-restored", reason=error.message)
            return False
        if restored:
            log.info("artifacts.restored", digests=restored)
        return True

    def _wanted(self) -> set[str]:
        return {item.spec.digest for item in self._observer.state.desired.components.values()}

    # Dropping what nobody needs

    async def prune(self, now: float) -> None:
        """Drop what has been unwanted for `KEEP_SECONDS`; `now` is by this process's clock."""
        copies = await to_thread.run_sync(self._artifacts.copies)
        unwanted = copies - self._wanted()
        self._unwanted = {digest: self._unwanted.get(digest, now) for digest in unwanted}
        old = {digest for digest, since in self._unwanted.items() if now - since >= KEEP_SECONDS}
        if old:
            await self._artifacts.prune(copies - old)
            self._evict(old)
            log.info("artifacts.dropped", digests=sorted(old))
        self._logs.forget_all_but(self._observer.state.desired.components)
