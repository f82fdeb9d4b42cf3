"""Copies of records in a folder: one file for each, replaced as a whole."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from lattice.model import TOMBSTONE_SECONDS

log = structlog.get_logger()

CONTACT_FILE = "contact"


class Contact:
    """When the store was last in reach of whoever keeps copies in a folder: the time of a file there."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / CONTACT_FILE

    def note(self) -> None:
        """It is in reach now."""
        try:
            self._file.touch(mode=0o600)
        except OSError as error:
            log.warning("copies.contact-not-noted", reason=str(error))

    def is_outdated(self) -> bool:
        """Whether that is so long ago that deletions may have been forgotten by all."""
        try:
            return time.time() - self._file.stat().st_mtime > TOMBSTONE_SECONDS
        except OSError:
            return False


class FolderCopies:
    """Reads and writes files: use it off the event loop. Only the owner of the process may read them.

    A disk that is full costs the copy, not the process: the store and other nodes have it too.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._contact = Contact(folder)

    def load(self) -> Sequence[bytes]:
        """All copies; none after a week without the store, when deletions may have been forgotten by all."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = sorted(self._folder.glob("*.json"))
        if self._contact.is_outdated():
            log.warning("copies.discarded", reason="the last contact with the store was too long ago")
            for file in files:
                file.unlink(missing_ok=True)
            return []
        return [data for data in map(_read, files) if data is not None]

    def keep(self, name: str, data: bytes | None) -> None:
        """Replace a copy, or drop it; `name` must be a checked one."""
        file = self._folder / f"{name}.json"
        temporary = file.with_suffix(f".{os.getpid()}.tmp")  # worker processes keep the same copies
        try:
            if data is None:
                file.unlink(missing_ok=True)
                return
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                out.write(data)
            temporary.replace(file)
        except OSError as error:
            log.warning("copy.not-kept", file=str(file), reason=str(error))

    def in_contact(self) -> None:
        """Note that the store is in reach now."""
        self._contact.note()


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError as error:
        log.warning("copy.unreadable", file=str(file), reason=str(error))
        return None
