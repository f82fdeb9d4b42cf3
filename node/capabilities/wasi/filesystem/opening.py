"""Opening files and directories beneath a descriptor. May block and so belongs on a thread."""

from __future__ import annotations

import os
from collections.abc import Collection

from node.capabilities.wasi.filesystem.attributes import OPENABLE, type_of
from node.capabilities.wasi.filesystem.descriptors import Descriptor
from node.capabilities.wasi.filesystem.file_errors import FileError
from node.capabilities.wasi.filesystem.open_files import OpenFiles
from node.capabilities.wasi.filesystem.resolution import Place, find

FILE_MODE = 0o666

# Without O_NONBLOCK a pipe that came into being between the look and the opening would hold up the thread.
_ALWAYS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_SYNC = frozenset({"file-integrity-sync", "data-integrity-sync", "requested-write-sync"})
"""Refused, as native hosts do: a guest asks `sync` for what must be on the disk."""


def open_at(
    base: Descriptor,
    path_flags: Collection[str],
    path: str,
    open_flags: Collection[str],
    flags: Collection[str],
    files: OpenFiles,
) -> Descriptor:
    """Open or create what `path` means; only regular files and directories are ever opened."""
    root = base.directory()
    flags = _implied(open_flags, flags)
    _check_flags(base, open_flags, flags)
    files.check_room()
    with find(root, path, follows="symlink-follow" in path_flags) as place:
        number = _open(place, open_flags, flags)
        depth = base.depth + place.depth + (place.name != b".")
    try:
        kind = type_of(os.fstat(number))
        if kind not in OPENABLE:
            raise FileError("unsupported")
    except BaseException:
        os.close(number)
        raise
    is_directory = kind == "directory"
    kept = _directory_flags(base) if is_directory else _file_flags(flags)
    return Descriptor(
        files.keep(number), kept, is_directory=is_directory, is_mutable=base.is_mutable, depth=depth
    )


def _implied(open_flags: Collection[str], flags: Collection[str]) -> Collection[str]:
    """What is created or truncated can be written, too, whatever was asked for: native hosts open it so."""
    if "write" in flags or not {"create", "truncate"}.intersection(open_flags):
        return flags
    return {*flags, "read", "write"}


def _check_flags(base: Descriptor, open_flags: Collection[str], flags: Collection[str]) -> None:
    changes = {"create", "truncate"}.intersection(open_flags) or {"write", "mutate-directory"}.intersection(
        flags
    )
    if changes:
        base.check_mutable()
    if _SYNC.intersection(flags):
        raise FileError("unsupported")
    if "directory" in open_flags and {"create", "exclusive", "truncate"}.intersection(open_flags):
        raise FileError("invalid")


def _open(place: Place, open_flags: Collection[str], flags: Collection[str]) -> int:
    if place.wants_directory and "create" in open_flags:
        raise FileError("is-directory")
    _refuse_special(place, open_flags)
    return os.open(place.name, _mode(place, open_flags, flags), FILE_MODE, dir_fd=place.directory)


def _refuse_special(place: Place, open_flags: Collection[str]) -> None:
    """Look before opening, which by itself has effects on devices; what is swapped in is found afterwards."""
    try:
        kind = type_of(os.stat(place.name, dir_fd=place.directory, follow_symlinks=False))
    except FileNotFoundError:
        if "create" in open_flags:
            return
        raise
    if kind == "symbolic-link":
        raise FileError("exist" if "exclusive" in open_flags and "create" in open_flags else "loop")
    if kind not in OPENABLE:
        raise FileError("unsupported")


def _mode(place: Place, open_flags: Collection[str], flags: Collection[str]) -> int:
    mode = _ALWAYS
    if "write" in flags:
        mode |= os.O_RDWR if "read" in flags else os.O_WRONLY
    if "create" in open_flags:
        mode |= os.O_CREAT | (os.O_EXCL if "exclusive" in open_flags else 0)
    if "truncate" in open_flags:
        mode |= os.O_TRUNC
    if place.wants_directory or "directory" in open_flags:
        mode |= os.O_DIRECTORY
    return mode


def _directory_flags(base: Descriptor) -> list[str]:
    # C libraries never ask for mutate-directory and expect it: it comes with the folder.
    return ["read", "mutate-directory"] if base.is_mutable else ["read"]


def _file_flags(flags: Collection[str]) -> list[str]:
    return [name for name in ("read", "write") if name in flags] or ["read"]
