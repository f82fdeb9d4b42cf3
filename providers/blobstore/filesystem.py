"""Blobs in a folder: `BUCKET/CONTAINER/OBJECT`, each name encoded so that it is one plain file name.

Everything is opened beneath a descriptor of the root and never through a symbolic link. An object is written
to a file of its own, synced, and then renamed to its place: readers see the old bytes or the new ones.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import AsyncIterable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anyio
from anyio import to_thread

from lattice.errors import Failed, Invalid
from lattice.quantities import parse_size
from lattice.settings import path, setting, text
from lattice.sources import Source, rechunked
from lattice.streams import ByteReceiver
from providers.blobstore.bucket import (
    PAGE_LENGTH,
    BlobError,
    BlobInfo,
    Bucket,
    ContainerInfo,
    Page,
    check_container,
    check_object,
    check_range,
    no_container,
    no_object,
)
from providers.blobstore.file_names import decoded, encoded
from providers.blobstore.provider import BUCKET_HELP, BlobProvider
from providers.registry import Kind, ProviderContext

PIECE_BYTES = 256 * 1024
"""Read or written by one turn of a thread."""
THREADS = 8
INCOMING = ".incoming"
SETTLED_SECONDS = 60.0
"""What has been in `INCOMING` for so long is held by its writer, or was left there by one that was killed."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemSettings:
    """Of `blobstore-filesystem`."""

    root: Path = setting(Path(), "Folder in which the blobs are kept; required.", path, metavar="FOLDER")
    quota: int = setting(0, "Bytes that one bucket may hold; 0: no limit.", parse_size, metavar="SIZE")
    bucket: tuple[str, ...] = setting((), BUCKET_HELP, text, metavar="NAME", repeated=True)


class FilesystemStore:
    """A `Store` in a folder of the operator's choice."""

    # The mutable state is the descriptors of the root and of what is incoming, and what each bucket holds.

    def __init__(self, root: Path, *, quota_bytes: int = 0) -> None:
        """`quota_bytes` are those of each bucket; 0 is without a limit."""
        self._root = root
        self._quota_bytes = quota_bytes
        self._limiter = anyio.CapacityLimiter(THREADS)
        self._buckets: dict[str, FilesystemBucket] = {}
        self.root_fd = self.incoming_fd = -1

    def __repr__(self) -> str:
        return f"<FilesystemStore {self._root}>"

    async def start(self) -> None:
        await self.run(self._open)

    def _open(self) -> None:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Failed(f"folder {self._root} can't be used for blobs: {error.strerror or error}") from None
        self.root_fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with suppress(FileExistsError):
            os.mkdir(INCOMING, 0o700, dir_fd=self.root_fd)
        self.incoming_fd = os.open(INCOMING, _FOLDER, dir_fd=self.root_fd)
        self._sweep()

    def _sweep(self) -> None:
        """Delete what writers left that were killed, whichever process they were."""
        settled = time.time() - SETTLED_SECONDS
        for name in os.listdir(self.incoming_fd):
            with suppress(FileNotFoundError):
                if os.stat(name, dir_fd=self.incoming_fd, follow_symlinks=False).st_mtime < settled:
                    _delete_unheld(name, self.incoming_fd)

    async def check(self) -> None:
        await self.run(self._check)

    def _check(self) -> None:
        if os.stat(self._root).st_ino != os.fstat(self.root_fd).st_ino:
            raise Failed(f"folder {self._root} is another one than at the start")
        name = f"check-{secrets.token_hex(8)}"
        os.close(os.open(name, _NEW, 0o600, dir_fd=self.incoming_fd))
        os.unlink(name, dir_fd=self.incoming_fd)
        self._sweep()

    async def aclose(self) -> None:
        for descriptor in (self.root_fd, self.incoming_fd):
            if descriptor >= 0:
                await to_thread.run_sync(os.close, descriptor)
        self.root_fd = self.incoming_fd = -1

    def bucket(self, name: str) -> Bucket:
        if name not in self._buckets:
            self._buckets[name] = FilesystemBucket(self, name, self._quota_bytes)
        return self._buckets[name]

    async def run(self, work: Callable[..., Result], *args: object) -> Result:
        """Run on a thread; what the file system raises becomes `Failed`."""
        try:
            return await to_thread.run_sync(work, *args, limiter=self._limiter)
        except OSError as error:
            raise Failed(f"the folder of blobs does not work: {error.strerror or error}") from error


