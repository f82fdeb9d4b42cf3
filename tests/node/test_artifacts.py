"""Component bytes in the store and on this node's disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from lattice.bus import ObjectStore
from lattice.errors import Failed, NotFound
from lattice.memory_bus import MemoryBroker, MemoryBus
from node.artifacts import Artifacts, digest_of

DATA = b"\0asm component"
DIGEST = digest_of(DATA)


@pytest.fixture
async def store() -> AsyncIterator[ObjectStore]:
    async with MemoryBus(MemoryBroker()) as bus:
        yield await bus.object_store("artifacts")


async def test_bytes_are_fetched_once_and_kept(store: ObjectStore, tmp_path: Path) -> None:
    await store.put(DIGEST, DATA)
    artifacts = Artifacts(tmp_path, store)

    first = await artifacts.get(DIGEST)
    await store.delete(DIGEST)

    assert first == await artifacts.get(DIGEST) == DATA


async def test_an_unknown_digest_is_not_found(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await Artifacts(tmp_path, store).get(DIGEST)


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "x", "sha256:"])
async def test_what_is_no_digest_touches_no_file(store: ObjectStore, tmp_path: Path, digest: str) -> None:
    with pytest.raises(NotFound, match="is not the digest"):
        await Artifacts(tmp_path, store).get(digest)


async def test_damaged_bytes_of_the_store_are_refused(store: ObjectStore, tmp_path: Path) -> None:
    await store.put(DIGEST, b"something else")

    with pytest.raises(Failed, match="is damaged in the object store"):
        await Artifacts(tmp_path, store).get(DIGEST)


async def test_a_damaged_copy_is_fetched_again(store: ObjectStore, tmp_path: Path) -> None:
    await store.put(DIGEST, DATA)
    artifacts = Artifacts(tmp_path, store)
    await artifacts.get(DIGEST)
    (file,) = [file async for file in anyio.Path(tmp_path).glob("*.wasm")]
    await file.write_bytes(b"damaged")

    assert await artifacts.get(DIGEST) == DATA


async def test_a_store_that_lost_its_bytes_gets_them_back(store: ObjectStore, tmp_path: Path) -> None:
    await store.put(DIGEST, DATA)
    artifacts = Artifacts(tmp_path, store)
    await artifacts.get(DIGEST)
    await store.delete(DIGEST)

    assert await artifacts.restore([DIGEST, digest_of(b"never seen")]) == [DIGEST]
    assert await store.get(DIGEST) == DATA


async def test_copies_of_what_nobody_wants_are_removed(store: ObjectStore, tmp_path: Path) -> None:
    await store.put(DIGEST, DATA)
    artifacts = Artifacts(tmp_path, store)
    await artifacts.get(DIGEST)

    await artifacts.prune([])

    assert [file async for file in anyio.Path(tmp_path).glob("*")] == []
