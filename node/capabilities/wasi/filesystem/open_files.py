"""The host's files that one sandbox holds open: how many, and that each is closed once and not too early."""

from __future__ import annotations

import os
from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from node.capabilities.wasi.filesystem.file_errors import FileError

MAX_OPEN_FILES = 256
"""So many descriptors and listings may be open in one sandbox; streams share their descriptor's file."""

# Closing the last handle of a deleted file frees its blocks, which takes long for large ones; and a guest
# that drops a handle can't be made to wait.
_closing = ThreadPoolExecutor(2, thread_name_prefix="close-files")


class OpenFile:
    """One file of the host and how many objects of the guest use it.

    What was opened for a call that was cancelled meanwhile has no user who would release it: it closes with
    its last reference.
    """

    __slots__ = ("_close", "_files", "_users", "number")

    def __init__(self, number: int, files: OpenFiles, close: Callable[[], None]) -> None:
        self.number = number
        self._close = close
        self._files = files
        self._users = 1

    def share(self) -> OpenFile:
        """Another user; each calls `release` once."""
        self._users += 1
        return self

    def release(self) -> None:
        self._users -= 1
        if not self._users:
            self._files.forget()
            _closing.submit(self._close)

    def __del__(self) -> None:
        if self._users:
            self._files.forget()
            self._close()


class OpenFiles:
    """The count for one sandbox, kept in its state. Changed by one thread at a time, as its guest waits."""

    def __init__(self, limit: int = MAX_OPEN_FILES) -> None:
        self._limit = limit
        self._count = 0

    @classmethod
    def of(cls, state: MutableMapping[Any, Any]) -> OpenFiles:
        if cls not in state:
            state[cls] = cls()
        found: OpenFiles = state[cls]
        return found

    def __len__(self) -> int:
        return self._count

    def check_room(self) -> None:
        """Raises `FileError` when no more may be opened."""
        if self._count >= self._limit:
            raise FileError("quota")

    def keep(self, number: int, close: Callable[[], None] | None = None) -> OpenFile:
        """Take over an open file of the host; `close` is for what the number alone does not close."""
        self._count += 1
        return OpenFile(number, self, close or partial(os.close, number))

    def forget(self) -> None:
        self._count -= 1
