"""Copies of desired state on this node's disk: what gives a lost store back what it held."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import anyio
import structlog
from anyio import to_thread

from lattice.errors import Invalid
from lattice.model import Application
from lattice.observer import decode_application, encode_value
from lattice.record_copies import Contact

log = structlog.get_logger()


class Copies:
    """The mutable state is the folder, one file for each application, and what is to be written there.

    Made and loaded off the event loop.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._contact = Contact(folder)
        self._pending: dict[str, Application] = {}
        self._is_pending = anyio.Event()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self) -> list[Application]:
        """All copies that can be read; damaged ones are passed over.

        None are left after a week without the store: what was deleted meanwhile may be forgotten by all.
        """
        if self._contact.is_outdated():
            log.warning("copies.discarded", reason="the last contact with the store was too long ago")
            for file in self._folder.glob("*.json"):
                file.unlink(missing_ok=True)
        found = []
        for file in sorted(self._folder.glob("*.json")):
            try:
                application = decode_application(file.read_bytes())
                if application.is_forgettable(time.time_ns() // 1_000_000):
                    file.unlink(missing_ok=True)
                else:
                    found.append(application)
            except (OSError, Invalid) as error:
                log.warning("copy.unreadable", file=str(file), reason=str(error))
        return found

    def in_contact(self) -> None:
        """Note that the store is in reach now."""
        self._contact.note()

    def keep(self, application: Application) -> None:
        """Have the copy replaced soon; never waits. Of several of one application the last one counts."""
        self._pending[application.name] = application
        self._is_pending.set()

    async def run(self) -> None:
        """Write copies until cancelled."""
        while True:
            await self._is_pending.wait()
            self._is_pending = anyio.Event()
            pending, self._pending = self._pending, {}
            await to_thread.run_sync(self._write, list(pending.values()))

    def _write(self, applications: Sequence[Application]) -> None:
        # A disk that is full costs the copy, not the node: the store and other nodes have it too.
        for application in applications:
            file = self._folder / f"{application.name}.json"
            temporary = file.with_suffix(".tmp")
            try:
                temporary.write_bytes(encode_value(application))
                temporary.replace(file)
            except OSError as error:
                log.warning("copy.not-kept", application=application.name, reason=str(error))
