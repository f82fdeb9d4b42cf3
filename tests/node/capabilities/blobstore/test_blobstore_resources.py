"""Values that guests write and read, without a sandbox: what is visible when, and who waits for whom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from lattice.errors import Trapped
from lattice.memory_bus import MemoryBroker, MemoryBus
from node.capabilities.blobstore import Blobstore
from node.capabilities.blobstore.containers import Container
from node.capabilities.blobstore.outgoing import OutgoingValue
from node.capabilities.bus import select
from node.capabilities.wasi.streams import StreamClosed, StreamFailed
from node.engine.host import GuestCall, HostFunction
from providers.blobstore import BlobProvider
from providers.blobstore.bucket import Bucket
from providers.blobstore.conformance import content, names, pieces
from providers.blobstore.nats import NatsStore
from tests.node.capabilities.provider_links import ProviderLinks
from tests.node.capabilities.sandboxes import context
from tests.node.engine.bare_instance import BareInstance

PIECE = b"x" * 4096


class World:
    """The host functions of the package by their short names, as one guest calls them."""

    def __init__(self, blobstore: Blobstore, bucket: Bucket) -> None:
        self._functions: dict[str, HostFunction] = {}
        for interface in blobstore.interfaces():
            for name, function in interface.functions.items():
                self._functions[name.rpartition("]")[2]] = function
        self.call = GuestCall(
            component="guest", context=context(), instance=BareInstance(), sink=lambda *_: None
        )
        self.bucket = bucket

    def now(self, function: str, *args: Any) -> Any:
        return self._functions[function](self.call, *args)

    async def run(self, function: str, *args: Any) -> Any:
        return await self._functions[function](self.call, *args)

    async def container(self, name: str = "c") -> Container:
        opened = await self.run("create-container", name)
        assert isinstance(opened["ok"], Container)
        return opened["ok"]

    async def value(self, container: Container, name: str) -> tuple[OutgoingValue, Any]:
        """A value that is on its way to an object, and its stream."""
        value = self.now("outgoing-value.new-outgoing-value")
        assert self.now("container.write-data", container, name, value) == {"ok": None}
        return value, self.now("outgoing-value.outgoing-value-write-body", value)["ok"]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with MemoryBus(MemoryBroker()) as bus, anyio.create_task_group() as tasks:
        store = NatsStore(bus, "test")
        links = ProviderLinks()
        await links.add(BlobProvider(store))
        await links.add(BlobProvider(store), "archive", bucket="archive")
        blobstore = Blobstore(links)
        await tasks.start(blobstore.run)
        yield World(blobstore, store.bucket("guest"))
        tasks.cancel_scope.cancel()


async def test_nothing_is_visible_before_finish(world: World) -> None:
    container = await world.container()
    value, stream = await world.value(container, "o")
    await stream.blocking_write_and_flush(b"hello")
    await anyio.wait_all_tasks_blocked()
    before = await names(world.bucket, "c")

    stream.close()
    finished = await world.run("outgoing-value.finish", value)

    assert before == []
    assert finished == {"ok": None}
    assert await content(world.bucket, "c", "o") == b"hello"


async def test_a_value_that_is_dropped_leaves_what_was_there(world: World) -> None:
    container = await world.container()
    await world.bucket.write("c", "o", pieces(b"before"))
    value, stream = await world.value(container, "o")
    await stream.blocking_write_and_flush(b"after")

    stream.close()
    value.close()
    await anyio.wait_all_tasks_blocked()

    assert await content(world.bucket, "c", "o") == b"before"


async def test_a_value_may_be_written_before_it_is_known_where_to(world: World) -> None:
    container = await world.container()
    value = world.now("outgoing-value.new-outgoing-value")
    stream = world.now("outgoing-value.outgoing-value-write-body", value)["ok"]
    await stream.blocking_write_and_flush(b"early")
    stream.close()

    world.now("container.write-data", container, "o", value)

    assert await world.run("outgoing-value.finish", value) == {"ok": None}
    assert await content(world.bucket, "c", "o") == b"early"


async def test_too_much_that_nobody_receives_fails_instead_of_waiting_forever(world: World) -> None:
    value = world.now("outgoing-value.new-outgoing-value")
    stream = world.now("outgoing-value.outgoing-value-write-body", value)["ok"]

    async def write_on() -> None:
        for _ in range(10 * 256 + 1):
            await stream.blocking_write_and_flush(PIECE)

    with pytest.raises(StreamFailed, match="write-data"):
        await write_on()


async def test_megabytes_may_be_written_before_it_is_known_where_to(world: World) -> None:
    container = await world.container()
    value = world.now("outgoing-value.new-outgoing-value")
    stream = world.now("outgoing-value.outgoing-value-write-body", value)["ok"]
    for _ in range(9 * 256):
        await stream.blocking_write_and_flush(PIECE)

    world.now("container.write-data", container, "o", value)

    assert await world.run("outgoing-value.finish", value) == {"ok": None}
    assert await content(world.bucket, "c", "o") == PIECE * (9 * 256)


async def test_a_guest_that_hoards_values_is_ended(world: World) -> None:
    streams = [
        world.now("outgoing-value.outgoing-value-write-body", world.now("outgoing-value.new-outgoing-value"))
        for _ in range(2)
    ]

    async def write_on() -> None:
        for stream in streams:
            for _ in range(9 * 256):
                await stream["ok"].blocking_write_and_flush(PIECE)

    with pytest.raises(Trapped, match="at most"):
        await write_on()


async def test_a_stream_is_given_once(world: World) -> None:
    container = await world.container()
    value, _ = await world.value(container, "o")

    assert world.now("outgoing-value.outgoing-value-write-body", value) == {"err": None}


async def test_a_stream_that_is_held_beyond_finish_takes_nothing_more(world: World) -> None:
    container = await world.container()
    value, stream = await world.value(container, "o")

    assert await world.run("outgoing-value.finish", value) == {"ok": None}
    with pytest.raises(StreamClosed):
        stream.check_write()
    assert await names(world.bucket, "c") == ["o"]


async def test_a_value_goes_to_one_object(world: World) -> None:
    container = await world.container()
    value, _ = await world.value(container, "o")
    loose = world.now("outgoing-value.new-outgoing-value")

    assert "err" in world.now("container.write-data", container, "p", value)
    assert "write-data" in (await world.run("outgoing-value.finish", loose))["err"]


async def test_a_store_that_refuses_says_so_at_the_stream_and_at_finish(world: World) -> None:
    container = await world.container()
    await world.bucket.delete("c")
    value, stream = await world.value(container, "o")
    await anyio.wait_all_tasks_blocked()

    with pytest.raises((StreamFailed, StreamClosed), match="no container"):
        await stream.blocking_write_and_flush(b"hello")
    stream.close()
    finished = await world.run("outgoing-value.finish", value)

    assert finished == {"err": "there is no container 'c'"}


async def test_a_range_has_both_its_ends(world: World) -> None:
    container = await world.container()
    await world.bucket.write("c", "o", pieces(b"0123456789"))

    async def take(start: int, end: int) -> Any:
        found = await world.run("container.get-data", container, "o", start, end)
        if "err" in found:
            return found["err"]
        size = world.now("incoming-value.size", found["ok"])
        data = (await world.run("incoming-value.incoming-value-consume-sync", found["ok"]))["ok"]
        assert size == len(data)
        return data

    assert await take(2, 4) == b"234"
    assert await take(0, 2**64 - 1) == b"0123456789"
    assert await take(0, 0) == b"0"
    assert await take(8, 10) == b"89"
    assert "begins at 10" in await take(10, 20)
    assert "before it begins" in await take(3, 2)


async def test_a_reader_that_leaves_ends_the_transfer(world: World) -> None:
    container = await world.container()
    await world.bucket.write("c", "o", pieces(b"x" * 1_000_000))
    found = await world.run("container.get-data", container, "o", 0, 2**64 - 1)
    unread = await world.run("container.get-data", container, "o", 0, 2**64 - 1)
    stream = world.now("incoming-value.incoming-value-consume-async", found["ok"])["ok"]

    assert await stream.blocking_read(10) == b"x" * 10
    stream.close()
    unread["ok"].close()
    await anyio.wait_all_tasks_blocked()


async def test_names_are_read_and_skipped_in_parts(world: World) -> None:
    container = await world.container()
    for number in range(2500):
        await world.bucket.write("c", f"{number:04}", pieces(b""))
    listed = world.now("container.list-objects", container)["ok"]

    first = (await world.run("stream-object-names.read-stream-object-names", listed, 3))["ok"]
    skipped = (await world.run("stream-object-names.skip-stream-object-names", listed, 2490))["ok"]
    rest = (await world.run("stream-object-names.read-stream-object-names", listed, 2**64 - 1))["ok"]
    after = (await world.run("stream-object-names.read-stream-object-names", listed, 5))["ok"]

    assert first == (["0000", "0001", "0002"], False)
    assert skipped == (2490, False)
    assert rest == ([f"{number:04}" for number in range(2493, 2500)], True)
    assert after == ([], True)


async def test_questions_about_containers_and_objects(world: World) -> None:
    container = await world.container()
    await world.bucket.write("c", "o", pieces(b"12345"))
    source, target = {"container": "c", "object": "o"}, {"container": "c", "object": "p"}

    assert world.now("container.name", container) == {"ok": "c"}
    assert (await world.run("container.info", container))["ok"]["name"] == "c"
    assert await world.run("container-exists", "c") == {"ok": True}
    assert await world.run("container-exists", "x") == {"ok": False}
    assert "err" in await world.run("get-container", "x")
    assert await world.run("container.has-object", container, "o") == {"ok": True}
    assert await world.run("container.has-object", container, "x") == {"ok": False}
    assert (await world.run("container.object-info", container, "o"))["ok"]["size"] == 5
    assert await world.run("copy-object", source, target) == {"ok": None}
    assert await world.run("move-object", target, {"container": "c", "object": "q"}) == {"ok": None}
    assert await names(world.bucket, "c") == ["o", "q"]
    assert await world.run("container.delete-objects", container, ["o", "x"]) == {"ok": None}
    assert await world.run("container.delete-object", container, "o") == {"ok": None}
    assert await world.run("container.clear", container) == {"ok": None}
    assert await names(world.bucket, "c") == []
    assert await world.run("delete-container", "c") == {"ok": None}
    assert await world.run("container-exists", "c") == {"ok": False}


async def test_a_container_named_default_is_over_the_link_that_the_guest_chose(world: World) -> None:
    select(world.call, ["wasi:blobstore/blobstore"], "archive")
    chosen = await world.container("default")

    assert (chosen.place.link, chosen.name) == ("archive", "default")
