"""The kernel's own resolution beneath a directory, to compare ours with."""

from __future__ import annotations

import ctypes
import errno
import os

OPENAT2 = 437
BENEATH = 0x08 | 0x02  # RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS

_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def identity_beneath(root: int, path: str, *, follows: bool) -> tuple[int, int] | int:
    """The device and number of what `path` means, or the error's number; leading out is `EPERM`."""
    flags = os.O_PATH | os.O_CLOEXEC | (0 if follows else os.O_NOFOLLOW)
    how = _How(flags=flags, mode=0, resolve=BENEATH)
    found = _libc.syscall(OPENAT2, root, path.encode(), ctypes.byref(how), ctypes.sizeof(how))
    if found < 0:
        number = ctypes.get_errno()
        return errno.EPERM if number == errno.EXDEV else number
    try:
        status = os.fstat(found)
        return status.st_dev, status.st_ino
    finally:
        os.close(found)


def is_available() -> bool:
    """Whether this kernel has the call."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        return identity_beneath(root, ".", follows=True) != errno.ENOSYS
    finally:
        os.close(root)
