"""Paths of guests never lead out of their folder, whatever the tree is and whoever changes it meanwhile."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.capabilities.wasi.filesystem.file_errors import FileError, from_os
from node.capabilities.wasi.filesystem.resolution import MAX_LINKS, PATH_BYTES, climb, find
from tests.node.capabilities.wasi.beneath import identity_beneath, is_available

SECRET = "secret"

NAMES = ("a", "b", "c")
PARTS = st.sampled_from([*NAMES, "..", ".", "", "out", "missing"])
PATHS = st.builds(
    lambda parts, slash: "/".join(parts) + slash,
    st.lists(PARTS, min_size=1, max_size=7),
    st.sampled_from(["", "", "/"]),
)
ENTRIES = st.lists(
    st.tuples(
        st.lists(st.sampled_from(NAMES), min_size=1, max_size=3),
        st.sampled_from(["directory", "file", "link"]),
        PATHS,
    ),
    max_size=12,
)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield number
    finally:
        os.close(number)


def identity(root: int, path: str, *, follows: bool) -> tuple[int, int] | str:
    """What a path means by our resolution, or the code that it failed with."""
    try:
        with find(root, path, follows=follows) as place:
            status = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
            if place.wants_directory and not os.path.isdir(
                f"/proc/self/fd/{place.directory}/" + os.fsdecode(place.name)
            ):
                return "not-directory"
            return status.st_dev, status.st_ino
    except FileError as error:
        return error.code
    except OSError as error:
        return from_os(error).code


def grow(root: Path, entries: list[tuple[list[str], str, str]]) -> None:
    """Make what can be made of these entries."""
    for parts, kind, target in entries:
        path = root.joinpath(*parts)
        try:
            if kind == "directory":
                path.mkdir(parents=True)
            elif kind == "file":
                path.write_bytes(b"inside")
            else:
                path.symlink_to(target or ".")
        except OSError:
            continue


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder, a secret beside it, and links of every kind that lead out."""
    (tmp_path / SECRET).write_text("of the host")
    folder = tmp_path / "folder"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "file").write_text("inside")
    for name, target in {
        "absolute": str(tmp_path / SECRET),
        "above": f"../{SECRET}",
        "far-above": "a/../../" + SECRET,
        "root": "/",
        "up": "..",
        "self": "self",
        "one": "other",
        "other": "one",
        "inner": "a/b",
        "dangling": "a/missing",
        "slashed": "a/file/",
    }.items():
        (folder / name).symlink_to(target)
    (folder / "a" / "b" / "back").symlink_to("../../a/file")
    return folder


@pytest.mark.parametrize(
    "path",
    [
        f"../{SECRET}", "..", "a/../..", f"a/b/../../../{SECRET}", "absolute", "absolute/", "above",
        "far-above", "root", "root/etc/passwd", "up", f"up/{SECRET}", "up/", f"inner/../../../{SECRET}", "/",
        "/etc/passwd", "//a", "/a/file",
    ],
)  # fmt: skip
def test_what_leads_out_is_not_permitted(tree: Path, path: str) -> None:
    with opened(tree) as root:
        assert identity(root, path, follows=True) == "not-permitted"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("", "no-entry"), ("missing", "no-entry"), ("dangling", "no-entry"), ("self", "loop"),
        ("one", "loop"), ("one/", "loop"), ("a/file/", "not-directory"), ("a/file/x", "not-directory"),
        ("slashed", "not-directory"), ("a/file/..", "not-directory"), ("a\0b", "invalid"),
        ("n" * 300, "name-too-long"),
        ("a/" * PATH_BYTES, "name-too-long"), ("missing/..", "no-entry"),
    ],
)  # fmt: skip
def test_what_means_nothing_has_its_code(tree: Path, path: str, code: str) -> None:
    with opened(tree) as root:
        assert identity(root, path, follows=True) == code


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        (".", "."), ("a/..", "."), ("./a//./file", "a/file"), ("inner", "a/b"), ("inner/", "a/b"),
        ("inner/back", "a/file"), ("inner/..", "a"), ("a/b/../../inner/../file", "a/file"),
    ],
)  # fmt: skip
def test_what_stays_within_is_found(tree: Path, path: str, meant: str) -> None:
    expected = os.lstat(tree / meant)

    with opened(tree) as root:
        assert identity(root, path, follows=True) == (expected.st_dev, expected.st_ino)


def test_a_link_at_the_end_is_itself_unless_followed_or_slashed(tree: Path) -> None:
    link, target = os.lstat(tree / "inner"), os.stat(tree / "inner")

    with opened(tree) as root:
        assert identity(root, "inner", follows=False) == (link.st_dev, link.st_ino)
        assert identity(root, "inner/", follows=False) == (target.st_dev, target.st_ino)


