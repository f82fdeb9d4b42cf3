"""Blobs in the object store of NATS: one of its buckets for each container.

They are named `BLOBS_{lattice}_{bucket}_{container}`, so that no link can reach what the lattice itself, or
anybody else, keeps in the same account.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lattice.bus import Bus, ObjectInfo, ObjectStore
from lattice.errors import NotFound
from lattice.settings import setting, text
from lattice.streams import ByteReceiver
from lattice.subjects import blobs_prefix
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
from providers.blobstore.provider import BUCKET_HELP, BlobProvider
from providers.registry import Kind, ProviderContext

MAX_BUCKET_LENGTH = 240
"""Of a bucket's name at the server, whose files bear it."""

_PLAIN = re.compile(rb"[A-Za-z0-9-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsBlobSettings:
    """Of `blobstore-nats`; the node's own NATS keeps the blobs."""

    bucket: tuple[str, ...] = setting((), BUCKET_HELP, text, metavar="NAME", repeated=True)


class NatsStore:
    """A `Store` on the node's own bus; holds no state."""

    def __init__(self, bus: Bus, lattice: str) -> None:
        self._bus = bus
        self._prefix = blobs_prefix(lattice)

    def __repr__(self) -> str:
        return f"<NatsStore {self._prefix}>"

    async def start(self) -> None:
        pass

    async def check(self) -> None:
        """The connection looks after itself, and calls tell at once when it is lost.

        To be unhealthy meanwhile would only keep calls away for a while after it is back.
        """

    async def aclose(self) -> None:
        pass

    def bucket(self, name: str) -> Bucket:
        return NatsBucket(self._bus, f"{self._prefix}{name}_")


class NatsBucket:
    """A `Bucket` whose containers are object stores; holds no state."""

    def __init__(self, bus: Bus, prefix: str) -> None:
        self._bus = bus
        self._prefix = prefix

    async def create(self, container: str) -> ContainerInfo:
        await self._bus.object_store(self._name(container))
        return await self.info(container)

    async def info(self, container: str) -> ContainerInfo:
        store = await self._open(container)
        with _missing(container):
            return ContainerInfo(name=container, created_at=await store.created_at())

    async def delete(self, container: str) -> None:
        with _missing(container):
            await self._bus.delete_object_store(self._name(container))

    async def clear(self, container: str) -> None:
        store = await self._open(container)
        with _missing(container):
            await store.clear()

    async def page(self, container: str, cursor: str = "", limit: int = PAGE_LENGTH) -> Page:
        store = await self._open(container)
        with _missing(container):
            page = await store.page(cursor, limit)
        return Page(names=tuple(item.name for item in page.objects), cursor=page.cursor)

    async def stat(self, container: str, name: str) -> BlobInfo:
        store = await self._open(container)
        with _missing(container):
            return _info(await self._find(store, container, name))

    async def read(
        self, container: str, name: str, start: int = 0, end: int | None = None
    ) -> tuple[BlobInfo, ByteReceiver]:
        store = await self._open(container)
        with _missing(container):
            info = await self._find(store, container, name)
            start, stop = check_range(start, end, info.size)
            try:
                info, body = await store.read(name, start=start, end=stop)
            except NotFound:
                raise no_object(container, name) from None
        return _info(info), body

    async def write(self, container: str, name: str, chunks: AsyncIterable[bytes]) -> BlobInfo:
        store = await self._open(container)
        check_object(name)
        with _missing(container):
            return _info(await store.write(name, chunks))

    async def remove(self, container: str, name: str) -> None:
        store = await self._open(container)
        check_object(name)
        with _missing(container):
            await store.delete(name)

    async def copy(self, source: tuple[str, str], target: tuple[str, str]) -> None:
        await self.info(target[0])
        _, body = await self.read(*source)
        async with body:
            await self.write(*target, body)

    async def move(self, source: tuple[str, str], target: tuple[str, str]) -> None:
        if source == target:
            await self.stat(*source)
            return
        await self.copy(source, target)
        await self.remove(*source)

    async def _find(self, store: ObjectStore, container: str, name: str) -> ObjectInfo:
        info = await store.info(check_object(name))
        if info is None:
            raise no_object(container, name)
        return info

    async def _open(self, container: str) -> ObjectStore:
        return await self._bus.object_store(self._name(container), make=False)

    def _name(self, container: str) -> str:
        name = self._prefix + _encoded(check_container(container))
        if len(name) > MAX_BUCKET_LENGTH:
            raise BlobError("invalid", f"the container name {container[:40]!r}... is too long for NATS")
        return name


@contextmanager
def _missing(container: str) -> Iterator[None]:
    try:
        yield
    except NotFound:
        raise no_container(container) from None


def _encoded(name: str) -> str:
    """Letters, digits and `-` as they are, any other byte as `_` and two digits."""
    parts = (bytes([byte]) for byte in name.encode())
    return "".join(part.decode() if _PLAIN.match(part) else f"_{part[0]:02x}" for part in parts)


def _info(info: ObjectInfo) -> BlobInfo:
    return BlobInfo(name=info.name, size=info.size, created_at=info.modified)


def _make(context: ProviderContext, settings: NatsBlobSettings) -> BlobProvider:
    store = NatsStore(context.bus, context.lattice)
    return BlobProvider(store, open_buckets=settings.bucket)


KIND = Kind(
    name="blobstore-nats",
    settings=NatsBlobSettings,
    make=_make,
    help="Blobs in the object store of the node's NATS.",
    is_default=True,
)
