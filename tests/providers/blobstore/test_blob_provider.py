"""The provider of blobs: what a link opens, and what callers see of errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from lattice.clock import now
from lattice.errors import Invalid
from lattice.sources import BytesSource
from lattice.streams import ByteReceiver, receive_body
from providers.blobstore.bucket import Store
from providers.blobstore.provider import INTERFACE, BlobProvider
from providers.provider import BoundLink, ProviderCall, Streamed


class Linked:
    """Calls over one link, as they come from a guest's node."""

    def __init__(self, provider: BlobProvider, link: BoundLink, binding: Any) -> None:
        self._provider = provider
        self._link = link
        self._binding = binding

    async def call(self, function: str, *args: Any, body: ByteReceiver | None = None) -> Any:
        call = ProviderCall(
            link=self._link, binding=self._binding, call_id="1", deadline=now() + 5, body=body
        )
        return await self._provider.interfaces[INTERFACE][function](call, *args)

    async def put(self, container: str, name: str, data: bytes) -> Any:
        return await self.call("put", container, name, body=BytesSource(data))

    async def get(self, container: str, name: str, *span: int | None) -> Any:
        found = await self.call("get", container, name, *span)
        if isinstance(found, Streamed):
            async with found.body:
                return await receive_body(found.body, max_bytes=1000)
        return found


@pytest.fixture
async def provider(memory_store: Store) -> AsyncIterator[BlobProvider]:
    provider = BlobProvider(memory_store)
    await provider.start()
    yield provider
    await provider.aclose()


async def linked(provider: BlobProvider, name: str = "default", source: str = "app", **given: str) -> Linked:
    link = BoundLink(source=source, name=name, interface="wasi:blobstore", configuration=given)
    return Linked(provider, link, await provider.bind(link))


async def test_values_and_errors_are_those_of_a_result(provider: BlobProvider) -> None:
    link = await linked(provider)

    made = await link.call("create", "c")
    put = await link.put("c", "o", b"hello")
    missing = await link.get("c", "x")

    assert set(made["ok"]) == {"created-at"}
    assert put["ok"]["size"] == 5
    assert await link.get("c", "o", 1, 3) == b"el"
    assert missing == {"err": {"no-such-object": "there is no object 'x' in container 'c'"}}
    assert await link.call("list", "c") == {"ok": {"names": ["o"], "cursor": ""}}
    assert (await link.call("stat", "c", "o"))["ok"]["size"] == 5
    assert await link.call("copy", ["c", "o"], ["c", "p"]) == {"ok": None}
    assert await link.call("move", ["c", "p"], ["c", "q"]) == {"ok": None}
    assert await link.call("remove", "c", ["o", "nothing"]) == {"ok": None}
    assert (await link.call("list", "c"))["ok"]["names"] == ["q"]
    assert await link.call("clear", "c") == {"ok": None}
    assert await link.call("delete", "c") == {"ok": None}
    assert set((await link.call("info", "c"))["err"]) == {"no-such-container"}


async def test_a_link_opens_the_bucket_of_its_source_unless_told_otherwise(provider: BlobProvider) -> None:
    one, two = await linked(provider, source="one"), await linked(provider, source="two")
    shared = await linked(provider, source="two", bucket="one")
    await one.call("create", "c")

    assert "err" in await two.call("info", "c")
    assert "ok" in await shared.call("info", "c")


async def test_a_link_for_reading_only_changes_nothing(provider: BlobProvider) -> None:
    writer = await linked(provider)
    await writer.call("create", "c")
    await writer.put("c", "o", b"hello")

    reader = await linked(provider, access="read-only")
    changes = [
        await reader.call("create", "d"),
        await reader.call("delete", "c"),
        await reader.call("clear", "c"),
        await reader.put("c", "o", b"changed"),
        await reader.call("remove", "c", ["o"]),
        await reader.call("copy", ["c", "o"], ["c", "p"]),
        await reader.call("move", ["c", "o"], ["c", "p"]),
    ]

    assert [list(change["err"]) for change in changes] == [["not-granted"]] * len(changes)
    assert "access=read-write" in changes[0]["err"]["not-granted"]
    assert await reader.get("c", "o") == b"hello"
    assert (await reader.call("list", "c"))["ok"]["names"] == ["o"]
    assert "ok" in await reader.call("create", "c")  # which opens it, as it is there


async def test_a_link_of_one_container_opens_no_other(provider: BlobProvider) -> None:
    everything = await linked(provider)
    for container in ("photos", "secrets"):
        await everything.call("create", container)
        await everything.put(container, "o", container.encode())

    link = await linked(provider, name="pictures", container="photos")

    assert await link.get("photos", "o") == b"photos"
    assert await link.get("pictures", "o") == b"photos"
    assert set((await link.get("secrets", "o"))["err"]) == {"not-granted"}
    assert set((await link.call("copy", ["secrets", "o"], ["photos", "p"]))["err"]) == {"not-granted"}
    assert set((await link.call("create", "more"))["err"]) == {"not-granted"}


@pytest.mark.parametrize(
    ("configuration", "named"),
    [
        ({"buckett": "x"}, "did you mean `bucket`"),
        ({"bucket": "../x"}, "`bucket`"),
        ({"access": "all"}, "`access`"),
        ({"url": "http://elsewhere"}, "`url`"),
    ],
)
async def test_a_bad_configuration_is_invalid_and_named(
    provider: BlobProvider, configuration: dict[str, str], named: str
) -> None:
    with pytest.raises(Invalid, match=named):
        await linked(provider, **configuration)


async def test_links_choose_only_among_the_buckets_that_the_operator_opened(memory_store: Store) -> None:
    provider = BlobProvider(memory_store, open_buckets=("photos",))

    await linked(provider, bucket="photos")

    with pytest.raises(Invalid, match="its operator opened photos"):
        await linked(provider, bucket="other")


@pytest.mark.parametrize(
    ("function", "args"),
    [
        ("create", [1]),
        ("get", ["c", "o", -1]),
        ("get", ["c", "o", 0, True]),
        ("remove", ["c", "o"]),
        ("copy", ["c", ["c", "o"]]),
        ("list", ["c", "", "many"]),
    ],
)
async def test_arguments_of_another_shape_are_invalid(
    provider: BlobProvider, function: str, args: list[Any]
) -> None:
    link = await linked(provider)
    await link.call("create", "c")

    with pytest.raises(Invalid):
        await link.call(function, *args)
