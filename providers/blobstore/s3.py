"""Blobs in a bucket of an S3-compatible service: `PREFIX/BUCKET/objects/CONTAINER/OBJECT`.

Large objects are uploaded in parts, which become an object at once and at the end; an upload that breaks off
is aborted. A container is a marker beside the objects, because the service knows no empty folders.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import anyio
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store as Client

from lattice.errors import Denied, Failed, Interrupted, Invalid
from lattice.settings import boolean, setting, text
from lattice.sources import Source
from lattice.streams import ByteReceiver
from lattice.tasks import open_tasks
from providers.blobstore.bucket import (
    PAGE_LENGTH,
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
from providers.blobstore.file_names import decoded, encoded_path
from providers.blobstore.provider import BUCKET_HELP, BlobProvider
from providers.registry import Kind, ProviderContext

PART_BYTES = 5 * 1024 * 1024
"""The least that S3 takes as a part of an upload."""
PARTS_UNDER_WAY = 2
PIECE_BYTES = 256 * 1024
DELETED_AT_ONCE = 1000
RETRIES = 2
RETRY_SECONDS = 5
TIMEOUT_SECONDS = 30
TAKE_BACK_SECONDS = 1.0
"""How long an upload that is given up may go on, so that the service drops its parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """Of `blobstore-s3`."""

    s3_bucket: str = setting("", "The service's bucket, which must exist; required.", text, metavar="NAME")
    endpoint: str = setting(
        "", "Where the service is, `https://HOST[:PORT]`; by default AWS.", text, metavar="URL"
    )
    region: str = setting("us-east-1", "Region of the bucket.", text, metavar="NAME")
    access_key: str = setting(
        "", "Access key; by default that of the environment (AWS_ACCESS_KEY_ID).", text, metavar="TEXT"
    )
    secret_key: str = setting(
        "",
        "Secret key; by default that of the environment (AWS_SECRET_ACCESS_KEY).",
        text,
        metavar="TEXT",
        is_secret=True,
    )
    prefix: str = setting("", "First part of all keys.", text, metavar="TEXT")
    virtual_host: bool = setting(
        False, "Whether the bucket is part of the host's name.", boolean, metavar="BOOLEAN"
    )
    bucket: tuple[str, ...] = setting((), BUCKET_HELP, text, metavar="NAME", repeated=True)


class S3Store:
    """A `Store` in one bucket of the service."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._client = _client(settings)
        self._prefix = f"{settings.prefix.strip('/')}/".lstrip("/")

    def __repr__(self) -> str:
        return f"<S3Store {self._settings.s3_bucket} at {self._settings.endpoint or 'AWS'}>"

    async def start(self) -> None:
        await self.check()

    async def check(self) -> None:
        with _translated():
            stream = obstore.list(self._client, f"{self._prefix}-", chunk_size=1)
            async for _ in stream:
                break

    async def aclose(self) -> None:
        pass

    def bucket(self, name: str) -> Bucket:
        return S3Bucket(self._client, f"{self._prefix}{name}")


class S3Bucket:
    """A `Bucket` below a prefix; holds no state."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    async def create(self, container: str) -> ContainerInfo:
        marker = self._marker(container)
        with _translated(), suppress(AlreadyExistsError):
            await obstore.put_async(self._client, marker, b"", mode="create")
        return await self.info(container)

    async def info(self, container: str) -> ContainerInfo:
        with _translated():
            try:
                found = await obstore.head_async(self._client, self._marker(container))
            except FileNotFoundError:
                raise no_container(container) from None
        return ContainerInfo(name=container, created_at=found["last_modified"].timestamp())

    async def delete(self, container: str) -> None:
        await self.clear(container)
        with _translated():
            await obstore.delete_async(self._client, self._marker(container))

    async def clear(self, container: str) -> None:
        await self.info(container)
        with _translated():
            objects = obstore.list(self._client, self._folder(container), chunk_size=DELETED_AT_ONCE)
            async for batch in objects:
                if batch:
                    await obstore.delete_async(self._client, [item["path"] for item in batch])

    async def page(self, container: str, cursor: str = "", limit: int = PAGE_LENGTH) -> Page:
        await self.info(container)
        folder = self._folder(container)
        offset = f"{folder}/{cursor}" if cursor else None
        keys: list[str] = []
        with _translated():
            async for batch in obstore.list(self._client, folder, offset=offset, chunk_size=limit + 1):
                keys.extend(item["path"].removeprefix(f"{folder}/") for item in batch)
                if len(keys) > limit:
                    break
        names = tuple(decoded(key) for key in keys[:limit])
        return Page(names=names, cursor=keys[limit - 1] if len(keys) > limit else "")

    async def stat(self, container: str, name: str) -> BlobInfo:
        key = self._key(container, name)
        with _translated():
            try:
                return _info(name, await obstore.head_async(self._client, key))
            except FileNotFoundError:
                pass
        await self.info(container)
        raise no_object(container, name)

    async def read(
        self, container: str, name: str, start: int = 0, end: int | None = None
    ) -> tuple[BlobInfo, ByteReceiver]:
        info = await self.stat(container, name)
        start, stop = check_range(start, end, info.size)
        if start == stop:
            return info, _Nothing()
        options: Any = {"range": (start, stop)}
        with _translated():
            try:
                found = await obstore.get_async(self._client, self._key(container, name), options=options)
            except FileNotFoundError:
                raise no_object(container, name) from None
        return _info(name, found.meta), _S3Source(found.stream(min_chunk_size=PIECE_BYTES))

    async def write(self, container: str, name: str, chunks: AsyncIterable[bytes]) -> BlobInfo:
        key = self._key(container, name)
        await self.info(container)
        feed = _Feed()
        scope = anyio.CancelScope(shield=True)
        async with open_tasks() as tasks:
            tasks.start_soon(self._upload, key, feed, scope)
            try:
                await feed.fill(chunks)
                await feed.is_left.wait()
            finally:
                scope.deadline = anyio.current_time() + TAKE_BACK_SECONDS
        return await self.stat(container, name)

    async def _upload(self, key: str, feed: _Feed, scope: anyio.CancelScope) -> None:
        """The client runs its own task: given up, it is told so, and has until the scope ends to take back.

        A service that hangs so keeps nobody waiting, but keeps the parts that it has.
        """
        with scope, _translated(), suppress(_BrokenOff), feed:
            await obstore.put_async(
                self._client, key, feed, chunk_size=PART_BYTES, max_concurrency=PARTS_UNDER_WAY
            )

    async def remove(self, container: str, name: str) -> None:
        await self.info(container)
        with _translated(), suppress(FileNotFoundError):
            await obstore.delete_async(self._client, self._key(container, name))

    async def copy(self, source: tuple[str, str], target: tuple[str, str]) -> None:
        await self.stat(*source)
        await self.info(target[0])
        if source != target:
            with _translated():
                await obstore.copy_async(self._client, self._key(*source), self._key(*target))

    async def move(self, source: tuple[str, str], target: tuple[str, str]) -> None:
        await self.copy(source, target)
        if source != target:
            await self.remove(*source)

    def _marker(self, container: str) -> str:
        return f"{self._prefix}/containers/{_segment(check_container(container))}"

    def _folder(self, container: str) -> str:
        return f"{self._prefix}/objects/{_segment(check_container(container))}"

    def _key(self, container: str, name: str) -> str:
        return f"{self._folder(container)}/{encoded_path(check_object(name))}"


