"""A node's own folder: its key, artifacts and compiled code; used by one node at a time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lattice.errors import Conflict, Invalid
from node.file_lock import FileLock

LOCK_FILE = "lock"
MAX_NODES = 10_000
"""Of one lattice on one machine; ends the search when something is wrong."""


@contextmanager
def open_data_folder(base: Path, explicit: Path | None = None) -> Iterator[Path]:
    """Hold the explicit folder, or else the first free `node-K` below `base` (`<state>/<lattice>`).

    Raises `Conflict` when the explicit one is in use and `Invalid` when it cannot be made or written.
    """
    folder, lock = _hold(explicit) if explicit is not None else _hold_first_free(base)
    try:
        yield folder
    finally:
        lock.close()


def _hold(folder: Path) -> tuple[Path, FileLock]:
    lock = _lock(folder)
    if lock is None:
        owner = _owner(folder)
        raise Conflict(
            f"the data folder {folder} is in use by another node{owner}: give each node its own --data, "
            "or leave it out and each finds one"
        )
    return folder, lock


def _hold_first_free(base: Path) -> tuple[Path, FileLock]:
    for number in range(1, MAX_NODES + 1):
        folder = base / f"node-{number}"
        if (lock := _lock(folder)) is not None:
            return folder, lock
    raise Conflict(f"all {MAX_NODES} data folders below {base} are in use")


def _lock(folder: Path) -> FileLock | None:
    make_private_folder(folder)
    lock = FileLock(folder / LOCK_FILE)
    if not lock.take():
        lock.close()
        return None
    with suppress(OSError):  # on a full disk the name is missing from the message, but the lock holds
        os.ftruncate(lock.fileno(), 0)
        os.pwrite(lock.fileno(), str(os.getpid()).encode(), 0)
    return lock


def _owner(folder: Path) -> str:
    try:
        return f" (process {int((folder / LOCK_FILE).read_text())})"
    except (OSError, ValueError):
        return ""


def make_private_folder(folder: Path) -> None:
    """Make the folder, for its owner only; raises `Invalid` with the cure."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Invalid(
            f"cannot make the folder {folder} ({error.strerror}): choose another with --data or LATTICE_STATE"
        ) from error


def next_boot(folder: Path) -> int:
    """The number of a node's next life: above those of all before it, whatever the clock says."""
    file = folder / "boot"
    try:
        last = int(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        last = 0
    boot = max(last + 1, time.time_ns() // 1_000_000)
    try:
        temporary = file.with_suffix(".tmp")
        temporary.write_text(str(boot))
        temporary.replace(file)
    except OSError as error:
        raise Invalid(
            f"cannot write to the data folder {folder}: {error.strerror}; choose another --data"
        ) from error
    return boot