class FilesystemBucket:
    """A `Bucket` that is a folder."""

    # The mutable state is the bytes that are stored, once they were counted, and those that come in.

    def __init__(self, store: FilesystemStore, name: str, quota_bytes: int) -> None:
        self._store = store
        self._name = name
        self._quota_bytes = quota_bytes
        self._used: int | None = None

    async def create(self, container: str) -> ContainerInfo:
        name = _file_name(check_container(container), "container")
        await self._store.run(self._create, name)
        return await self.info(container)

    def _create(self, name: str) -> None:
        for folder, parent in ((self._name, ()), (name, (self._name,))):
            with self._folder(*parent) as descriptor, suppress(FileExistsError):
                os.mkdir(folder, 0o700, dir_fd=descriptor)
                os.fsync(descriptor)

    async def info(self, container: str) -> ContainerInfo:
        created = await self._in(container, lambda descriptor: os.fstat(descriptor).st_ctime)
        return ContainerInfo(name=container, created_at=created)

    async def delete(self, container: str) -> None:
        await self.clear(container)
        name = _file_name(container, "container")

        def remove() -> None:
            with self._folder(self._name) as descriptor:
                os.rmdir(name, dir_fd=descriptor)

        await self._store.run(remove)

    async def clear(self, container: str) -> None:
        def clear(descriptor: int) -> int:
            freed = 0
            for entry in list(os.scandir(descriptor)):
                freed += entry.stat(follow_symlinks=False).st_size
                os.unlink(entry.name, dir_fd=descriptor)
            return freed

        self._freed(await self._in(container, clear))

    async def page(self, container: str, cursor: str = "", limit: int = PAGE_LENGTH) -> Page:
        def names(descriptor: int) -> list[str]:
            return sorted(entry.name for entry in os.scandir(descriptor) if entry.name > cursor)

        found = await self._in(container, names)
        listed = tuple(decoded(name) for name in found[:limit])
        return Page(names=listed, cursor=found[limit - 1] if len(found) > limit else "")

    async def stat(self, container: str, name: str) -> BlobInfo:
        file = _file_name(check_object(name), "object")

        def look(descriptor: int) -> BlobInfo:
            found = os.stat(file, dir_fd=descriptor, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError
            return BlobInfo(name=name, size=found.st_size, created_at=found.st_mtime)

        return await self._of_object(container, name, look)

    async def read(
        self, container: str, name: str, start: int = 0, end: int | None = None
    ) -> tuple[BlobInfo, ByteReceiver]:
        file = _file_name(check_object(name), "object")

        def look(folder: int) -> tuple[BlobInfo, int]:
            descriptor = _open_file(file, folder)
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                os.close(descriptor)
                raise FileNotFoundError
            return BlobInfo(name=name, size=found.st_size, created_at=found.st_mtime), descriptor

        info, descriptor = await self._of_object(container, name, look)
        body = _FileSource(self._store, descriptor)
        try:
            body.limit(*check_range(start, end, info.size))
        except BaseException:
            await body.aclose()
            raise
        return info, body

    async def write(self, container: str, name: str, chunks: AsyncIterable[bytes]) -> BlobInfo:
        file = _file_name(check_object(name), "object")
        await self.info(container)
        incoming = _Incoming(self._store, self)
        try:
            await incoming.fill(chunks)
            replaced = await self._of_object(container, name, lambda folder: incoming.place(folder, file))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await incoming.discard()
            raise
        self._freed(replaced)
        return await self.stat(container, name)

    async def remove(self, container: str, name: str) -> None:
        file = _file_name(check_object(name), "object")

        def unlink(descriptor: int) -> int:
            try:
                size = os.stat(file, dir_fd=descriptor, follow_symlinks=False).st_size
                os.unlink(file, dir_fd=descriptor)
            except FileNotFoundError:
                return 0
            return size

        self._freed(await self._in(container, unlink))

    async def copy(self, source: tuple[str, str], target: tuple[str, str]) -> None:
        await self.info(target[0])
        _, body = await self.read(*source)
        async with body:
            await self.write(*target, body)

    async def move(self, source: tuple[str, str], target: tuple[str, str]) -> None:
        await self.info(target[0])
        old, new = (_file_name(check_object(name), "object") for _, name in (source, target))

        def rename(source_fd: int) -> int:
            with self._folder(self._name, _file_name(target[0], "container")) as target_fd:
                os.stat(old, dir_fd=source_fd, follow_symlinks=False)
                replaced = _size(new, target_fd) if source != target else 0
                os.rename(old, new, src_dir_fd=source_fd, dst_dir_fd=target_fd)
                os.fsync(target_fd)
                return replaced

        self._freed(await self._of_object(source[0], source[1], rename))

    # The quota

    async def reserve(self, size: int) -> None:
        """Count bytes that come in. Raises `quota-exceeded`."""
        if not self._quota_bytes:
            return
        if self._used is None:
            self._used = await self._store.run(self._measure)
        if self._used + size > self._quota_bytes:
            raise BlobError(
                "quota-exceeded",
                f"bucket {self._name!r} may hold {self._quota_bytes} bytes: delete something",
            )
        self._used += size

    def release(self, size: int) -> None:
        """Take back what was reserved."""
        self._freed(size)

    def _freed(self, size: int) -> None:
        if self._used is not None:
            self._used = max(0, self._used - size)

    def _measure(self) -> int:
        total = 0
        with suppress(FileNotFoundError), self._folder(self._name) as bucket:
            for container in os.scandir(bucket):
                if not container.is_dir(follow_symlinks=False):
                    continue
                with self._folder(self._name, container.name) as folder:
                    total += sum(item.stat(follow_symlinks=False).st_size for item in os.scandir(folder))
        return total

    # Folders

    @contextmanager
    def _folder(self, *names: str) -> Iterator[int]:
        """A descriptor of the folder below the root, reached name by name."""
        descriptor = os.dup(self._store.root_fd)
        try:
            for name in names:
                below = os.open(name, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)

    async def _in(self, container: str, work: Callable[[int], Result]) -> Result:
        """Run with a container's descriptor; raises `no-such-container`."""
        name = _file_name(check_container(container), "container")

        def run() -> Result:
            try:
                folder = self._folder(self._name, name)
                descriptor = folder.__enter__()
            except (FileNotFoundError, NotADirectoryError):
                raise no_container(container) from None
            try:
                return work(descriptor)
            finally:
                folder.__exit__(None, None, None)

        return await self._store.run(run)

    async def _of_object(self, container: str, name: str, work: Callable[[int], Result]) -> Result:
        def run(descriptor: int) -> Result:
            try:
                return work(descriptor)
            except FileNotFoundError:
                raise no_object(container, name) from None

        return await self._in(container, run)


def _delete_unheld(name: str, folder: int) -> None:
    """Delete an incoming file unless its writer lives and holds it. Runs on a thread."""
    descriptor = os.open(name, _FILE, dir_fd=folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=folder)
    except BlockingIOError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            raise
    finally:
        os.close(descriptor)


class _Incoming:
    """An object on its way: a file that nobody sees, locked as long as its writer lives."""

    # The mutable state is the file, until it was placed or discarded, and what it has taken of the quota.

    def __init__(self, store: FilesystemStore, bucket: FilesystemBucket) -> None:
        self._store = store
        self._bucket = bucket
        self._name = secrets.token_hex(16)
        self._descriptor = -1
        self._size = 0

    async def fill(self, chunks: AsyncIterable[bytes]) -> None:
        self._descriptor = await self._store.run(self._open)
        async for piece in rechunked(chunks, PIECE_BYTES):
            await self._bucket.reserve(len(piece))
            self._size += len(piece)
            await self._store.run(_write_all, self._descriptor, piece)
        await self._store.run(os.fsync, self._descriptor)

    def _open(self) -> int:
        descriptor = os.open(self._name, _NEW, 0o600, dir_fd=self._store.incoming_fd)
        with suppress(OSError):  # where files can't be locked, what was left behind stays
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def place(self, folder: int, name: str) -> int:
        """Give it its name; the size of what it replaced. Runs on a thread."""
        replaced = _size(name, folder)
        os.rename(self._name, name, src_dir_fd=self._store.incoming_fd, dst_dir_fd=folder)
        os.fsync(folder)
        os.close(self._descriptor)
        self._descriptor = -1
        return replaced

    async def discard(self) -> None:
        if self._descriptor >= 0:
            self._bucket.release(self._size)
            await to_thread.run_sync(self._delete)

    def _delete(self) -> None:
        os.close(self._descriptor)
        with suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._store.incoming_fd)


