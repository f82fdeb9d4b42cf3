"""The resource `descriptor`: an open file or directory, what may be done with it, and what can be.

What a directory permits passes to all that is opened through it: nothing of a read-only folder is ever
changed. All functions but those of `Descriptor` may block and so belong on a thread.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from node.capabilities.wasi.filesystem.attributes import describe, identity_hash, new_times
from node.capabilities.wasi.filesystem.file_errors import FileError
from node.capabilities.wasi.filesystem.folders import Folder
from node.capabilities.wasi.filesystem.open_files import OpenFile, OpenFiles

READ_BYTES = 1024 * 1024
"""At most so much crosses in one read; the guest asks again for more."""

MAX_OFFSET = (1 << 63) - 1

_ADVICE = {
    "normal": os.POSIX_FADV_NORMAL,
    "sequential": os.POSIX_FADV_SEQUENTIAL,
    "random": os.POSIX_FADV_RANDOM,
    "will-need": os.POSIX_FADV_WILLNEED,
    "dont-need": os.POSIX_FADV_DONTNEED,
    "no-reuse": os.POSIX_FADV_NOREUSE,
}


class Descriptor:
    """An open file or directory of a guest."""

    __slots__ = ("depth", "file", "flags", "is_directory", "is_mutable")

    def __init__(
        self, file: OpenFile, flags: Sequence[str], *, is_directory: bool, is_mutable: bool, depth: int = 0
    ) -> None:
        self.file = file
        self.flags = frozenset(flags)
        self.is_directory = is_directory
        self.is_mutable = is_mutable
        """Whether the folder was granted for writing."""
        self.depth = depth
        """How many directories it was beneath the folder when it was opened."""

    def readable_file(self) -> int:
        """The host's number of a file that may be read."""
        return self._file("read")

    def writable_file(self) -> int:
        """The host's number of a file that may be written."""
        return self._file("write")

    def directory(self) -> int:
        """The host's number of a directory; raises `FileError` for a file."""
        if not self.is_directory:
            raise FileError("not-directory")
        return self.file.number

    def mutable_directory(self) -> int:
        """The host's number of a directory whose entries may be changed."""
        number = self.directory()
        self.check_mutable()
        return number

    def check_mutable(self) -> None:
        """Raises `FileError` in a folder that was granted for reading only."""
        if not self.is_mutable:
            raise FileError("not-permitted")

    def close(self) -> None:
        """The guest dropped it; its streams go on."""
        self.file.release()

    def _file(self, flag: str) -> int:
        if self.is_directory or flag not in self.flags:
            raise FileError("bad-descriptor")
        return self.file.number


def open_folder(folder: Folder, files: OpenFiles) -> Descriptor:
    """The descriptor of a granted folder itself."""
    files.check_room()
    number = os.open(folder.host_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    flags = ("read", "mutate-directory") if folder.writable else ("read",)
    return Descriptor(files.keep(number), flags, is_directory=True, is_mutable=folder.writable)


def read(descriptor: Descriptor, length: int, offset: int) -> tuple[bytes, bool]:
    """Bytes, and whether the end was met."""
    contents = os.pread(descriptor.readable_file(), min(length, READ_BYTES), checked_offset(offset))
    return contents, not contents


def write(descriptor: Descriptor, contents: bytes, offset: int) -> int:
    """Write at a position; how many bytes were written."""
    return os.pwrite(descriptor.writable_file(), contents, checked_offset(offset))


def set_size(descriptor: Descriptor, size: int) -> None:
    """Cut or extend a file; one that is not open for writing is invalid here, as in POSIX."""
    if descriptor.is_directory:
        raise FileError("bad-descriptor")
    descriptor.check_mutable()
    if "write" not in descriptor.flags:
        raise FileError("invalid")
    os.ftruncate(descriptor.file.number, checked_offset(size))


def set_times(descriptor: Descriptor, accessed: dict[str, Any], modified: dict[str, Any]) -> None:
    """Set when it was last read and written."""
    descriptor.check_mutable()
    number = descriptor.file.number
    os.utime(number, ns=new_times(accessed, modified, os.fstat(number)))


def advise(descriptor: Descriptor, offset: int, length: int, advice: str) -> None:
    """Tell the host how a file will be used."""
    if descriptor.is_directory:
        raise FileError("bad-descriptor")
    os.posix_fadvise(descriptor.file.number, checked_offset(offset), checked_offset(length), _ADVICE[advice])


def sync(descriptor: Descriptor) -> None:
    """Have contents and attributes reach the disk."""
    os.fsync(descriptor.file.number)


def sync_data(descriptor: Descriptor) -> None:
    """Have contents reach the disk."""
    os.fdatasync(descriptor.file.number)


def describe_open(descriptor: Descriptor) -> dict[str, Any]:
    """What `stat` of an open file or directory says."""
    return describe(os.fstat(descriptor.file.number))


def hash_open(descriptor: Descriptor) -> dict[str, int]:
    """See `identity_hash`."""
    return identity_hash(os.fstat(descriptor.file.number))


def is_same(one: Descriptor, other: Descriptor) -> bool:
    """Whether two descriptors are of the same file or directory."""
    return os.path.sameopenfile(one.file.number, other.file.number)


def checked_offset(offset: int) -> int:
    """The same position, if the host has such; raises `FileError` otherwise."""
    if offset > MAX_OFFSET:
        raise FileError("invalid")
    return offset