class _Nothing(Source):
    async def _pull(self) -> bytes:
        return b""


class _S3Source(Source):
    """The bytes that come from the service, as fast as they are taken."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream: AsyncIterator[Any] = aiter(stream)

    async def _pull(self) -> bytes:
        with _translated():
            try:
                return bytes(await anext(self._stream))
            except StopAsyncIteration:
                return b""


class _BrokenOff(Exception):
    """Tells the client that no object shall come of it."""


class _Feed:
    """Hands bytes to the client's task, one chunk at a time."""

    # The mutable state is whether all bytes were handed over, and whether nobody takes them any more.

    def __init__(self) -> None:
        self.is_left = anyio.Event()
        self._send, self._receive = anyio.create_memory_object_stream[bytes](0)
        self._is_whole = False

    async def fill(self, chunks: AsyncIterable[bytes]) -> None:
        """Hand over all chunks; however it ends, the client is told. Ends early when nobody takes them."""
        with self._send, suppress(anyio.BrokenResourceError):
            async for chunk in chunks:
                await self._send.send(chunk)
            self._is_whole = True

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._receive.close()
        self.is_left.set()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._receive.receive()
        except anyio.EndOfStream:
            self._receive.close()
            if not self._is_whole:
                raise _BrokenOff from None
            raise StopAsyncIteration from None


def _segment(name: str) -> str:
    return encoded_path(name).replace("/", "%2F")


def _info(name: str, meta: Any) -> BlobInfo:
    return BlobInfo(name=name, size=meta["size"], created_at=meta["last_modified"].timestamp())


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise Denied(f"the S3 service refuses the provider's credentials: {_first_line(error)}") from error
    except FileNotFoundError as error:
        raise Interrupted(f"the S3 service lost an upload, or its bucket: {_first_line(error)}") from error
    except BaseError as error:
        text = _first_line(error)
        if "error sending request" in str(error) or "connect" in str(error).lower():
            raise Interrupted(f"the S3 service does not answer: {text}") from error
        raise Failed(f"the S3 service failed: {text}") from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300]


def _client(settings: S3Settings) -> Client:
    given: dict[str, Any] = {
        "endpoint": settings.endpoint or None,
        "access_key_id": settings.access_key or None,
        "secret_access_key": settings.secret_key or None,
    }
    return Client(
        settings.s3_bucket,
        region=settings.region,
        virtual_hosted_style_request=settings.virtual_host,
        client_options={
            "allow_http": settings.endpoint.startswith("http://"),
            "timeout": f"{TIMEOUT_SECONDS}s",
            "connect_timeout": f"{RETRY_SECONDS}s",
        },
        retry_config={
            "max_retries": RETRIES,
            "retry_timeout": timedelta(seconds=RETRY_SECONDS),
            "backoff": {
                "base": 2,
                "init_backoff": timedelta(seconds=0.1),
                "max_backoff": timedelta(seconds=1.0),
            },
        },
        **{key: value for key, value in given.items() if value is not None},
    )


def _make(context: ProviderContext, settings: S3Settings) -> BlobProvider:
    if not settings.s3_bucket:
        raise Invalid(f"provider {context.name!r} needs the setting `s3_bucket`: the bucket of the service")
    return BlobProvider(S3Store(settings), open_buckets=settings.bucket)


KIND = Kind(
    name="blobstore-s3",
    settings=S3Settings,
    make=_make,
    help="Blobs in a bucket of an S3-compatible service.",
)
