"""Named configurations: what wins, what is refused, and that a lost store gets back what nodes know."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from hypothesis import given
from hypothesis import strategies as st

from lattice import subjects
from lattice.configuration import MAX_BYTES, Configuration, Configurations, check_values
from lattice.configuration_sources import OpenedSource, Sources, parse_lines
from lattice.errors import Denied, Invalid, NotFound
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.record_copies import FolderCopies
from tests.waiting import until

LATTICE = "test"

maps = st.dictionaries(st.text("abc", min_size=1, max_size=2), st.text(max_size=3), max_size=4)


class World:
    """Nodes that follow one store."""

    def __init__(self, stack: AsyncExitStack, tasks: anyio.abc.TaskGroup) -> None:
        self.broker = MemoryBroker()
        self._stack = stack
        self._tasks = tasks

    async def node(self, folder: Path | None = None, *sources: str, **environment: str) -> Configurations:
        bus = await self._stack.enter_async_context(MemoryBus(self.broker))
        opened = tuple(OpenedSource.parse(text) for text in sources)
        found = Configurations(
            bus,
            LATTICE,
            copies=FolderCopies(folder) if folder else None,
            sources=Sources(opened, environment),
        )
        await self._tasks.start(found.run)
        return found


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        yield World(stack, tasks)
        tasks.cancel_scope.cancel()


@given(own=maps, configurations=st.lists(maps, max_size=4))
def test_later_names_win_and_own_values_win_over_all(
    own: dict[str, str], configurations: list[dict[str, str]]
) -> None:
    names = [f"c{index}" for index in range(len(configurations))]
    known = Configurations(MemoryBus(MemoryBroker()), LATTICE)
    for name, values in zip(names, configurations, strict=True):
        known._records._merge(Configuration(name=name, incarnation=1, values=values))

    found = known.resolve(own, names)

    layers = [*configurations, own]
    assert found.keys() == {key for layer in layers for key in layer}
    assert all(found[key] == next(layer[key] for layer in reversed(layers) if key in layer) for key in found)


async def test_a_change_reaches_every_node(world: World) -> None:
    first, second = await world.node(), await world.node()
    seen: list[str] = []
    second.on_change(seen.append)

    await first.put("shop", {"colour": "red"})
    await until(lambda: second.get("shop") == {"colour": "red"})
    await first.put("shop", {"size": "9"}, merge=True)
    await until(lambda: second.get("shop") == {"colour": "red", "size": "9"})
    await second.delete("shop")
    await until(lambda: first.get("shop") is None)

    assert seen == ["shop"] * 3


async def test_putting_the_same_changes_nothing(world: World) -> None:
    node = await world.node()

    before, was_changed = await node.put("shop", {"a": "1"})
    after, is_changed = await node.put("shop", {"a": "1"})

    assert (was_changed, is_changed, after) == (True, False, before)


async def test_a_missing_configuration_is_refused_with_its_cure(world: World) -> None:
    node = await world.node()
    await node.put("shop", {})

    with pytest.raises(NotFound, match=r"did you mean `shop`.*latticectl config put shob KEY=VALUE"):
        node.resolve({}, ["shob"])
    with pytest.raises(NotFound, match="no configuration 'nothing'"):
        await node.delete("nothing")


async def test_the_environment_is_closed_unless_the_operator_opened_it(world: World) -> None:
    closed = await world.node(None, SHOP_COLOUR="red")
    opened = await world.node(None, "env:SHOP_", SHOP_COLOUR="red", HOME="/root")

    with pytest.raises(Denied, match="--config-source env:SHOP_"):
        closed.resolve({}, ["env:SHOP_"])
    with pytest.raises(Denied, match="--config-source env:H"):
        opened.resolve({}, ["env:H"])
    assert opened.resolve({}, ["env:SHOP_"]) == {"COLOUR": "red"}


async def test_files_are_closed_unless_the_operator_opened_their_folder(world: World, tmp_path: Path) -> None:
    def write() -> None:
        (tmp_path / "open").mkdir()
        (tmp_path / "open" / "shop.env").write_text("# colours\nCOLOUR='red'\nexport SIZE=9\n")
        (tmp_path / "open" / "mounted").mkdir()
        (tmp_path / "open" / "mounted" / "colour").write_text("blue\n")
        (tmp_path / "secret.env").write_text("KEY=1")

    await to_thread.run_sync(write)
    closed, opened = await world.node(), await world.node(None, f"file:{tmp_path / 'open'}")

    assert opened.resolve({}, ["file:shop.env"]) == {"COLOUR": "red", "SIZE": "9"}
    assert opened.resolve({}, ["file:mounted"]) == {"colour": "blue"}
    for name in ("file:../secret.env", "file:secret.env", "file:/etc/passwd", "file:"):
        with pytest.raises(Denied, match="--config-source"):
            opened.resolve({}, [name])
    with pytest.raises(Denied, match="--config-source file:DIR"):
        closed.resolve({}, ["file:shop.env"])


async def test_a_lost_store_gets_back_what_nodes_know_and_nothing_deleted(world: World) -> None:
    first, second = await world.node(), await world.node()
    await first.put("kept", {"a": "1"})
    await first.put("gone", {"a": "1"})
    await first.delete("gone")
    await until(lambda: bool((last := second._records.last("gone")) and last.is_deleted))

    world.broker.lose_data()
    third = await world.node()

    await until(lambda: third.get("kept") == {"a": "1"})
    assert third.get("gone") is None
    assert first.get("gone") is None


async def test_a_node_alone_gives_a_lost_store_its_copies(world: World, tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks, MemoryBus(world.broker) as bus:
        node = Configurations(bus, LATTICE, copies=FolderCopies(tmp_path), sources=Sources())
        await tasks.start(node.run)
        await node.put("shop", {"a": "1"})
        await until((tmp_path / "shop.json").exists)
        tasks.cancel_scope.cancel()
    world.broker.lose_data()

    await world.node(tmp_path)
    other = await world.node()

    await until(lambda: other.get("shop") == {"a": "1"})


async def test_an_old_copy_does_not_replace_what_the_store_has(world: World, tmp_path: Path) -> None:
    def keep() -> None:
        copies = FolderCopies(tmp_path)
        copies.load()
        copies.keep("shop", b'{"name":"shop","incarnation":1,"generation":7,"values":{"a":"old"}}')

    await to_thread.run_sync(keep)
    first = await world.node()
    await first.put("shop", {"a": "new"})

    second = await world.node(tmp_path)

    await until(lambda: second.get("shop") == {"a": "new"})
    assert first.get("shop") == {"a": "new"}


async def test_a_record_under_the_key_of_another_is_passed_over(world: World) -> None:
    node = await world.node()
    await node.put("shop", {"a": "1"})

    async with MemoryBus(world.broker) as bus:
        store = await bus.key_value(subjects.configuration_bucket(LATTICE))
        await store.put("other", b'{"name":"shop","incarnation":9999999999999,"values":{"a":"2"}}')
        await store.put("broken", b"{")
        await node.put("last", {})
        await until(lambda: node.get("last") is not None)

    assert node.get("shop") == {"a": "1"}
    assert node.get("other") is None


async def test_what_is_too_large_is_refused_with_the_limit() -> None:
    with pytest.raises(Invalid, match="bytes of the configuration"):
        check_values({"a": "x" * MAX_BYTES})
    with pytest.raises(Invalid, match="configuration key ''"):
        check_values({"": "x"})


@pytest.mark.parametrize("text", ["", "env:", "env:9", "env:A-B", "file:", "http:x", "A"])
def test_a_source_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="env:PREFIX_` or `file:DIR"):
        OpenedSource.parse(text)


def test_a_line_without_a_value_is_refused_with_its_number() -> None:
    with pytest.raises(Invalid, match=r"shop\.env, line 2: write `KEY=VALUE`"):
        parse_lines("A=1\nB\n", "shop.env")
