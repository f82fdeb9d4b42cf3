"""What is known of files besides their contents, in the interface's shapes."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from typing import Any

from node.capabilities.wasi.filesystem.file_errors import FileError

SECOND_NS = 1_000_000_000

_TYPES = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "regular-file",
    stat.S_IFLNK: "symbolic-link",
    stat.S_IFCHR: "character-device",
    stat.S_IFBLK: "block-device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}

OPENABLE = ("directory", "regular-file")
"""Opening anything else has effects outside of the folder: a pipe's other end, a device."""


def type_of(status: os.stat_result) -> str:
    """The `descriptor-type`."""
    return _TYPES.get(stat.S_IFMT(status.st_mode), "unknown")


def describe(status: os.stat_result) -> dict[str, Any]:
    """The record `descriptor-stat`."""
    return {
        "type": type_of(status),
        "link-count": status.st_nlink,
        "size": status.st_size,
        "data-access-timestamp": _datetime(status.st_atime_ns),
        "data-modification-timestamp": _datetime(status.st_mtime_ns),
        "status-change-timestamp": _datetime(status.st_ctime_ns),
    }


def identity_hash(status: os.stat_result) -> dict[str, int]:
    """The record `metadata-hash-value`: one per file, however it is named and whatever it holds."""
    digest = hashlib.blake2b(b"%d %d" % (status.st_dev, status.st_ino), digest_size=16).digest()
    return {"lower": int.from_bytes(digest[:8], "little"), "upper": int.from_bytes(digest[8:], "little")}


def new_times(accessed: dict[str, Any], modified: dict[str, Any], status: os.stat_result) -> tuple[int, int]:
    """Both of the `new-timestamp`s in nanoseconds, for a file that has `status` now."""
    now = time.time_ns()
    return _nanoseconds(accessed, status.st_atime_ns, now), _nanoseconds(modified, status.st_mtime_ns, now)


def _nanoseconds(wanted: dict[str, Any], present: int, now: int) -> int:
    if "now" in wanted:
        return now
    if "no-change" in wanted:
        return present
    seconds, nanoseconds = wanted["timestamp"]["seconds"], wanted["timestamp"]["nanoseconds"]
    if nanoseconds >= SECOND_NS:
        raise FileError("invalid")
    if seconds >= 1 << 63:
        raise FileError("overflow")
    return int(seconds) * SECOND_NS + int(nanoseconds)


def _datetime(nanoseconds: int) -> dict[str, int] | None:
    """Nothing for times before 1970, which the interface can't express."""
    if nanoseconds < 0:
        return None
    seconds, rest = divmod(nanoseconds, SECOND_NS)
    return {"seconds": seconds, "nanoseconds": rest}
