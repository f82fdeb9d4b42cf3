"""Purges from the lattice's object stores what no object names; done by whichever node leads.

A writer that is killed leaves what it has sent, and so does one that replaced an object and ended before the
old bytes were purged. Both look alike, and like an object that is being written: so what no object names goes
when it has not changed for as long as no writer may pause.

Error handling: what can't be asked is tried again at the next look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
import structlog

from lattice.bus import Bus, ObjectStore
from lattice.errors import LatticeError, NotFound
from lattice.object_store import ABANDONED_SECONDS
from lattice.subjects import artifacts_bucket, blobs_prefix

LOOK_SECONDS = 900.0

log = structlog.get_logger()


@dataclass(slots=True)
class _Unnamed:
    pieces: int
    since: float


class Abandoned:
    """Which versions of one store have not changed for long; pure. The mutable state is what was seen."""

    def __init__(self, seconds: float = ABANDONED_SECONDS) -> None:
        self._seconds = seconds
        self._seen: dict[str, _Unnamed] = {}

    def look(self, unnamed: Mapping[str, int], now: float) -> list[str]:
        """Take in what no object names now; returns what may be purged."""
        self._seen = {version: self._kept(version, pieces, now) for version, pieces in unnamed.items()}
        return [version for version, item in self._seen.items() if now - item.since >= self._seconds]

    def _kept(self, version: str, pieces: int, now: float) -> _Unnamed:
        before = self._seen.get(version)
        return before if before is not None and before.pieces == pieces else _Unnamed(pieces, now)


class ObjectUpkeep:
    """The mutable state is what was seen in each store while this node leads."""

    def __init__(
        self,
        bus: Bus,
        lattice: str,
        *,
        is_leading: Callable[[], bool],
        look_seconds: float = LOOK_SECONDS,
        abandoned_seconds: float = ABANDONED_SECONDS,
    ) -> None:
        self._bus = bus
        self._prefixes = (blobs_prefix(lattice), artifacts_bucket(lattice))
        self._is_leading = is_leading
        self._look_seconds = look_seconds
        self._abandoned_seconds = abandoned_seconds
        self._stores: dict[str, SeenStore] = {}

    def __repr__(self) -> str:
        return f"<ObjectUpkeep of {len(self._stores)} stores>"

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            if not self._is_leading():
                self._stores.clear()
            else:
                try:
                    await self._look()
                except LatticeError as error:
                    log.info("objects.not-tended", reason=error.message)
            await anyio.sleep(self._look_seconds)

    async def _look(self) -> None:
        names = [name for prefix in self._prefixes for name in await self._bus.object_stores(prefix)]
        self._stores = {name: self._stores.get(name) or self._new() for name in names}
        for name, seen in self._stores.items():
            with suppress(NotFound):  # it was deleted meanwhile
                await seen.purge(await self._bus.object_store(name, make=False))

    def _new(self) -> SeenStore:
        return SeenStore(Abandoned(self._abandoned_seconds))


@dataclass(slots=True)
class SeenStore:
    """What was seen of a store; it is read again only when it has changed."""

    abandoned: Abandoned
    mark: str = ""
    unnamed: Mapping[str, int] = field(default_factory=dict)

    async def purge(self, store: ObjectStore) -> None:
        """Look, and purge what is abandoned."""
        mark = await store.mark()
        if mark != self.mark:
            self.mark, self.unnamed = mark, await store.unnamed()
        if not (versions := self.abandoned.look(self.unnamed, anyio.current_time())):
            return
        unnamed = await store.unnamed(exactly=True)
        gone = [version for version in versions if version in unnamed]
        for version in gone:
            await store.purge(version)
        log.info("objects.purged", store=store.bucket, versions=len(gone))
