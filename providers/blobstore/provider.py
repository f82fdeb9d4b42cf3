"""`lattice:blobstore/blobs` over any store: grants, arguments, and errors as values of the interface."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any

from lattice.errors import Invalid
from lattice.sources import BytesSource
from lattice.tasks import own_task
from providers.blobstore import grants
from providers.blobstore.bucket import (
    PAGE_LENGTH,
    BlobError,
    BlobInfo,
    ContainerInfo,
    Store,
    check_object,
)
from providers.blobstore.grants import Grant
from providers.provider import BoundLink, Provider, ProviderCall, ProviderFunction, Streamed

INTERFACE = "lattice:blobstore/blobs"
BUCKET_HELP = "Bucket that links may name; repeated. Without any, links may name every one."
REMOVED_AT_ONCE = 1000
"""Names that one call may remove."""


class BlobProvider(Provider):
    """A provider of blobs; holds no state but the store's."""

    def __init__(self, store: Store, *, open_buckets: Collection[str] = ()) -> None:
        self._store = store
        self._open_buckets = open_buckets
        self._functions = {name: _answered(function) for name, function in FUNCTIONS.items()}

    def __repr__(self) -> str:
        return f"<BlobProvider {self._store!r}>"

    @property
    def interfaces(self) -> Mapping[str, Mapping[str, ProviderFunction]]:
        return {INTERFACE: self._functions}

    async def start(self) -> None:
        await self._store.start()

    async def check(self) -> None:
        await self._store.check()

    async def aclose(self) -> None:
        await self._store.aclose()

    async def check_link(self, link: BoundLink) -> None:
        grants.parse(link, self._open_buckets)

    async def bind(self, link: BoundLink) -> Grant:
        configuration = grants.parse(link, self._open_buckets)
        return Grant(
            link=link.name,
            bucket=self._store.bucket(configuration.bucket),
            container=configuration.container,
            is_writable=configuration.is_writable,
        )

    async def unbind(self, link: BoundLink, binding: Grant) -> None:
        pass


def _answered(function: ProviderFunction) -> ProviderFunction:
    """Return `{"ok": value}` or `{"err": {case: text}}`, as values of a result are."""

    @wraps(function)
    async def answer(call: ProviderCall, *args: Any) -> Any:
        await own_task()
        try:
            value = await function(call, *args)
        except BlobError as error:
            return {"err": {error.case: error.text}}
        if isinstance(value, Streamed):
            return Streamed(value={"ok": value.value}, body=value.body)
        return {"ok": value}

    return answer


def _grant(call: ProviderCall) -> Grant:
    grant: Grant = call.binding
    return grant


def _container(info: ContainerInfo) -> dict[str, Any]:
    return {"created-at": int(info.created_at)}


def _blob(info: BlobInfo) -> dict[str, Any]:
    return {"size": info.size, "created-at": int(info.created_at)}


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise Invalid(f"{what} must be a string, not {type(value).__name__}")
    return value


def _number(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Invalid(f"{what} must be a number from 0 on, not {value!r}")
    return value


async def _create(call: ProviderCall, container: str) -> Any:
    """One that exists is opened, also over a link that is for reading only."""
    grant, name = _grant(call), _text(container, "container")
    if not grant.is_writable:
        with suppress(BlobError):
            return _container(await grant.bucket.info(grant.container_of(name)))
    return _container(await grant.bucket.create(grant.writable(name)))


async def _info(call: ProviderCall, container: str) -> Any:
    grant = _grant(call)
    return _container(await grant.bucket.info(grant.container_of(_text(container, "container"))))


async def _delete(call: ProviderCall, container: str) -> None:
    grant = _grant(call)
    await grant.bucket.delete(grant.writable(_text(container, "container")))


async def _clear(call: ProviderCall, container: str) -> None:
    grant = _grant(call)
    await grant.bucket.clear(grant.writable(_text(container, "container")))


async def _list(call: ProviderCall, container: str, cursor: str = "", limit: int = PAGE_LENGTH) -> Any:
    grant = _grant(call)
    limit = max(1, min(_number(limit, "limit"), PAGE_LENGTH))
    name = grant.container_of(_text(container, "container"))
    page = await grant.bucket.page(name, _text(cursor, "cursor"), limit)
    return {"names": list(page.names), "cursor": page.cursor}


async def _stat(call: ProviderCall, container: str, name: str) -> Any:
    grant = _grant(call)
    place = grant.container_of(_text(container, "container"))
    return _blob(await grant.bucket.stat(place, check_object(_text(name, "name"))))


async def _get(
    call: ProviderCall, container: str, name: str, start: int = 0, end: int | None = None
) -> Streamed:
    """From `start` to before `end`."""
    grant = _grant(call)
    place = grant.container_of(_text(container, "container"))
    stop = None if end is None else _number(end, "end")
    info, body = await grant.bucket.read(
        place, check_object(_text(name, "name")), _number(start, "start"), stop
    )
    return Streamed(value=_blob(info), body=body)


async def _put(call: ProviderCall, container: str, name: str) -> Any:
    """The bytes are the call's stream; an object is stored once that has ended."""
    grant = _grant(call)
    place = grant.writable(_text(container, "container"))
    body: AsyncIterable[bytes] = call.body if call.body is not None else BytesSource(b"")
    return _blob(await grant.bucket.write(place, check_object(_text(name, "name")), body))


async def _remove(call: ProviderCall, container: str, names: Sequence[str]) -> None:
    grant = _grant(call)
    place = grant.writable(_text(container, "container"))
    if not isinstance(names, Sequence) or isinstance(names, str) or len(names) > REMOVED_AT_ONCE:
        raise Invalid(f"names must be a list of at most {REMOVED_AT_ONCE} names")
    for name in names:
        await grant.bucket.remove(place, check_object(_text(name, "name")))


async def _copy(call: ProviderCall, source: Sequence[str], target: Sequence[str]) -> None:
    grant = _grant(call)
    place = _place(grant.container_of, source, "source")
    await grant.bucket.copy(place, _place(grant.writable, target, "target"))


async def _move(call: ProviderCall, source: Sequence[str], target: Sequence[str]) -> None:
    grant = _grant(call)
    place = _place(grant.writable, source, "source")
    await grant.bucket.move(place, _place(grant.writable, target, "target"))


def _place(container_of: Callable[[str], str], place: Sequence[str], what: str) -> tuple[str, str]:
    if not isinstance(place, Sequence) or isinstance(place, str) or len(place) != 2:
        raise Invalid(f"{what} must be a list of a container's and an object's name")
    return container_of(_text(place[0], f"{what} container")), check_object(_text(place[1], f"{what} name"))


FUNCTIONS: Mapping[str, ProviderFunction] = {
    "create": _create,
    "info": _info,
    "delete": _delete,
    "clear": _clear,
    "list": _list,
    "stat": _stat,
    "get": _get,
    "put": _put,
    "remove": _remove,
    "copy": _copy,
    "move": _move,
}
