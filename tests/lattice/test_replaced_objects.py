"""How long replaced versions of objects are kept, and what goes first."""

from __future__ import annotations

import anyio
import pytest

from lattice import replaced_objects
from lattice.replaced_objects import Replaced, ReplacedObjects, Retention


def version(number: int, name: str = "o", size: int = 10) -> Replaced:
    return Replaced(bucket="b", name=name, version=str(number), size=size)


def test_each_is_kept_for_its_time() -> None:
    retention = Retention(seconds=5, most_bytes=1000)

    assert retention.add(version(1), 0) == []
    assert retention.add(version(2), 3) == []
    assert (retention.due_at, retention.due(4.9)) == (5, [])
    assert retention.due(5) == [version(1)]
    assert retention.due(100) == [version(2)]
    assert (retention.due_at, len(retention)) == (None, 0)


def test_beyond_the_bytes_the_oldest_go_but_never_the_last_of_an_object() -> None:
    retention = Retention(seconds=5, most_bytes=25)
    retention.add(version(1, "huge", size=100), 0)

    assert retention.add(version(2), 0) == []
    assert retention.add(version(3), 0) == [version(2)]
    assert retention.add(version(4), 0) == [version(3)]
    assert retention.add(version(5, "huge", size=5), 0) == [version(1, "huge", size=100)]
    assert {item.version for item in retention.due(5)} == {"4", "5"}


def test_they_are_no_more_than_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaced_objects, "KEEP_VERSIONS", 3)
    retention = Retention()

    dropped = [retention.add(version(number, str(number), size=0), 0) for number in range(5)]

    assert dropped == [[], [], [], [version(0, "0", size=0)], [version(1, "1", size=0)]]


async def test_the_task_purges_what_is_due_and_begins_again() -> None:
    purged: list[str] = []
    changed = anyio.Event()

    async def purge(bucket: str, version: str) -> None:
        purged.append(version)
        changed.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            replaced = ReplacedObjects(tasks, purge, Retention(seconds=0.02, most_bytes=10))
            for number in range(3):
                replaced.add(version(number))
                replaced.add(version(number + 10))
                while len(purged) < 2 * (number + 1):
                    changed = anyio.Event()
                    await changed.wait()

    assert purged == ["0", "10", "1", "11", "2", "12"]
