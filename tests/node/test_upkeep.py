"""What a node gives back to a store that was lost, and what it drops."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from lattice import subjects
from lattice.edits import Editor
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.model import ComponentSpec, new_application
from lattice.observer import Observer, encode_value
from node.artifacts import Artifacts, digest_of
from node.component_logs import ComponentLogs
from node.copies import Copies
from node.upkeep import KEEP_SECONDS, Upkeep
from tests.waiting import until

WANTED, UNWANTED = b"\0asm wanted", b"\0asm unwanted"


class World:
    """The parts of a node that upkeep works on; the node has two artifacts, one of them deployed."""

    def __init__(
        self, bus: MemoryBus, artifacts: Artifacts, editor: Editor, observer: Observer, copies: Copies
    ):
        self.bus = bus
        self.artifacts = artifacts
        self.evicted: set[str] = set()
        self.logs = ComponentLogs(bus, "test", "a")
        spec = ComponentSpec(name="app", digest=digest_of(WANTED))
        observer.apply(new_application("app", None, 1, components=[spec]))
        self.upkeep = Upkeep(
            observer,
            artifacts=artifacts,
            editor=editor,
            copies=copies,
            logs=self.logs,
            evict=self.evict,
            is_connected=lambda: False,
        )

    def evict(self, digests: Collection[str]) -> None:
        self.evicted |= set(digests)

    async def copies(self) -> set[str]:
        return await anyio.to_thread.run_sync(self.artifacts.copies)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with MemoryBus(MemoryBroker()) as bus:
        objects = await bus.object_store("artifacts")
        await anyio.Path(tmp_path / "artifacts").mkdir()
        artifacts = Artifacts(tmp_path / "artifacts", objects)
        for data in (WANTED, UNWANTED):
            await objects.put(digest_of(data), data)
            await artifacts.get(digest_of(data))
        observer = Observer(bus, "test")
        editor = Editor(await bus.key_value(subjects.state_bucket("test")), observer)
        copies = await anyio.to_thread.run_sync(Copies, tmp_path / "applications")
        made = World(bus, artifacts, editor, observer, copies)
        yield made
        made.logs.close()


async def test_a_lost_store_is_filled_up_as_soon_as_it_answers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.upkeep.RETRY_SECONDS", 0.01)
    broker = world.bus.broker
    broker.lose_data()
    broker.is_store_available = False

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.upkeep.run)
        with capture_logs() as logs:
            world.upkeep.restore_soon()
            await until(lambda: any(line["event"] == "artifacts.not-restored" for line in logs))
        broker.is_store_available = True
        await until(lambda: set(broker.objects.get("artifacts", ())) == {digest_of(WANTED)})
        tasks.cancel_scope.cancel()


async def test_what_nobody_needs_is_dropped_after_a_while(world: World) -> None:
    await world.upkeep.prune(0.0)
    await world.upkeep.prune(KEEP_SECONDS - 1)
    assert await world.copies() == {digest_of(WANTED), digest_of(UNWANTED)}

    await world.upkeep.prune(KEEP_SECONDS)

    assert await world.copies() == {digest_of(WANTED)}
    assert world.evicted == {digest_of(UNWANTED)}


def test_a_tombstone_that_may_be_forgotten_leaves_the_disk(tmp_path: Path) -> None:
    gone = new_application("app", None, 1, components=[]).tombstone(1)
    file = tmp_path / "app.json"
    file.write_bytes(encode_value(gone))

    assert Copies(tmp_path).load() == []
    assert not file.exists()
