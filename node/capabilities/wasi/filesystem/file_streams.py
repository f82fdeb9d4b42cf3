"""Streams over open files. They share the file with its descriptor, and each has a position of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from node.capabilities.wasi.filesystem.descriptors import Descriptor, checked_offset
from node.capabilities.wasi.filesystem.file_errors import FileStreamFailed, from_os
from node.capabilities.wasi.filesystem.file_threads import FileThreads
from node.capabilities.wasi.streams import SlowInput, SlowOutput, StreamClosed

T = TypeVar("T")


class FileInput(SlowInput):
    """A file's bytes from a position on."""

    __slots__ = ("_file", "_position", "_threads")

    def __init__(self, descriptor: Descriptor, offset: int, threads: FileThreads) -> None:
        super().__init__()
        descriptor.readable_file()
        self._position = checked_offset(offset)
        self._threads = threads
        self._file = descriptor.file.share()

    async def _fetch(self, limit: int) -> bytes:
        contents = await _on_thread(lambda: os.pread(self._file.number, limit, self._position), self._threads)
        if not contents:
            raise StreamClosed
        self._position += len(contents)
        return contents

    def close(self) -> None:
        self._file.release()


class FileOutput(SlowOutput):
    """Writes to a file from a position on; without a position, always at its end."""

    def __init__(self, descriptor: Descriptor, offset: int | None, threads: FileThreads) -> None:
        super().__init__()
        descriptor.writable_file()
        self._position = None if offset is None else checked_offset(offset)
        self._threads = threads
        self._file = descriptor.file.share()

    async def _store(self, contents: bytes) -> None:
        await _on_thread(lambda: self._write_all(contents), self._threads)

    def close(self) -> None:
        self._file.release()

    def _write_all(self, contents: bytes) -> None:
        rest = memoryview(contents)
        while rest:
            if self._position is None:
                written = os.pwritev(self._file.number, [rest], 0, os.RWF_APPEND)
            else:
                written = os.pwrite(self._file.number, rest, self._position)
                self._position += written
            rest = rest[written:]


async def _on_thread(work: Callable[[], T], threads: FileThreads) -> T:
    try:
        return await threads.run(work)
    except OSError as error:
        raise FileStreamFailed(from_os(error).code) from None
    except OverflowError:
        raise FileStreamFailed("invalid") from None
