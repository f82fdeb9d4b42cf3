from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from lattice.errors import Failed
from node.engine.cache import Cache, Entry

KEY = b"the node's key"


def cache_in(folder: Path, key: bytes = KEY, max_bytes: int = 1 << 20) -> Cache:
    return Cache(folder, key, max_bytes)


def add(cache: Cache, name: str, code: bytes = b"compiled code") -> Entry:
    path = cache.temporary()
    path.write_bytes(code)
    return cache.store(name, path, {"digest": "sha256:0"})


def test_an_entry_is_found_again_by_a_later_process(tmp_path: Path) -> None:
    stored = add(cache_in(tmp_path), "entry")

    found = cache_in(tmp_path).load("entry")

    assert found == stored
    assert stored.path.read_bytes() == b"compiled code"


def test_folder_and_files_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir(mode=0o755)

    entry = add(cache_in(folder), "entry")

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(entry.path.stat().st_mode) == 0o400


def truncate(entry: Entry, metadata: Path) -> None:
    _rewrite(entry.path, entry.path.read_bytes()[:-1])


def change(entry: Entry, metadata: Path) -> None:
    _rewrite(entry.path, b"changed. code")


def change_metadata(entry: Entry, metadata: Path) -> None:
    _rewrite(metadata, metadata.read_bytes().replace(b"sha256:0", b"sha256:1"))


def empty_metadata(entry: Entry, metadata: Path) -> None:
    _rewrite(metadata, b"")


def link_elsewhere(entry: Entry, metadata: Path) -> None:
    elsewhere = entry.path.parent.parent / "elsewhere"
    elsewhere.write_bytes(entry.path.read_bytes())
    entry.path.unlink()
    entry.path.symlink_to(elsewhere)


def _rewrite(path: Path, data: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, change, change_metadata, empty_metadata, link_elsewhere])
def test_a_damaged_entry_is_dropped(tmp_path: Path, damage: Callable[[Entry, Path], None]) -> None:
    folder = tmp_path / "code"
    cache = cache_in(folder)
    entry = add(cache, "entry")
    assert cache.load("entry") is not None  # verified once: the change must still be seen

    damage(entry, folder / "entry.json")

    assert cache.load("entry") is None
    assert list(folder.iterdir()) == []


def test_an_entry_of_another_node_is_dropped(tmp_path: Path) -> None:
    add(cache_in(tmp_path, b"another key"), "entry")

    assert cache_in(tmp_path).load("entry") is None


def test_an_entry_under_anothers_name_is_dropped(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    entry = add(cache, "old")
    for path in (tmp_path / "old.json", entry.path):
        path.rename(path.with_name(path.name.replace("old", "new")))

    assert cache.load("new") is None


def test_the_least_recently_used_entry_goes_first(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, max_bytes=250)
    for age, name in ((300, "a"), (200, "b")):
        entry = add(cache, name, bytes(100))
        os.utime(entry.path, (0, entry.path.stat().st_mtime - age))
    cache.load("a")

    add(cache, "c", bytes(100))

    assert cache.load("a") is not None
    assert cache.load("b") is None
    assert cache.total_bytes == 200


def test_an_entry_larger_than_the_cache_is_kept_until_the_next(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, max_bytes=10)

    add(cache, "large", bytes(100))

    assert cache.load("large") is not None


def test_leftovers_of_a_crash_are_removed_once_they_are_old(tmp_path: Path) -> None:
    old, new = tmp_path / "tmp-old", tmp_path / "tmp-new"
    for path in (old, new):
        path.write_bytes(b"half written")
    os.utime(old, (0, 0))

    cache_in(tmp_path)

    assert not old.exists()
    assert new.exists()


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(Failed, match="make it writable"):
        cache_in(tmp_path / "file" / "code")


def test_a_failed_store_leaves_nothing(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    path = cache.temporary()
    path.write_bytes(b"code")

    with pytest.raises(TypeError):
        cache.store("entry", path, {"not JSON": object()})

    assert not path.exists()
    assert not (tmp_path / "entry.json").exists()
    assert cache.load("entry") is None
