"""Locks on files: held by a process, freed by the kernel when it ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from lattice.errors import Invalid


class FileLock:
    """A lock on a file that is made if it is missing; `close` frees it. No method waits."""

    # The mutable state of a lock is its file descriptor.

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Invalid(
                f"cannot write to {path.parent} ({error.strerror}): make it writable or choose another "
                "folder with LATTICE_STATE"
            ) from error

    def __repr__(self) -> str:
        return f"<FileLock {self.path}>"

    def fileno(self) -> int:
        """The descriptor that holds the lock; a process that inherits it holds the lock, too."""
        return self._descriptor

    def take(self, *, shared: bool = False) -> bool:
        """Take the lock, or change from shared to exclusive; False when another's lock forbids it.

        A change that fails loses what was held.
        """
        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(self._descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Free the lock, unless a process that inherited it still holds it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
