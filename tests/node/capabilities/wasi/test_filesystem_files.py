"""The functions of `wasi:filesystem` over real folders, and what a grant for reading only denies."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from lattice.errors import Invalid
from node.capabilities.wasi import Folder
from node.capabilities.wasi.filesystem.descriptors import READ_BYTES, Descriptor
from node.capabilities.wasi.filesystem.listings import BATCH_ENTRIES
from node.capabilities.wasi.filesystem.open_files import MAX_OPEN_FILES, OpenFiles
from tests.node.capabilities.wasi.bare_guest import BareGuest, plain

FOLLOW = ["symlink-follow"]
NOW = {"now": None}
NO_CHANGE = {"no-change": None}
TOO_FAR = 1 << 63

Open = Callable[..., Awaitable[Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    (path / "sub").mkdir(parents=True)
    (path / "file").write_bytes(b"contents")
    (path / "link").symlink_to("file")
    return path


@pytest.fixture
def guest(folder: Path) -> BareGuest:
    return BareGuest(folders=(Folder(host_path=folder, guest_path="/data", writable=True),))


@pytest.fixture
def reader(folder: Path) -> BareGuest:
    """The permission-denied twin."""
    return BareGuest(folders=(Folder(host_path=folder, guest_path="/data"),))


def state_of(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in folder.rglob("*")}


async def root_of(guest: BareGuest) -> Descriptor:
    [(descriptor, _)] = await guest("filesystem/preopens", "get-directories")
    assert isinstance(descriptor, Descriptor)
    return descriptor


async def opened(guest: BareGuest, path: str, *flags: str, how: tuple[str, ...] = ()) -> Any:
    return await guest.file("open-at", await root_of(guest), FOLLOW, path, list(how), list(flags))


async def test_granted_folders_are_named_as_the_guest_sees_them(guest: BareGuest, reader: BareGuest) -> None:
    [(writable, name)] = await guest("filesystem/preopens", "get-directories")
    [(readable, _)] = await reader("filesystem/preopens", "get-directories")

    assert name == "/data"
    assert set(await guest.file("get-flags", writable)) == {"read", "mutate-directory"}
    assert await reader.file("get-flags", readable) == ["read"]
    assert await guest.file("get-type", writable) == "directory"


async def test_a_folder_that_is_gone_is_missing_and_the_others_are_there(tmp_path: Path) -> None:
    guest = BareGuest(
        folders=(
            Folder(host_path=tmp_path / "gone", guest_path="/gone"),
            Folder(host_path=tmp_path, guest_path="/here"),
        )
    )

    names = [name for _, name in await guest("filesystem/preopens", "get-directories")]

    assert names == ["/here"]


@pytest.mark.parametrize(
    ("host_path", "guest_path"),
    [("x", "/data"), ("/x", "data"), ("/x", "/a/../b"), ("/x", "/a/"), ("/x", "")],
)
def test_folders_are_given_by_plain_absolute_paths(host_path: str, guest_path: str) -> None:
    with pytest.raises(Invalid):
        Folder(host_path=Path(host_path), guest_path=guest_path)


async def test_bytes_are_read_and_written_at_positions(guest: BareGuest, folder: Path) -> None:
    file = await opened(guest, "file", "read", "write")

    assert await guest.file("read", file, 3, 2) == (b"nte", False)
    assert await guest.file("read", file, 100, 8) == (b"", True)
    assert await guest.file("write", file, b"XY", 7) == 2
    assert (folder / "file").read_bytes() == b"contentXY"
    assert await guest.file("set-size", file, 3) is None
    assert (folder / "file").read_bytes() == b"con"


async def test_one_read_has_a_limit(guest: BareGuest, folder: Path) -> None:
    os.truncate(folder / "file", READ_BYTES * 3)
    file = await opened(guest, "file", "read")

    contents, is_end = await guest.file("read", file, (1 << 64) - 1, 0)

    assert (len(contents), is_end) == (READ_BYTES, False)


@pytest.mark.parametrize(
    ("method", "args"), [("read", (1, TOO_FAR)), ("write", (b"x", TOO_FAR)), ("set-size", (TOO_FAR,))]
)
async def test_positions_beyond_the_hosts_are_invalid(
    guest: BareGuest, method: str, args: tuple[Any, ...]
) -> None:
    file = await opened(guest, "file", "read", "write")

    assert await guest.file(method, file, *args) == "invalid"


@pytest.mark.parametrize(
    ("flags", "method", "args"),
    [
        (("read",), "write", (b"x", 0)), (("read",), "write-via-stream", (0,)),
        (("read",), "append-via-stream", ()), (("write",), "read", (1, 0)),
        (("write",), "read-via-stream", (0,)), ((), "write", (b"x", 0)),
    ],
)  # fmt: skip
async def test_a_file_does_only_what_it_was_opened_for(
    guest: BareGuest, folder: Path, flags: tuple[str, ...], method: str, args: tuple[Any, ...]
) -> None:
    file = await opened(guest, "file", *flags)

    assert await guest.file(method, file, *args) == "bad-descriptor"
    assert (folder / "file").read_bytes() == b"contents"


async def test_the_size_of_a_file_that_is_not_open_for_writing_is_not_set(
    guest: BareGuest, reader: BareGuest, folder: Path
) -> None:
    assert await guest.file("set-size", await opened(guest, "file", "read"), 0) == "invalid"
    assert await reader.file("set-size", await opened(reader, "file", "read"), 0) == "not-permitted"
    assert os.stat(folder / "file").st_size == 8


async def test_a_directory_is_no_file_and_a_file_no_directory(guest: BareGuest) -> None:
    root, file = await root_of(guest), await opened(guest, "file", "read", "write")

    for method, args in [
        ("read", (1, 0)), ("write", (b"", 0)), ("set-size", (0,)), ("read-via-stream", (0,)),
        ("advise", (0, 0, "normal")),
    ]:  # fmt: skip
        assert await guest.file(method, root, *args) == "bad-descriptor", method
    for method, args in [
        ("stat-at", ([], ".")), ("open-at", ([], ".", [], ["read"])), ("read-directory", ()),
        ("create-directory-at", ("x",)), ("readlink-at", ("x",)), ("unlink-file-at", ("x",)),
    ]:  # fmt: skip
        assert await guest.file(method, file, *args) == "not-directory", method


@pytest.mark.parametrize(
    ("path", "how", "flags", "code"),
    [
        ("missing", (), ("read",), "no-entry"),
        ("file", ("create", "exclusive"), ("write",), "exist"),
        ("link", ("create", "exclusive"), ("write",), "exist"),
        ("file", ("directory",), ("read",), "not-directory"),
        ("file/", (), ("read",), "not-directory"),
        ("sub", (), ("read", "write"), "is-directory"),
        ("sub", ("create",), ("read",), "is-directory"),
        ("new/", ("create",), ("write",), "is-directory"),
        ("new", ("create", "directory"), ("read",), "invalid"),
        ("../folder/file", (), ("read",), "not-permitted"),
        ("/etc/passwd", (), ("read",), "not-permitted"),
    ],
)
async def test_what_cant_be_opened_has_its_code(
    guest: BareGuest, folder: Path, path: str, how: tuple[str, ...], flags: tuple[str, ...], code: str
) -> None:
    before = sorted(os.listdir(folder))

    assert await opened(guest, path, *flags, how=how) == code
    assert sorted(os.listdir(folder)) == before
    assert (folder / "file").read_bytes() == b"contents"


async def test_links_are_opened_only_through(guest: BareGuest) -> None:
    root = await root_of(guest)

    assert await guest.file("open-at", root, [], "link", [], ["read"]) == "loop"
    file = await guest.file("open-at", root, FOLLOW, "link", [], ["read"])
    assert await guest.file("read", file, 4, 0) == (b"cont", False)


async def test_a_file_is_created_through_a_link_within_the_folder_only(
    guest: BareGuest, folder: Path, tmp_path: Path
) -> None:
    (folder / "inwards").symlink_to("sub/new")
    (folder / "outwards").symlink_to("../new")
    (folder / "absolute").symlink_to(tmp_path / "new")

    assert isinstance(await opened(guest, "inwards", "write", how=("create",)), Descriptor)
    assert await opened(guest, "outwards", "write", how=("create",)) == "not-permitted"
    assert await opened(guest, "absolute", "write", how=("create",)) == "not-permitted"
    assert (folder / "sub" / "new").exists()
    assert not (tmp_path / "new").exists()


async def test_only_files_and_directories_are_opened(guest: BareGuest, folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))

        for name, kind in (("fifo", "fifo"), ("socket", "socket")):
            assert await opened(guest, name, "read") == "unsupported"
            assert await opened(guest, name, "write", how=("create",)) == "unsupported"
            assert (await guest.file("stat-at", await root_of(guest), [], name))["type"] == kind


async def test_a_device_is_not_opened(tmp_path: Path) -> None:
    guest = BareGuest(folders=(Folder(host_path=Path("/dev"), guest_path="/dev"),))

    assert await opened(guest, "null", "read") == "unsupported"


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("open-at", (FOLLOW, "new", ["create"], ["read"])),
        ("open-at", (FOLLOW, "file", ["truncate"], ["read"])),
        ("open-at", (FOLLOW, "file", [], ["write"])),
        ("open-at", (FOLLOW, "sub", [], ["read", "mutate-directory"])),
        ("create-directory-at", ("new",)),
        ("remove-directory-at", ("sub",)),
        ("unlink-file-at", ("file",)),
        ("symlink-at", ("file", "new")),
        ("set-times-at", (FOLLOW, "file", NOW, NOW)),
        ("set-times", (NOW, NOW)),
    ],
)
async def test_a_folder_granted_for_reading_is_never_changed(
    reader: BareGuest, folder: Path, method: str, args: tuple[Any, ...]
) -> None:
    before = state_of(folder)
    root = await root_of(reader)
    sub = await reader.file("open-at", root, [], "sub", ["directory"], ["read"])

    assert await reader.file(method, root, *args) == "not-permitted"
    assert await reader.file(method, sub, *args) in ("not-permitted", "no-entry")
    assert state_of(folder) == before


async def test_times_of_a_file_of_a_read_only_folder_are_not_set(reader: BareGuest) -> None:
    file = await opened(reader, "file", "read")

    assert await reader.file("set-times", file, NOW, NOW) == "not-permitted"


@pytest.mark.parametrize("method", ["rename-at", "link-at"])
async def test_names_move_and_multiply_between_writable_folders_only(tmp_path: Path, method: str) -> None:
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    guest = BareGuest(
        folders=(
            Folder(host_path=tmp_path / "open", guest_path="/open", writable=True),
            Folder(host_path=tmp_path / "closed", guest_path="/closed"),
        )
    )
    [(writable, _), (readable, _)] = await guest("filesystem/preopens", "get-directories")
    flags: list[list[str]] = [[]] if method == "link-at" else []

    assert await guest.file(method, readable, *flags, "file", writable, "new") == "not-permitted"
    assert await guest.file(method, writable, *flags, "file", readable, "new") == "not-permitted"
    assert await guest.file(method, writable, *flags, "file", writable, "new") is None
    assert not (tmp_path / "closed" / "new").exists()


async def test_what_a_directory_permits_is_the_same_through_its_subdirectories(
    guest: BareGuest, folder: Path
) -> None:
    sub = await opened(guest, "sub", "read", how=("directory",))

    assert await guest.file("create-directory-at", sub, "deeper") is None
    assert await guest.file("open-at", sub, FOLLOW, "../file", [], ["read"]) == "not-permitted"
    assert (folder / "sub" / "deeper").is_dir()


@pytest.mark.parametrize(("path", "how"), [("file", "truncate"), ("new", "create"), ("file", "create")])
@pytest.mark.parametrize("flags", [("read",), ()])
async def test_what_is_created_or_truncated_can_be_written_whatever_was_asked_for(
    guest: BareGuest, folder: Path, path: str, how: str, flags: tuple[str, ...]
) -> None:
    before = (folder / "file").read_bytes()
    file = await opened(guest, path, *flags, how=(how,))

    assert (folder / path).read_bytes() == (before if (path, how) == ("file", "create") else b"")
    assert set(await guest.file("get-flags", file)) == {"read", "write"}
    assert await guest.file("write", file, b"xyz", 0) == 3
    assert (folder / path).read_bytes()[:3] == b"xyz"


@pytest.mark.parametrize("flag", ["file-integrity-sync", "data-integrity-sync", "requested-write-sync"])
async def test_files_are_not_opened_for_synchronous_writing(guest: BareGuest, flag: str) -> None:
    root = await root_of(guest)

    assert await guest.file("open-at", root, FOLLOW, "new", ["create"], ["write", flag]) == "unsupported"
    assert await guest.file("open-at", root, FOLLOW, "new", [], ["read"]) == "no-entry"


async def test_what_was_written_can_be_brought_to_the_disk(guest: BareGuest) -> None:
    file = await opened(guest, "file", "read", "write")

    assert await guest.file("write", file, b"x", 0) == 1
    assert await guest.file("sync", file) is None
    assert await guest.file("sync-data", file) is None
    assert await guest.file("advise", file, 0, 10, "will-need") is None


async def test_directories_are_made_and_removed(guest: BareGuest, folder: Path) -> None:
    root = await root_of(guest)

    assert await guest.file("create-directory-at", root, "new/") is None
    assert await guest.file("create-directory-at", root, "new") == "exist"
    assert await guest.file("create-directory-at", root, "link") == "exist"
    assert await guest.file("create-directory-at", root, "missing/new") == "no-entry"
    assert await guest.file("remove-directory-at", root, "file") == "not-directory"
    (folder / "new" / "x").touch()
    assert await guest.file("remove-directory-at", root, "new") == "not-empty"
    os.unlink(folder / "new" / "x")
    assert await guest.file("remove-directory-at", root, "new/") is None
    assert not (folder / "new").exists()


async def test_names_are_removed(guest: BareGuest, folder: Path) -> None:
    root = await root_of(guest)

    assert await guest.file("unlink-file-at", root, "sub") == "is-directory"
    assert await guest.file("unlink-file-at", root, "sub/") == "is-directory"
    assert await guest.file("unlink-file-at", root, "file/") == "not-directory"
    assert await guest.file("unlink-file-at", root, "missing") == "no-entry"
    assert await guest.file("unlink-file-at", root, "link") is None
    assert (folder / "file").exists() and not (folder / "link").is_symlink()


async def test_names_are_moved(guest: BareGuest, folder: Path) -> None:
    root = await root_of(guest)

    assert await guest.file("rename-at", root, "file/", root, "x") == "not-directory"
    assert await guest.file("rename-at", root, "file", root, "x/") == "not-directory"
    assert await guest.file("rename-at", root, "file", root, "sub") == "is-directory"
    assert await guest.file("rename-at", root, "sub", root, "sub/inner") == "invalid"
    assert await guest.file("rename-at", root, "file", root, "../x") == "not-permitted"
    assert await guest.file("rename-at", root, "sub/", root, "new/") is None
    assert await guest.file("rename-at", root, "file", root, "new/file") is None
    assert (folder / "new" / "file").read_bytes() == b"contents"


async def test_a_file_gets_a_second_name(guest: BareGuest, folder: Path) -> None:
    root = await root_of(guest)

    assert await guest.file("link-at", root, FOLLOW, "file", root, "x") == "invalid"
    assert await guest.file("link-at", root, [], "file", root, "file") == "exist"
    assert await guest.file("link-at", root, [], "file", root, "new/") == "no-entry"
    assert await guest.file("link-at", root, [], "file/", root, "new") == "not-directory"
    assert await guest.file("link-at", root, [], "sub", root, "new") == "not-permitted"
    assert await guest.file("link-at", root, [], "file", root, "sub/new") is None
    assert os.stat(folder / "file").st_ino == os.stat(folder / "sub" / "new").st_ino


async def test_links_that_lead_out_are_not_made(guest: BareGuest, folder: Path) -> None:
    root = await root_of(guest)
    sub = await opened(guest, "sub", "read", how=("directory",))

    for target in ("/etc/passwd", "..", "../x", "a/../../x", "sub/../../x"):
        assert await guest.file("symlink-at", root, target, "new") == "not-permitted", target
    assert await guest.file("symlink-at", root, "../file", "sub/up") is None
    assert await guest.file("symlink-at", sub, "../file", "up-too") is None
    assert await guest.file("symlink-at", sub, "../../x", "out") == "not-permitted"
    assert await guest.file("symlink-at", root, "file", "new/") == "no-entry"
    assert await guest.file("symlink-at", root, "file", "sub/") == "exist"
    assert await guest.file("readlink-at", root, "sub/up") == "../file"
    assert await opened(guest, "sub/up", "read") is not None


async def test_a_links_target_is_told_if_it_tells_nothing_of_the_host(guest: BareGuest, folder: Path) -> None:
    (folder / "absolute").symlink_to("/etc/passwd")
    os.symlink(b"\xff", bytes(folder / "odd"))
    root = await root_of(guest)

    assert await guest.file("readlink-at", root, "link") == "file"
    assert await guest.file("readlink-at", root, "file") == "invalid"
    assert await guest.file("readlink-at", root, "absolute") == "not-permitted"
    assert await guest.file("readlink-at", root, "odd") == "illegal-byte-sequence"


async def test_a_file_is_described(guest: BareGuest, folder: Path) -> None:
    os.utime(folder / "file", ns=(1_500_000_000_000_000_001, 2_000_000_000))
    status = os.stat(folder / "file")
    root, file = await root_of(guest), await opened(guest, "file", "read")

    described = await guest.file("stat", file)

    assert described == await guest.file("stat-at", root, FOLLOW, "link")
    assert described == {
        "type": "regular-file",
        "link-count": 1,
        "size": 8,
        "data-access-timestamp": {"seconds": 1_500_000_000, "nanoseconds": 1},
        "data-modification-timestamp": {"seconds": 2, "nanoseconds": 0},
        "status-change-timestamp": {
            "seconds": status.st_ctime_ns // 10**9,
            "nanoseconds": status.st_ctime_ns % 10**9,
        },
    }
    assert (await guest.file("stat-at", root, [], "link"))["type"] == "symbolic-link"
    assert await guest.file("stat-at", root, [], "file/") == "not-directory"


async def test_times_are_set_kept_and_refused(guest: BareGuest, folder: Path) -> None:
    root, file = await root_of(guest), await opened(guest, "file", "write")
    os.utime(folder / "file", ns=(1, 1))

    def at(seconds: int, nanoseconds: int = 0) -> Any:
        return {"timestamp": {"seconds": seconds, "nanoseconds": nanoseconds}}

    assert await guest.file("set-times", file, NO_CHANGE, at(5, 6)) is None
    assert (os.stat(folder / "file").st_atime_ns, os.stat(folder / "file").st_mtime_ns) == (1, 5_000_000_006)
    assert await guest.file("set-times-at", root, FOLLOW, "link", NOW, NO_CHANGE) is None
    assert os.stat(folder / "file").st_atime_ns > 10**18
    assert await guest.file("set-times-at", root, [], "link", at(7), at(7)) is None
    assert os.lstat(folder / "link").st_mtime == 7 and os.stat(folder / "file").st_mtime_ns == 5_000_000_006
    assert await guest.file("set-times", file, at(1, 10**9), NOW) == "invalid"
    assert await guest.file("set-times", file, at(1 << 63), NOW) == "overflow"
    assert await guest.file("set-times", file, at((1 << 63) - 1), NOW) in (None, "overflow", "invalid")


async def test_times_of_a_directory_are_set_through_its_descriptor(guest: BareGuest, folder: Path) -> None:
    wanted = {"timestamp": {"seconds": 9, "nanoseconds": 1}}

    assert await guest.file("set-times", await root_of(guest), NO_CHANGE, wanted) is None
    assert os.stat(folder).st_mtime_ns == 9_000_000_001


async def test_files_are_known_by_what_they_are(guest: BareGuest, folder: Path) -> None:
    root = await root_of(guest)
    one, same, other = [await opened(guest, name, "read") for name in ("file", "link", "sub")]
    is_same = "[method]descriptor.is-same-object"

    assert await guest("filesystem/types", is_same, one, same) is True
    assert await guest("filesystem/types", is_same, one, other) is False
    assert await guest.file("metadata-hash", one) == await guest.file("metadata-hash-at", root, [], "file")
    assert await guest.file("metadata-hash", one) != await guest.file("metadata-hash", other)


async def test_a_listing_names_every_entry_once(guest: BareGuest, folder: Path) -> None:
    for number in range(BATCH_ENTRIES + 10):
        (folder / "sub" / f"n{number}").touch()
    listing = await guest.file("read-directory", await opened(guest, "sub", "read"))

    entries = [entry async for entry in _entries(guest, listing)]

    assert sorted(entry["name"] for entry in entries) == sorted(os.listdir(folder / "sub"))
    assert {entry["type"] for entry in entries} == {"regular-file"}


async def test_a_listing_says_what_each_entry_is(guest: BareGuest, folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    listing = await guest.file("read-directory", await root_of(guest))

    entries = [entry async for entry in _entries(guest, listing)]

    assert {entry["name"]: entry["type"] for entry in entries} == {
        "file": "regular-file", "link": "symbolic-link", "sub": "directory", "fifo": "fifo",
    }  # fmt: skip


async def test_a_name_that_is_no_text_is_an_error_and_the_others_are_listed(
    guest: BareGuest, folder: Path
) -> None:
    (folder / os.fsdecode(b"\xff")).touch()
    listing = await guest.file("read-directory", await root_of(guest))

    found = [await _next(guest, listing) for _ in range(4)]

    assert "illegal-byte-sequence" in found
    assert await _next(guest, listing) is None


async def test_open_files_have_a_limit_and_are_closed_when_dropped(guest: BareGuest) -> None:
    root = await root_of(guest)
    held = [await guest.file("open-at", root, [], "file", [], ["read"]) for _ in range(MAX_OPEN_FILES - 1)]

    assert await guest.file("open-at", root, [], "file", [], ["read"]) == "quota"
    assert await guest.file("read-directory", root) == "quota"
    guest.drop("filesystem/types", "descriptor", held.pop())
    listing = await guest.file("read-directory", root)
    guest.drop("filesystem/types", "directory-entry-stream", listing)
    for descriptor in (*held, root):
        guest.drop("filesystem/types", "descriptor", descriptor)
    assert len(OpenFiles.of(guest.state)) == 0


async def test_a_guest_without_folders_has_none() -> None:
    assert await BareGuest()("filesystem/preopens", "get-directories") == []


async def test_an_opening_that_is_given_up_leaves_nothing_open(guest: BareGuest, folder: Path) -> None:
    root = await root_of(guest)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await guest.file("open-at", root, [], "file", [], ["read"])

    assert scope.cancelled_caught
    assert len(OpenFiles.of(guest.state)) == 1


async def _next(guest: BareGuest, listing: Any) -> Any:
    method = "[method]directory-entry-stream.read-directory-entry"
    return plain(await guest("filesystem/types", method, listing))


async def _entries(guest: BareGuest, listing: Any) -> Any:
    while (entry := await _next(guest, listing)) is not None:
        yield entry
