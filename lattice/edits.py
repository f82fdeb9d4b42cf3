"""Changes to desired state: one application at a time, by compare-and-set."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from lattice import descriptions
from lattice.bus import Entry, KeyValue
from lattice.descriptions import Description
from lattice.errors import Conflict
from lattice.model import Application
from lattice.observer import Observer, application_key, decode_application, encode_value

ATTEMPTS = 5
"""Of a change that can be made on top of whatever somebody else wrote meanwhile."""

Change = Callable[[Application | None, int], Application]
"""`change(previous, now_ms)` gives the wanted application, or `previous` itself when nothing is to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """The application as it is now, and whether this edit changed it."""

    application: Application
    is_changed: bool


class Editor:
    """Writes desired state on behalf of an operator. The store decides between two editors."""

    def __init__(self, store: KeyValue, observer: Observer) -> None:
        self._store = store
        self._observer = observer

    async def edit(self, name: str, change: Change, *, attempts: int = ATTEMPTS) -> Edited:
        """Make the change; `Conflict` when others were faster `attempts` times.

        Other nodes see it a moment later; this one at once.
        """
        for _ in range(attempts):
            entry = await self._store.get(application_key(name))
            previous = self._previous(name, entry)
            wanted = change(previous, time.time_ns() // 1_000_000)
            if wanted is previous:
                return Edited(application=wanted, is_changed=False)
            try:
                await self._write(entry, wanted)
            except Conflict:
                continue
            self._observer.apply(wanted)
            return Edited(application=wanted, is_changed=True)
        raise Conflict(
            f"{name!r} was changed by somebody else at the same time; "
            f"see `latticectl describe {name}`, then repeat"
        )

    async def describe(self, description: Description) -> None:
        """Store what is known of an artifact, unless the store has it."""
        if self._observer.descriptions.get(description.digest) is None:
            await self.restore(description)
            self._observer.descriptions.add(description)

    async def restore(self, description: Description) -> None:
        """Store a description again that the store may have lost."""
        try:
            await self._store.create(descriptions.key_of(description.digest), description.encode())
        except Conflict:
            return  # it is there; all nodes write the same

    def _previous(self, name: str, entry: Entry | None) -> Application | None:
        """The highest version known: a store that was wiped knows less than this process."""
        stored = decode_application(entry.value) if entry and entry.value else None
        known = self._observer.state.desired.applications.get(name)
        if stored is None or (known is not None and known.supersedes(stored)):
            return known
        return stored

    async def _write(self, entry: Entry | None, application: Application) -> None:
        key, value = application_key(application.name), encode_value(application)
        if entry is None or entry.value is None:
            await self._store.create(key, value)
        else:
            await self._store.update(key, value, entry.revision)
