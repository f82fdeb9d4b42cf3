"""Finding what a guest's path means beneath a directory, whatever the tree does meanwhile.

The path is walked one component at a time from an open directory, and no step lets the kernel follow a link:
links are read and walked here too. `..` goes only to where the walk came from. So a name that is swapped
for a link between two steps leads to an error, never out; a check of strings could not promise that.

All functions here may block and so belong on a thread. Directories are open only while they are looked at.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from node.capabilities.wasi.filesystem.file_errors import FileError

PATH_BYTES = 4095
"""The longest path, and the longest target of a link, that Linux takes."""

MAX_LINKS = 40
"""So many links are followed for one path, as in Linux."""

MAX_STEPS = 8192
"""So many components are walked for one path, those of links included."""

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_Identity = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something is or might be: a name in an open directory, no link if links are followed."""

    directory: int
    name: bytes
    """One component; `.` for the directory itself."""
    depth: int
    """How many directories the place's directory is beneath the one where the walk began."""
    wants_directory: bool
    """The path ended in a slash: only a directory will do."""


def encode_path(path: str) -> bytes:
    """The bytes of a guest's path; raises `FileError` for those that mean nothing beneath a directory."""
    encoded = path.encode()
    if not encoded:
        raise FileError("no-entry")
    if b"\0" in encoded:
        raise FileError("invalid")
    if len(encoded) > PATH_BYTES:
        raise FileError("name-too-long")
    if encoded.startswith(b"/"):
        raise FileError("not-permitted")
    return encoded


@contextmanager
def find(root: int, path: str, *, follows: bool, follows_slash: bool = True) -> Iterator[Place]:
    """The place that `path` means beneath the directory `root`; it need not exist.

    With `follows` a link at the end is followed too; before a final slash it is unless `follows_slash` is
    off. Raises `FileError` for what leads out, and `OSError` for what the kernel says.
    """
    encoded = encode_path(path)
    wants_directory = encoded.endswith(b"/")
    walk = _Walk(root, encoded)
    try:
        yield walk.run(follows or (wants_directory and follows_slash), wants_directory)
    finally:
        walk.close()


class _Walk:
    """One resolution in progress. Holds one directory open beside the root."""

    def __init__(self, root: int, path: bytes) -> None:
        self._root = root
        self._current = root
        # The directories walked through, the root first: where `..` may go.
        self._trail: list[_Identity] = [_identity(root)]
        self._pending = deque(_components(path))
        self._links = 0
        self._steps = 0

    def run(self, follows: bool, wants_directory: bool) -> Place:
        while self._pending:
            self._count_step()
            name = self._pending.popleft()
            if name == b"..":
                self._ascend()
            elif name == b".":
                continue  # at the end it has made what is before it a directory that is walked into
            elif self._pending:
                self._descend(name)
            elif not follows or (target := self._link(name)) is None:
                return self._place(name, wants_directory)
            else:
                wants_directory = wants_directory or target.endswith(b"/")
                self._expand(target)
        return self._place(b".", True)

    def close(self) -> None:
        if self._current != self._root:
            os.close(self._current)
            self._current = self._root

    def _place(self, name: bytes, wants_directory: bool) -> Place:
        return Place(
            directory=self._current,
            name=name,
            depth=len(self._trail) - 1,
            wants_directory=wants_directory,
        )

    def _count_step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise FileError("name-too-long")

    def _descend(self, name: bytes) -> None:
        try:
            found = os.open(name, _DIRECTORY, dir_fd=self._current)
        except NotADirectoryError:
            target = self._link(name)
            if target is None:
                raise
            self._expand(target)
            return
        self._enter(found)
        self._trail.append(_identity(found))

    def _ascend(self) -> None:
        if len(self._trail) == 1:
            raise FileError("not-permitted")
        self._trail.pop()
        if len(self._trail) == 1:
            self.close()
            return
        self._enter(os.open(b"..", _DIRECTORY, dir_fd=self._current))
        if _identity(self._current) != self._trail[-1]:
            raise FileError(
                "busy"
            )  # moved while we were in it: where `..` leads now is not known to be beneath

    def _enter(self, directory: int) -> None:
        self.close()
        self._current = directory

    def _link(self, name: bytes) -> bytes | None:
        """The target of a link; none for what is no link, or is not there."""
        try:
            return os.readlink(name, dir_fd=self._current)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return None
            raise

    def _expand(self, target: bytes) -> None:
        self._links += 1
        if self._links > MAX_LINKS:
            raise FileError("loop")
        if target.startswith(b"/"):
            raise FileError("not-permitted")
        self._pending.extendleft(reversed(_components(target)))


def _components(path: bytes) -> list[bytes]:
    parts = [part for part in path.split(b"/") if part]
    return [part for part in parts[:-1] if part != b"."] + parts[-1:]


def _identity(directory: int) -> _Identity:
    status = os.fstat(directory)
    return status.st_dev, status.st_ino


def climb(target: bytes) -> int:
    """How many directories a link's relative target goes above the one that the link is in."""
    level = lowest = 0
    for part in _components(target):
        level += {b"..": -1, b".": 0}.get(part, 1)
        lowest = min(lowest, level)
    return -lowest