class _FileSource(Source):
    """The bytes of an open file; they stay as they are when the object is replaced or deleted."""

    def __init__(self, store: FilesystemStore, descriptor: int) -> None:
        super().__init__()
        self._store = store
        self._descriptor = descriptor
        self._position = self._end = 0

    def limit(self, start: int, end: int) -> None:
        """Read from `start` to before `end`."""
        self._position, self._end = start, end

    async def _pull(self) -> bytes:
        size = min(PIECE_BYTES, self._end - self._position)
        if size <= 0:
            return b""
        data = await self._store.run(os.pread, self._descriptor, size, self._position)
        if not data:
            raise Failed("a file of blobs was cut short while it was read")
        self._position += len(data)
        return data

    async def _release(self) -> None:
        await to_thread.run_sync(os.close, self._descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _open_file(name: str, folder: int) -> int:
    try:
        return os.open(name, _FILE, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:  # somebody put a symbolic link there: it is no object
            raise FileNotFoundError from None
        raise


def _size(name: str, folder: int) -> int:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


def _file_name(name: str, what: str) -> str:
    found = encoded(name)
    if len(found.encode()) > 255:
        raise BlobError("invalid", f"the {what} name {name[:40]!r}... is too long for a file system")
    return found


def _make(context: ProviderContext, settings: FilesystemSettings) -> BlobProvider:
    if settings.root == Path():
        raise Invalid(f"provider {context.name!r} needs the setting `root`: a folder for the blobs")
    store = FilesystemStore(settings.root, quota_bytes=settings.quota)
    return BlobProvider(store, open_buckets=settings.bucket)


KIND = Kind(
    name="blobstore-filesystem",
    settings=FilesystemSettings,
    make=_make,
    help="Blobs in a folder of the node's machine.",
)
