"""`wasi:blobstore` through a real sandbox: the thumbnails example over several stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.nats_bus import NatsBus
from node.capabilities.blobstore import Blobstore
from node.capabilities.wasi import WasiSettings, wasi_interfaces
from node.engine.compiled import CompiledComponent
from node.engine.compiler import Compiler
from node.engine.engine import Engine
from node.engine.host import HostInterface
from providers.blobstore import BlobProvider
from providers.blobstore.bucket import Store
from providers.blobstore.conformance import content, names, pieces
from providers.blobstore.filesystem import FilesystemStore
from providers.blobstore.nats import NatsStore
from tests.node.capabilities.guests import Guest
from tests.node.capabilities.provider_links import ProviderLinks

THUMBS = Path(__file__).parents[4] / "examples/thumbs/c/thumbs.wasm"
ALBUM = "demo:thumbs/album"


async def album(guest: Guest, function: str, *args: Any) -> Any:
    return await guest.call(function, *args, interface=ALBUM)


def published(call: Any, message: Any) -> Any:
    return {"ok": None}


@pytest.fixture(scope="module")
async def thumbs(compiler: Compiler) -> CompiledComponent:
    return await compiler.compile(await anyio.Path(THUMBS).read_bytes())


@pytest.fixture
async def memory_store() -> AsyncIterator[Store]:
    async with MemoryBus(MemoryBroker()) as bus:
        yield NatsStore(bus, "test")


@pytest.fixture(params=["memory", "nats", "filesystem"])
async def store(
    request: pytest.FixtureRequest, memory_store: Store, nats_bus: NatsBus, lattice_name: str, tmp_path: Path
) -> AsyncIterator[Store]:
    makers: dict[str, Callable[[], Store]] = {
        "memory": lambda: memory_store,
        "nats": lambda: NatsStore(nats_bus, lattice_name),
        "filesystem": lambda: FilesystemStore(tmp_path / "blobs"),
    }
    store = makers[request.param]()
    await store.start()
    yield store
    await store.aclose()


@pytest.fixture
async def links(store: Store) -> ProviderLinks:
    links = ProviderLinks()
    await links.add(BlobProvider(store))
    return links


@pytest.fixture
async def guest(engine: Engine, thumbs: CompiledComponent, links: ProviderLinks) -> AsyncIterator[Guest]:
    blobstore = Blobstore(links)
    messaging = HostInterface(name="wasmcloud:messaging/consumer@0.2.0", functions={"publish": published})
    types = HostInterface(name="wasmcloud:messaging/types@0.2.0", functions={})
    imports = [*wasi_interfaces(WasiSettings()), *blobstore.interfaces(), messaging, types]
    async with anyio.create_task_group() as tasks:
        await tasks.start(blobstore.run)
        async with Guest(engine, thumbs, imports) as guest:
            yield guest
        tasks.cancel_scope.cancel()


async def test_what_is_stored_comes_back(guest: Guest) -> None:
    photo = bytes(number % 251 for number in range(2_400_000))

    added = await album(guest, "add", "cat.raw", photo)
    await album(guest, "add", "empty", b"")
    small = await album(guest, "shrink", "cat.raw")
    nothing = await album(guest, "shrink", "empty")

    assert added == {"ok": 2_400_000}
    assert small == {"ok": 150_000}
    assert nothing == {"ok": 0}
    assert await album(guest, "photo", "cat.raw") == {"ok": photo}
    assert await album(guest, "thumb", "cat.raw") == {"ok": photo[::16]}
    assert await album(guest, "thumb", "empty") == {"ok": b""}
    assert sorted((await album(guest, "names"))["ok"]) == ["cat.raw", "empty"]
    assert await album(guest, "remove", "empty") == {"ok": None}
    assert await album(guest, "names") == {"ok": ["cat.raw"]}


async def test_errors_are_the_guests_to_handle(guest: Guest) -> None:
    missing = await album(guest, "photo", "nothing")
    again = await album(guest, "shrink", "nothing")
    unnamed = await album(guest, "add", "", b"x")

    assert missing == {"err": "there is no object 'nothing' in container 'photos'"}
    assert again == missing
    assert "name" in unnamed["err"]


async def test_more_than_fits_into_a_list_must_be_read_as_a_stream(
    guest: Guest, store: Store, links: ProviderLinks
) -> None:
    bucket = store.bucket("guest")
    await bucket.create("photos")
    await bucket.write("photos", "large", pieces(*[b"abcdefghijklmnop" * 65536] * 20))

    whole = await album(guest, "photo", "large")
    small = await album(guest, "shrink", "large")

    assert "consume it as a stream" in whole["err"]
    assert small == {"ok": 20 * 65536}
    assert await content(bucket, "thumbs", "large") == b"a" * (20 * 65536)


async def test_a_container_of_a_links_name_is_reached_over_that_link(
    guest: Guest, store: Store, links: ProviderLinks
) -> None:
    await links.add(BlobProvider(store), "thumbs", bucket="elsewhere", container="small")
    await store.bucket("elsewhere").create("small")

    await album(guest, "add", "cat", bytes(100))
    await album(guest, "shrink", "cat")

    assert await names(store.bucket("elsewhere"), "small") == ["cat"]
    assert await names(store.bucket("guest"), "photos") == ["cat"]
    assert (await album(guest, "thumb", "cat"))["ok"] == bytes(7)


async def test_what_is_not_granted_is_refused(store: Store, guest: Guest, links: ProviderLinks) -> None:
    await album(guest, "add", "cat", b"x" * 100)
    await links.add(BlobProvider(store), access="read-only", bucket="guest")

    refused = await album(guest, "add", "cat", b"changed")

    assert "is for reading only" in refused["err"]


async def test_without_a_link_nothing_works(engine: Engine, guest: Guest, links: ProviderLinks) -> None:
    links.remove("default")

    assert await album(guest, "names") == {"err": "no link 'default'"}
