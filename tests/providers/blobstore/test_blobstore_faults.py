"""What becomes of blobs when the server that keeps them is killed while they are written or read."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from lattice.errors import LatticeError, Unreachable
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.nats_bus import NatsBus
from providers.blobstore.bucket import BlobError, Bucket, Store
from providers.blobstore.conformance import LARGE, content, names, pieces
from providers.blobstore.filesystem import FilesystemStore
from providers.blobstore.nats import NatsStore
from providers.blobstore.s3 import S3Store
from tests.providers.blobstore.conftest import S3Server
from tests.servers import NatsServer

pytestmark = pytest.mark.fault

PIECE = os.urandom(1024 * 1024)


async def written_until(reached: anyio.Event, go_on: anyio.Event) -> AsyncIterator[bytes]:
    """A stream that stands still in its midst until it is told to go on."""
    for _ in range(12):
        yield PIECE
    reached.set()
    await go_on.wait()
    for _ in range(12):
        yield PIECE


async def _write_through_a_crash(bucket: Bucket, crash: Callable[[], object]) -> str:
    """Write an object while the server is killed; whether it was `stored` or `refused`."""
    reached, go_on = anyio.Event(), anyio.Event()
    outcome = "stored"

    async def write() -> None:
        nonlocal outcome
        try:
            await bucket.write("c", "new", written_until(reached, go_on))
        except (LatticeError, BlobError):
            outcome = "refused"

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            await reached.wait()
            await anyio.to_thread.run_sync(crash)
            go_on.set()
    return outcome


async def _until_it_works(bucket: Bucket) -> None:
    with anyio.fail_after(30):
        while True:
            with suppress(LatticeError, BlobError):
                await bucket.create("c")
                return
            await anyio.sleep(0.05)


async def test_nothing_half_written_is_visible_after_nats_was_killed(
    make_nats_server: Callable[..., NatsServer], tmp_path: Path
) -> None:
    streams = {"sync_interval": "always", "store_dir": str(tmp_path / "streams")}
    server = make_nats_server(jetstream=streams)

    def crash() -> None:
        server.kill()
        server.start()

    async with NatsBus(server.settings()) as bus:
        bucket = NatsStore(bus, "test").bucket("b")
        await bucket.create("c")
        await bucket.write("c", "kept", pieces(PIECE))

        outcome = await _write_through_a_crash(bucket, crash)
        await _until_it_works(bucket)

        assert await names(bucket, "c") == (["kept", "new"] if outcome == "stored" else ["kept"])
        assert await content(bucket, "c", "kept") == PIECE
        if outcome == "stored":
            assert await content(bucket, "c", "new") == PIECE * 24
        await bucket.write("c", "new", pieces(b"after"))
        assert await content(bucket, "c", "new") == b"after"


async def test_a_lost_connection_to_nats_is_told_by_calls_and_leaves_the_store_healthy() -> None:
    async with MemoryBus(MemoryBroker()) as bus:
        store = NatsStore(bus, "test")
        bus.disconnect()

        await store.check()
        with pytest.raises(Unreachable, match="not connected"):
            await store.bucket("b").create("c")
        bus.reconnect()
        await store.bucket("b").create("c")


async def test_a_reader_goes_on_after_nats_was_killed_and_is_back(
    make_nats_server: Callable[..., NatsServer], tmp_path: Path
) -> None:
    streams = {"sync_interval": "always", "store_dir": str(tmp_path / "streams")}
    server = make_nats_server(jetstream=streams)

    async with NatsBus(server.settings()) as bus:
        bucket = NatsStore(bus, "test").bucket("b")
        await bucket.create("c")
        await bucket.write("c", "o", pieces(*[PIECE] * 20))
        _, body = await bucket.read("c", "o")
        async with body:
            found = bytearray(await body.receive())
            await anyio.to_thread.run_sync(server.kill)
            await anyio.to_thread.run_sync(server.start)
            async for chunk in body:
                found += chunk

        assert bytes(found) == PIECE * 20


async def test_nothing_half_written_is_visible_after_s3_was_killed(
    make_s3_server: Callable[[], S3Server],
) -> None:
    server = make_s3_server()

    def crash() -> None:
        server.kill()
        server.start()

    store = S3Store(server.settings())
    bucket = store.bucket("b")
    await bucket.create("c")

    outcome = await _write_through_a_crash(bucket, crash)
    await _until_it_works(bucket)

    assert outcome == "refused"
    assert await names(bucket, "c") == []
    await bucket.write("c", "new", pieces(PIECE))
    assert await content(bucket, "c", "new") == PIECE


async def test_a_dead_s3_server_is_told_of_and_does_not_hang(make_s3_server: Callable[[], S3Server]) -> None:
    server = make_s3_server()
    store = S3Store(server.settings())
    bucket = store.bucket("b")
    await bucket.create("c")
    await anyio.to_thread.run_sync(server.kill)

    with anyio.fail_after(10):
        with pytest.raises(LatticeError, match="does not answer"):
            await store.check()
        with pytest.raises(LatticeError, match="does not answer"):
            await bucket.write("c", "o", pieces(PIECE))
        with pytest.raises(LatticeError, match="does not answer"):
            await bucket.stat("c", "o")


@pytest.mark.slow
async def test_an_upload_to_s3_that_hangs_is_given_up_with_its_call(
    make_s3_server: Callable[[], S3Server],
) -> None:
    server = make_s3_server()
    bucket = S3Store(server.settings()).bucket("b")
    await bucket.create("c")
    reached, goes_on = anyio.Event(), anyio.Event()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bucket.write, "c", "new", written_until(reached, goes_on))
            await reached.wait()
            await anyio.to_thread.run_sync(server.suspend)
            goes_on.set()
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        server.resume()
        await bucket.write("c", "other", pieces(PIECE))
        found = await names(bucket, "c")

    assert found == ["other"]


async def test_a_folder_that_is_gone_is_told_of(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path / "blobs")
    await store.start()
    await store.check()

    await anyio.to_thread.run_sync(os.rename, tmp_path / "blobs", tmp_path / "elsewhere")

    with pytest.raises(LatticeError, match="blobs"):
        await store.check()
    await store.aclose()


# What only folders have to fear


async def test_what_a_killed_writer_left_is_deleted_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path / "blobs")
    await store.start()
    await store.bucket("b").create("c")
    incoming = anyio.Path(tmp_path / "blobs/.incoming")
    await (incoming / "left").write_bytes(b"half")
    begun, goes_on = anyio.Event(), anyio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"x" * LARGE
        begun.set()
        await goes_on.wait()
        yield b"y"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.bucket("b").write, "c", "o", slowly())
        await begun.wait()
        await store.check()
        assert len([item async for item in incoming.iterdir()]) == 2
        async for item in incoming.iterdir():
            await anyio.to_thread.run_sync(os.utime, item, (0, 0))
        await store.check()
        left = [item.name async for item in incoming.iterdir()]
        assert len(left) == 1
        assert left != ["left"]
        goes_on.set()

    assert len(await content(store.bucket("b"), "c", "o")) == LARGE + 1
    await store.aclose()


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[tuple[Store, Path]]:
    store = FilesystemStore(tmp_path / "blobs", quota_bytes=LARGE)
    await store.start()
    bucket = store.bucket("b")
    await bucket.create("c")
    yield store, tmp_path
    await store.aclose()


async def test_a_symbolic_link_leads_nowhere(folder: tuple[Store, Path]) -> None:
    store, path = folder
    bucket = store.bucket("b")
    secret = anyio.Path(path / "secret")
    await secret.write_text("secret")
    await anyio.Path(path / "blobs/b/c/link").symlink_to(secret)
    await anyio.Path(path / "blobs/b/folder").symlink_to(path)

    for name in ("link",):
        with pytest.raises(BlobError, match="no object"):
            await bucket.read("c", name)
        with pytest.raises(BlobError, match="no object"):
            await bucket.stat("c", name)
    with pytest.raises(BlobError, match="no container"):
        await bucket.read("folder", "secret")
    await bucket.write("c", "link", pieces(b"own"))

    assert await secret.read_text() == "secret"
    assert await content(bucket, "c", "link") == b"own"


async def test_objects_are_plain_files_within_the_root(folder: tuple[Store, Path]) -> None:
    store, path = folder
    bucket = store.bucket("b")

    for name in ("../../out", "/etc/passwd", "..", "a/b"):
        await bucket.write("c", name, pieces(b"x"))

    found = await anyio.to_thread.run_sync(
        lambda: sorted(str(item.relative_to(path)) for item in path.rglob("*") if item.is_file())
    )
    assert found == [
        "blobs/b/c/%2E.",
        "blobs/b/c/%2E.%2F..%2Fout",
        "blobs/b/c/%2Fetc%2Fpasswd",
        "blobs/b/c/a%2Fb",
    ]


async def test_a_bucket_holds_no_more_than_its_quota(folder: tuple[Store, Path]) -> None:
    store, path = folder
    bucket = store.bucket("b")
    half = b"x" * (LARGE // 2)

    await bucket.write("c", "one", pieces(half))
    await bucket.write("c", "two", pieces(half))
    with pytest.raises(BlobError, match="delete something"):
        await bucket.write("c", "three", pieces(b"y"))
    await bucket.remove("c", "one")
    await bucket.write("c", "three", pieces(b"y"))
    await bucket.clear("c")
    await bucket.write("c", "one", pieces(half, half))

    assert await names(bucket, "c") == ["one"]
    assert [item async for item in anyio.Path(path / "blobs/.incoming").iterdir()] == []
