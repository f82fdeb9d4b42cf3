"""The resource `directory-entry-stream`."""

from __future__ import annotations

import os
from collections import deque
from typing import Any

from node.capabilities.wasi.filesystem.attributes import type_of
from node.capabilities.wasi.filesystem.descriptors import Descriptor
from node.capabilities.wasi.filesystem.file_errors import FileError
from node.capabilities.wasi.filesystem.open_files import OpenFiles

BATCH_ENTRIES = 256
"""So many entries are read ahead: a thread for each would take longer than the reading."""


class Listing:
    """One pass over a directory, with a position of its own."""

    __slots__ = ("_ahead", "_entries", "_file", "_has_ended")

    def __init__(self, descriptor: Descriptor, files: OpenFiles) -> None:
        """May block, and so belongs on a thread."""
        root = descriptor.directory()
        files.check_room()
        number = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        try:
            self._entries = os.scandir(number)
        except BaseException:
            os.close(number)
            raise
        self._file = files.keep(number, self._close)
        self._ahead: deque[dict[str, str] | None] = deque()
        self._has_ended = False

    @property
    def is_at_hand(self) -> bool:
        """Whether the next entry is known without reading."""
        return bool(self._ahead) or self._has_ended

    def next(self) -> dict[str, Any] | None:
        """The next entry, none at the end; raises `FileError` for a name that is no text. May block."""
        if not self.is_at_hand:
            self._read_ahead()
        if not self._ahead:
            return None
        entry = self._ahead.popleft()
        if entry is None:
            raise FileError("illegal-byte-sequence")
        return entry

    def close(self) -> None:
        self._file.release()

    def _close(self) -> None:
        self._entries.close()
        os.close(self._file.number)  # entries of unknown type are looked at through it

    def _read_ahead(self) -> None:
        for entry in self._entries:
            self._ahead.append(_entry(entry))
            if len(self._ahead) >= BATCH_ENTRIES:
                return
        self._has_ended = True


def _entry(entry: os.DirEntry[str]) -> dict[str, str] | None:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        return None
    return {"type": _type(entry), "name": entry.name}


def _type(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "symbolic-link"
    if entry.is_dir(follow_symlinks=False):
        return "directory"
    if entry.is_file(follow_symlinks=False):
        return "regular-file"
    try:
        return type_of(entry.stat(follow_symlinks=False))
    except OSError:
        return "unknown"