def test_so_many_links_are_followed_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "0").touch()
    for number in range(1, MAX_LINKS + 2):
        (tmp_path / str(number)).symlink_to(str(number - 1))

    with opened(tmp_path) as root:
        assert isinstance(identity(root, str(MAX_LINKS), follows=True), tuple)
        assert identity(root, str(MAX_LINKS + 1), follows=True) == "loop"


def test_links_that_multiply_are_given_up_on(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "wide").symlink_to("d/../" * 800)

    with opened(tmp_path) as root:
        assert identity(root, "wide/" * 30, follows=True) == "name-too-long"


def test_nothing_stays_open(tree: Path) -> None:
    with opened(tree) as root:
        before = len(os.listdir("/proc/self/fd"))
        for path in ("inner/back", "a/b/..", "absolute", "self", "a/missing/x", "up"):
            identity(root, path, follows=True)

        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(not is_available(), reason="the kernel lacks openat2")
@settings(max_examples=300)
@given(entries=ENTRIES, path=PATHS, follows=st.booleans())
def test_any_path_in_any_tree_means_what_the_kernel_says_beneath(
    entries: list[tuple[list[str], str, str]], path: str, follows: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        outside = Path(name)
        (outside / "out").mkdir()
        folder = outside / "folder"
        folder.mkdir()
        grow(folder, entries)
        with opened(folder) as root:
            expected = identity_beneath(root, path, follows=follows)
            found = identity(root, path, follows=follows)

    if isinstance(expected, int):
        assert found == from_os(OSError(expected, "")).code
    else:
        assert found == expected


@given(parts=st.lists(st.sampled_from(["..", "a", ".", ""]), max_size=12))
def test_a_links_climb_is_how_far_the_lowest_point_is_above(parts: list[str]) -> None:
    start = [f"d{index}" for index in range(20)]
    here, lowest = list(start), len(start)
    for part in parts:
        if part == "..":
            here.pop()
        elif part == "a":
            here.append(part)
        lowest = min(lowest, len(here))

    assert climb("/".join(parts).encode()) == len(start) - lowest


@pytest.mark.parametrize("path", ["swap/secret", "swap/../secret", "d/swap/../secret", "swap/x/../secret"])
def test_a_directory_swapped_for_a_link_meanwhile_never_leads_out(tmp_path: Path, path: str) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    for place in (outside, outside / "x", folder, folder / "d", folder / "real", folder / "real" / "x"):
        place.mkdir()
    (outside / "secret").write_text("of the host")
    (folder / "d" / "swap").symlink_to("../real")
    for place in (folder, folder / "real"):
        (place / "secret").write_text("inside")
    (folder / "out").symlink_to(outside)
    forbidden = {(os.stat(outside / name).st_dev, os.stat(outside / name).st_ino) for name in ("secret", "x")}

    found: list[Any] = []
    deadline = time.monotonic() + 10
    with opened(folder) as root, _swapping(folder):
        while len(found) < 2000 or (not _both(found) and time.monotonic() < deadline):
            found.extend(identity(root, path, follows=True) for _ in range(100))

    assert not forbidden.intersection(found)
    assert any(isinstance(item, tuple) for item in found)


def _both(found: list[Any]) -> bool:
    """Whether the path led to a file and, at another moment, to something else."""
    return len({*found}) > 1 and any(isinstance(item, tuple) for item in found)


@contextmanager
def _swapping(folder: Path) -> Iterator[None]:
    """A thread that makes `swap` a directory, a link inside and a link out, as fast as it can."""
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for name in ("real", "out"):
                os.rename(folder / name, folder / "swap")
                os.rename(folder / "swap", folder / name)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_directory_moved_out_while_inside_gives_no_way_up(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    (folder / "a" / "b").mkdir(parents=True)
    outside.mkdir()
    done = threading.Event()

    def move() -> None:
        while not done.is_set():
            os.rename(folder / "a" / "b", outside / "b")
            os.rename(outside / "b", folder / "a" / "b")

    thread = threading.Thread(target=move)
    thread.start()
    try:
        with opened(folder) as root:
            found = {identity(root, "a/b/..", follows=True) for _ in range(3000)}
    finally:
        done.set()
        thread.join()

    inside = os.stat(folder / "a")
    assert found <= {(inside.st_dev, inside.st_ino), "busy", "no-entry"}


def test_codes_cover_every_error_of_the_interface_that_linux_has() -> None:
    assert from_os(OSError(errno.ENOENT, "secret path")).args == ("no-entry",)
    assert from_os(OSError(99999, "")).code == "io"
