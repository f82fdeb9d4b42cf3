"""What is done to names beneath a directory. May block and so belongs on a thread.

Each function resolves its paths first and then works on a single name in an open directory, which the kernel
does not follow.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from node.capabilities.wasi.filesystem.attributes import describe, identity_hash, new_times, type_of
from node.capabilities.wasi.filesystem.descriptors import Descriptor
from node.capabilities.wasi.filesystem.file_errors import FileError
from node.capabilities.wasi.filesystem.resolution import Place, climb, encode_path, find

DIRECTORY_MODE = 0o777


def describe_at(base: Descriptor, path_flags: Collection[str], path: str) -> dict[str, Any]:
    """What `stat` says of a name."""
    with find(base.directory(), path, follows=_follows(path_flags)) as place:
        return describe(_status(place))


def hash_at(base: Descriptor, path_flags: Collection[str], path: str) -> dict[str, int]:
    """See `identity_hash`."""
    with find(base.directory(), path, follows=_follows(path_flags)) as place:
        return identity_hash(_status(place))


def set_times_at(
    base: Descriptor,
    path_flags: Collection[str],
    path: str,
    accessed: dict[str, Any],
    modified: dict[str, Any],
) -> None:
    """Set when it was last read and written."""
    with find(base.mutable_directory(), path, follows=_follows(path_flags)) as place:
        times = new_times(accessed, modified, _status(place))
        os.utime(place.name, ns=times, dir_fd=place.directory, follow_symlinks=False)


def create_directory_at(base: Descriptor, path: str) -> None:
    """Make a directory."""
    with find(base.mutable_directory(), path, follows=False, follows_slash=False) as place:
        os.mkdir(place.name, DIRECTORY_MODE, dir_fd=place.directory)


def remove_directory_at(base: Descriptor, path: str) -> None:
    """Remove an empty directory."""
    with find(base.mutable_directory(), path, follows=False, follows_slash=False) as place:
        os.rmdir(place.name, dir_fd=place.directory)


def unlink_file_at(base: Descriptor, path: str) -> None:
    """Remove the name of anything but a directory."""
    with find(base.mutable_directory(), path, follows=False, follows_slash=False) as place:
        if place.wants_directory:
            raise FileError("is-directory" if _is_directory(place) else "not-directory")
        os.unlink(place.name, dir_fd=place.directory)


def rename_at(base: Descriptor, old_path: str, new_base: Descriptor, new_path: str) -> None:
    """Move a name; both folders must permit changes."""
    old_root, new_root = base.mutable_directory(), new_base.mutable_directory()
    with (
        find(old_root, old_path, follows=False, follows_slash=False) as old,
        find(new_root, new_path, follows=False, follows_slash=False) as new,
    ):
        if (old.wants_directory or new.wants_directory) and not _is_directory(old):
            raise FileError("not-directory")
        os.rename(old.name, new.name, src_dir_fd=old.directory, dst_dir_fd=new.directory)


def link_at(
    base: Descriptor, path_flags: Collection[str], old_path: str, new_base: Descriptor, new_path: str
) -> None:
    """Give a file another name; both folders must permit changes, as either name allows them then."""
    if _follows(path_flags):
        raise FileError("invalid")
    old_root, new_root = base.mutable_directory(), new_base.mutable_directory()
    with (
        find(old_root, old_path, follows=False) as old,
        find(new_root, new_path, follows=False, follows_slash=False) as new,
    ):
        if old.wants_directory and not _is_directory(old):
            raise FileError("not-directory")
        _refuse_slash(new)
        os.link(old.name, new.name, src_dir_fd=old.directory, dst_dir_fd=new.directory, follow_symlinks=False)


def symlink_at(base: Descriptor, target: str, new_path: str) -> None:
    """Make a link; one that leads out of the folder, for whoever else reads it, is refused."""
    root, encoded = base.mutable_directory(), encode_path(target)
    with find(root, new_path, follows=False, follows_slash=False) as place:
        if climb(encoded) > base.depth + place.depth:
            raise FileError("not-permitted")
        _refuse_slash(place)
        os.symlink(encoded, place.name, dir_fd=place.directory)


def readlink_at(base: Descriptor, path: str) -> str:
    """Where a link leads; absolute targets, which can't be followed, would only tell of the host."""
    with find(base.directory(), path, follows=False) as place:
        target = os.readlink(place.name, dir_fd=place.directory)
    if target.startswith(b"/"):
        raise FileError("not-permitted")
    try:
        return target.decode()
    except UnicodeDecodeError:
        raise FileError("illegal-byte-sequence") from None


def _follows(path_flags: Collection[str]) -> bool:
    return "symlink-follow" in path_flags


def _status(place: Place) -> os.stat_result:
    status = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
    if place.wants_directory and type_of(status) != "directory":
        raise FileError("not-directory")
    return status


def _is_directory(place: Place) -> bool:
    status = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
    return type_of(status) == "directory"


def _refuse_slash(place: Place) -> None:
    """A slash after a name that is to become no directory."""
    if place.wants_directory:
        raise FileError("exist" if _is_directory(place) else "not-directory")
