"""Who has which tick: the progress of each cron trigger in the store, moved on by compare-and-set alone."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace

import structlog

from lattice import wire
from lattice.bus import Entry, KeyValue
from lattice.errors import Conflict, Invalid, LatticeError
from lattice.observer import encode_value
from lattice.schedule import Progress

log = structlog.get_logger()

MAX_AHEAD_MS = 24 * 3600 * 1000
"""Progress further ahead of the clock was made by one that ran wrong: waiting for it could take years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Progress as the store had it, and the revision on which the next claim builds."""

    progress: Progress
    revision: int


@dataclass(slots=True)
class Ticks:
    """The mutable state is the last progress known of each trigger: what a lost store gets back.

    It holds only while this node leads.
    """

    store: KeyValue
    _known: dict[str, Progress] = field(default_factory=dict)

    async def load(self, key: str, fingerprint: str, now_ms: int) -> Held:
        """How far the schedule is done; one that is new, or another than before, begins now.

        So does one that was done until a day that has not come: the clock was set back.
        """
        entry = await self.store.get(key)
        stored = _decode(entry) if entry else None
        known = self._known.get(key)
        wanted = max(
            (item for item in (stored, known) if item is not None and item.fingerprint == fingerprint),
            key=lambda item: item.tick,
            default=Progress(fingerprint=fingerprint, tick=now_ms),
        )
        if wanted.tick > now_ms + MAX_AHEAD_MS:
            log.warning("trigger.begun-anew", trigger=key, reason="the clock was set back by more than a day")
            wanted = Progress(fingerprint=fingerprint, tick=now_ms)
        if entry is not None and stored == wanted:
            return self._hold(key, wanted, entry.revision)
        revision = entry.revision if entry else None
        return self._hold(key, wanted, await self._write(key, wanted, revision))

    async def claim(self, key: str, held: Held, tick: int, name: str) -> Held | None:
        """Move on to this tick; None if somebody else has moved on meanwhile.

        `name` is the claim's own: repeated after an error, it tells whether an earlier write was done.
        """
        wanted = replace(held.progress, tick=tick, claim=name)
        try:
            return self._hold(key, wanted, await self._write(key, wanted, held.revision))
        except Conflict:
            entry = await self.store.get(key)
            if entry is None or _decode(entry) != wanted:
                return None
            return self._hold(key, wanted, entry.revision)

    async def forget(self, key: str) -> None:
        """Drop what is known of a trigger that is no more."""
        self._known.pop(key, None)
        try:
            await self.store.delete(key)
        except LatticeError as error:
            log.debug("ticks.not-forgotten", key=key, reason=error.message)

    def forget_all(self) -> None:
        """Drop what is known, but not in the store: from now on others move on."""
        self._known.clear()

    async def _write(self, key: str, progress: Progress, revision: int | None) -> int:
        value = encode_value(progress)
        if revision is None:
            return await self.store.create(key, value)
        return await self.store.update(key, value, revision)

    def _hold(self, key: str, progress: Progress, revision: int) -> Held:
        self._known[key] = progress
        return Held(progress=progress, revision=revision)


def new_claim() -> str:
    """A name for one claim."""
    return secrets.token_hex(8)


def _decode(entry: Entry) -> Progress | None:
    try:
        return Progress.from_dict(wire.decode_json(entry.value or b""))
    except Invalid as error:
        log.warning("ticks.unreadable", key=entry.key, reason=error.message)
        return None
