"""Compiled code on disk: private, authenticated, bounded, and never half written.

An entry is two files: the code, named after its content, and a JSON description of it with a MAC under the
node's key. Loading compiled code executes it, so both are verified before a path is handed out. What that
guarantees: nobody who lacks the key can add or change an entry, whatever they write into the folder before it
is read. Between verifying and loading, only a process of the same user could swap the file, and it could as
well change this one: the folder has mode 0700, the files 0400, and links are not followed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from lattice.errors import Failed

_log = structlog.get_logger()

_TEMPORARY = "tmp-"
_STALE_SECONDS = 3600.0
_MAX_METADATA_BYTES = 64 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A verified entry; `path` is its code."""

    metadata: Mapping[str, Any]
    path: Path


class Cache:
    """The entries of one folder, which belongs to one node; every method does file I/O and may block."""

    # The mutable state is on disk; in memory only which code files were verified, by their inode and times.

    def __init__(self, folder: Path, key: bytes, max_bytes: int) -> None:
        self._folder = folder
        self._key = key
        self._max_bytes = max_bytes
        self._verified: dict[str, tuple[int, ...]] = {}
        self.total_bytes = 0
        """Bytes of compiled code on disk, as of the last look at the folder."""
        with _explained(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_private()
        self._remove_leftovers()
        self._evict(keep="")

    def _make_private(self) -> None:
        status = self._folder.stat()
        if status.st_uid != os.geteuid():
            raise Failed(f"the folder {self._folder} belongs to another user: give a data folder of your own")
        if status.st_mode & 0o077:
            self._folder.chmod(0o700)

    def temporary(self) -> Path:
        """A new name in the folder, for a file that `store` will take; leftovers go after an hour."""
        return self._folder / f"{_TEMPORARY}{secrets.token_hex(8)}"

    def load(self, name: str) -> Entry | None:
        """The verified entry, or None; one that is broken or foreign is removed and logged."""
        try:
            return self._load(name)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("cache.dropped", entry=name, reason=str(error))
            self.drop(name)
            return None

    def _load(self, name: str) -> Entry:
        metadata = self._read_metadata(name)
        path = self._code_path(name, metadata["code_sha256"])
        self._verify_code(path, metadata)
        for used in (path, self._metadata_path(name)):
            with suppress(OSError):  # a read-only folder still serves what it has
                os.utime(used)
        self._verified[path.name] = _signature(path.stat())
        return Entry(metadata=metadata, path=path)

    def _read_metadata(self, name: str) -> dict[str, Any]:
        with _open(self._metadata_path(name)) as file:
            raw = file.read(_MAX_METADATA_BYTES)
        mac, _, body = raw.partition(b"\n")
        if not hmac.compare_digest(mac, self._mac(name, body)):
            raise ValueError("its description was not written by this node")
        metadata: dict[str, Any] = json.loads(body)
        return metadata

    def _verify_code(self, path: Path, metadata: Mapping[str, Any]) -> None:
        with _open(path) as file:
            status = os.fstat(file.fileno())
            if self._verified.get(path.name) == _signature(status):
                return
            if status.st_size != metadata["code_bytes"]:
                raise ValueError("its code is truncated")
            if _sha256(file) != metadata["code_sha256"]:
                raise ValueError("its code was changed")

    def store(self, name: str, code: Path, metadata: Mapping[str, Any]) -> Entry:
        """Take over the file `code` (from `temporary`) as an entry.

        Raises `Failed` when it can't be written; then nothing is left of it.
        """
        with _explained(self._folder), _removed_on_error(code):
            with _open(code) as file:
                digest = _sha256(file)
                size = os.fstat(file.fileno()).st_size
            complete = {**metadata, "code_sha256": digest, "code_bytes": size}
            os.chmod(code, 0o400)
            path = self._code_path(name, digest)
            os.rename(code, path)
            self._write_metadata(name, complete)
            self._verified[path.name] = _signature(path.stat())
        self._evict(keep=name)
        return Entry(metadata=complete, path=path)

    def _write_metadata(self, name: str, metadata: Mapping[str, Any]) -> None:
        body = json.dumps(metadata).encode()
        temporary = self.temporary()
        with _removed_on_error(temporary):
            with open(temporary, "xb", opener=_private) as file:
                file.write(self._mac(name, body) + b"\n" + body)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, self._metadata_path(name))
        _sync_folder(self._folder)

    def drop(self, name: str) -> None:
        """Remove an entry, as far as the folder can be written."""
        for path in (self._metadata_path(name), *self._folder.glob(f"{name}-*.cwasm")):
            self._verified.pop(path.name, None)
            with suppress(OSError):
                path.unlink()

    def _evict(self, keep: str) -> None:
        entries = sorted(self._by_age())
        self.total_bytes = sum(size for _, size, _ in entries)
        for _, size, name in entries:
            if self.total_bytes <= self._max_bytes:
                return
            if name != keep:
                _log.info("cache.evicted", entry=name, bytes=size)
                self.drop(name)
                self.total_bytes -= size

    def _by_age(self) -> list[tuple[float, int, str]]:
        """(last use, size, entry name) of every code file."""
        found = []
        for path in self._folder.glob("*.cwasm"):
            with suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path.name.split("-")[0]))
        return found

    def _remove_leftovers(self) -> None:
        """What a crash left: temporary files, and code whose description was never written."""
        described = {path.stem for path in self._folder.glob("*.json")}
        orphans = [path for path in self._folder.glob("*.cwasm") if path.name.split("-")[0] not in described]
        for path in (*self._folder.glob(f"{_TEMPORARY}*"), *orphans):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()

    def _metadata_path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _code_path(self, name: str, code_sha256: str) -> Path:
        return self._folder / f"{name}-{code_sha256[:32]}.cwasm"

    def _mac(self, name: str, body: bytes) -> bytes:
        return hmac.new(self._key, name.encode() + b"\n" + body, hashlib.sha256).hexdigest().encode()


def _open(path: Path) -> Any:
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC))


def _private(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _signature(status: os.stat_result) -> tuple[int, ...]:
    """What changes when a file's content changes; its change time can't be set back."""
    return status.st_ino, status.st_size, status.st_ctime_ns


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn an `OSError` into a `Failed` that says what to do."""
    try:
        yield
    except OSError as error:
        raise Failed(
            f"compiled code can't be kept in {folder}: {error.strerror or error}; "
            "free space there or make it writable, or give another data folder"
        ) from error


@contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
