"""Objects on JetStream: what readers, other clients and the disk see of objects that are replaced or lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio
import nats
import pytest

from lattice import jetstream, object_store
from lattice.bus import Message, ObjectStore
from lattice.errors import Failed, Interrupted, LatticeError, TimedOut
from lattice.nats_bus import NatsBus
from lattice.replaced_objects import ReplacedObjects, Retention
from lattice.streams import ByteReceiver, receive_body
from tests.servers import NatsServer

PIECE = os.urandom(1024 * 1024)
OLD, NEW = PIECE * 20, PIECE[::-1] * 3

WRITER = """
import sys, anyio
from lattice.connection import ConnectionSettings, Credentials
from lattice.nats_bus import NatsBus

async def pieces():
    for number in range(10**6):
        yield bytes(700_000)
        if number == 5:
            print("begun", flush=True)
            await anyio.sleep_forever()

async def main(url, bucket):
    credentials = Credentials(user="app", password="app")
    async with NatsBus(ConnectionSettings(urls=(url,), credentials=credentials)) as bus:
        await (await bus.object_store(bucket)).write("half", pieces())

anyio.run(main, *sys.argv[1:])
"""


@pytest.fixture
async def store(nats_bus: NatsBus, lattice_name: str) -> ObjectStore:
    return await nats_bus.object_store(lattice_name)


def forgetting(bus: NatsBus, bucket: str, tasks: anyio.abc.TaskGroup) -> ObjectStore:
    """A store that keeps nothing for those who are still reading it."""

    async def purge(bucket: str, version: str) -> None:
        await object_store.purge(bus, bucket, version)

    replaced = ReplacedObjects(tasks, purge, Retention(seconds=0))
    stream = jetstream.object_stream(bucket)
    return object_store.JetStreamObjectStore(bus, bucket, stream, replicas=None, replaced=replaced)


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece


async def begun(store: ObjectStore, name: str, **place: int) -> tuple[bytes, ByteReceiver]:
    """The first bytes of an object, and the rest of it."""
    _, body = await store.read(name, **place)
    return await body.receive(), body


async def rest(first: bytes, body: ByteReceiver) -> bytes:
    async with body:
        return first + await receive_body(body, max_bytes=len(OLD))


async def test_who_reads_an_object_that_is_replaced_gets_the_old_one(store: ObjectStore) -> None:
    await store.put("o", OLD)
    whole, part = await begun(store, "o"), await begun(store, "o", start=100, end=len(OLD) - 100)

    for _ in range(3):
        await store.put("o", NEW)

    assert await rest(*whole) == OLD
    assert await rest(*part) == OLD[100:-100]
    assert await store.get("o") == NEW


@pytest.mark.parametrize("place", [{}, {"start": 100, "end": len(OLD) - 100}])
async def test_a_reader_whose_object_is_gone_is_interrupted_and_told_why(
    nats_bus: NatsBus, lattice_name: str, place: dict[str, int]
) -> None:
    async with anyio.create_task_group() as tasks:
        store = forgetting(nats_bus, lattice_name, tasks)
        await store.put("replaced", OLD)
        await store.put("deleted", OLD)
        replaced, deleted = await begun(store, "replaced", **place), await begun(store, "deleted", **place)
        await store.put("replaced", NEW)
        await store.delete("deleted")
        with anyio.fail_after(5):
            while await store.unnamed():  # noqa: ASYNC110 - the server tells nobody
                await anyio.sleep(0.01)

        with pytest.raises(Interrupted, match=r"'replaced' of .* was replaced while .*: read it again"):
            await rest(*replaced)
        with pytest.raises(Interrupted, match=r"'deleted' of .* was deleted while .*: read it again"):
            await rest(*deleted)


@pytest.mark.slow
async def test_an_object_that_lacks_bytes_is_damaged(
    nats_bus: NatsBus, store: ObjectStore, lattice_name: str
) -> None:
    await store.put("o", OLD)
    first, body = await begun(store, "o")
    await jetstream.call(nats_bus, f"STREAM.PURGE.OBJ_{lattice_name}", {"filter": f"$O.{lattice_name}.C.>"})

    with pytest.raises(Failed, match="is damaged: it lacks"):
        await rest(first, body)


async def test_what_no_object_names_is_told_and_can_be_purged(store: ObjectStore) -> None:
    await store.put("kept", OLD)
    await store.put("replaced", OLD)
    await store.put("replaced", NEW)
    (version,) = await store.unnamed()
    assert await store.unnamed(exactly=True) == await store.unnamed()
    before = await store.mark()

    await store.purge(version)

    assert await store.unnamed() == {}
    assert await store.mark() != before
    assert (await store.get("kept"), await store.get("replaced")) == (OLD, NEW)


async def test_an_object_being_written_is_unnamed_until_it_is_there(store: ObjectStore) -> None:
    seen: list[Mapping[str, int]] = []

    async def looked_at() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield PIECE
        while not seen:
            await anyio.sleep(0.01)
            if unnamed := await store.unnamed():
                seen.append(unnamed)

    await store.write("o", looked_at())

    assert len(seen[0]) == 1
    assert await store.unnamed() == {}


@pytest.mark.fault
async def test_what_a_killed_writer_left_is_unnamed_and_unseen(
    nats_server: NatsServer, store: ObjectStore, lattice_name: str
) -> None:
    await store.put("kept", NEW)
    command = [sys.executable, "-c", WRITER, nats_server.url, lattice_name]
    writer = await anyio.open_process(command, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    with anyio.fail_after(20):
        assert (await writer.stdout.receive()).startswith(b"begun")
    writer.kill()
    await writer.wait()

    assert await store.names() == ["kept"]
    ((version, count),) = (await store.unnamed()).items()
    assert count > 0
    await store.purge(version)
    assert await store.unnamed() == {}
    assert await store.get("kept") == NEW


class Silent(NatsBus):
    """Its server stores descriptions of objects, and does not say so."""

    async def request(self, subject: str, *args: Any, **fields: Any) -> Message:
        reply = await super().request(subject, *args, **fields)
        if ".M." in subject and subject.startswith("$O."):
            raise TimedOut("the answer did not come")
        return reply


async def test_an_object_whose_store_may_have_taken_it_is_whole(
    nats_server: NatsServer, store: ObjectStore, lattice_name: str
) -> None:
    await store.put("o", OLD)

    async with NatsBus(nats_server.settings()) as good, Silent(nats_server.settings()) as silent:
        with pytest.raises(LatticeError):
            await (await silent.object_store(lattice_name)).put("o", NEW)

        assert await (await good.object_store(lattice_name)).get("o") == NEW


async def test_a_writer_that_pauses_for_too_long_is_refused(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "ABANDONED_SECONDS", 0.2)

    async def slow() -> AsyncIterator[bytes]:
        yield PIECE
        await anyio.sleep(0.3)

    with pytest.raises(Interrupted, match="write the object again"):
        await store.write("o", slow())

    assert await store.names() == []
    assert await store.unnamed() == {}


async def test_other_clients_read_what_was_replaced_and_we_what_they_replaced(
    nats_server: NatsServer, store: ObjectStore, lattice_name: str
) -> None:
    await store.put("o", OLD)
    await store.put("o", NEW)
    client = await nats.connect(nats_server.url, user="app", password="app")
    try:
        theirs = await client.jetstream().object_store(lattice_name)
        assert (await theirs.get("o")).data == NEW
        await theirs.put("o", b"theirs")
        await theirs.put("p", PIECE)
    finally:
        await client.close()

    assert await store.get("o") == b"theirs"
    assert len(await store.unnamed()) == 1  # the version that this process still keeps
    assert await store.get("p") == PIECE
