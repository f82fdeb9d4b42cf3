"""Streams over files."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lattice.errors import Trapped
from node.capabilities.wasi import Folder
from node.capabilities.wasi.filesystem.open_files import OpenFiles
from node.capabilities.wasi.streams import READ_BYTES, WRITE_BYTES
from tests.node.capabilities.wasi.bare_guest import BareGuest
from tests.turns import counted_turns

CLOSED = {"closed": None}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"contents")
    return path


@pytest.fixture
def guest(tmp_path: Path) -> BareGuest:
    return BareGuest(folders=(Folder(host_path=tmp_path, guest_path="/data", writable=True),))


def contents(path: Path) -> bytes:
    return path.read_bytes()


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


async def descriptor(guest: BareGuest, path: str = "file") -> Any:
    [(root, _)] = await guest("filesystem/preopens", "get-directories")
    return await guest.file("open-at", root, [], path, ["create"], ["read", "write"])


async def reading(guest: BareGuest, offset: int = 0) -> Any:
    return await guest.file("read-via-stream", await descriptor(guest), offset)


async def writing(guest: BareGuest, offset: int = 0) -> Any:
    return await guest.file("write-via-stream", await descriptor(guest), offset)


@pytest.mark.parametrize("method", ["input-stream.read", "input-stream.blocking-read"])
async def test_a_file_is_read_to_its_end_from_any_position(guest: BareGuest, file: Path, method: str) -> None:
    stream = await reading(guest, 2)

    assert await guest.stream(method, stream, 3) == b"nte"
    assert await guest.stream(method, stream, 0) == b""
    assert await guest.stream(method, stream, 1 << 63) == b"nts"
    assert await guest.stream(method, stream, 3) == CLOSED


@pytest.mark.parametrize("method", ["input-stream.skip", "input-stream.blocking-skip"])
async def test_bytes_are_skipped(guest: BareGuest, file: Path, method: str) -> None:
    stream = await reading(guest)

    assert await guest.stream(method, stream, 6) == 6
    assert await guest.stream("input-stream.read", stream, 9) == b"ts"


async def test_one_read_has_a_limit(guest: BareGuest, file: Path) -> None:
    os.truncate(file, READ_BYTES * 2)

    assert len(await guest.stream("input-stream.read", await reading(guest), 1 << 40)) == READ_BYTES


async def test_writes_go_where_the_last_ended(guest: BareGuest, file: Path) -> None:
    stream = await writing(guest, 1)

    assert await guest.stream("output-stream.check-write", stream) == WRITE_BYTES
    assert await guest.stream("output-stream.write", stream, b"XY") is None
    assert await guest.stream("output-stream.blocking-write-and-flush", stream, b"Z") is None
    assert await guest.stream("output-stream.check-write", stream) == WRITE_BYTES
    assert await guest.stream("output-stream.write-zeroes", stream, 2) is None
    assert await guest.stream("output-stream.blocking-write-zeroes-and-flush", stream, 1) is None
    assert await guest.stream("output-stream.flush", stream) is None
    assert await guest.stream("output-stream.blocking-flush", stream) is None
    assert contents(file) == b"cXYZ\0\0\0s"


async def test_appending_goes_to_the_end_whoever_else_wrote(guest: BareGuest, file: Path) -> None:
    stream = await guest.file("append-via-stream", await descriptor(guest))

    await guest.stream("output-stream.blocking-write-and-flush", stream, b"1")
    append(file, b"other")
    await guest.stream("output-stream.blocking-write-and-flush", stream, b"2")

    assert contents(file) == b"contents1other2"


@pytest.mark.parametrize("method", ["write", "write-zeroes"])
async def test_a_write_without_a_permit_traps_and_writes_nothing(
    guest: BareGuest, file: Path, method: str
) -> None:
    stream = await writing(guest)

    with pytest.raises(Trapped, match="check-write"):
        await guest.stream(f"output-stream.{method}", stream, b"X" if method == "write" else 1 << 62)
    with pytest.raises(Trapped, match="4096"):
        await guest.stream("output-stream.blocking-write-and-flush", stream, bytes(4097))
    assert contents(file) == b"contents"


@pytest.mark.parametrize("method", ["output-stream.splice", "output-stream.blocking-splice"])
async def test_a_file_is_spliced_into_another(guest: BareGuest, file: Path, method: str) -> None:
    source = await reading(guest)
    target = await guest.file("write-via-stream", await descriptor(guest, "copy"), 0)

    assert await guest.stream(method, target, source, 1 << 40) == 8
    assert await guest.stream(method, target, source, 1 << 40) == CLOSED
    assert (file.parent / "copy").read_bytes() == b"contents"


async def test_a_file_is_spliced_into_a_stream_of_another_kind(guest: BareGuest, file: Path) -> None:
    output = await guest("cli/stdout", "get-stdout")

    assert await guest.stream("output-stream.splice", output, await reading(guest), 100) == 8


async def test_streams_outlive_their_descriptor_and_close_the_file(guest: BareGuest, file: Path) -> None:
    opened = await descriptor(guest)
    stream = await guest.file("read-via-stream", opened, 0)
    before = len(OpenFiles.of(guest.state))

    guest.drop("filesystem/types", "descriptor", opened)

    assert await guest.stream("input-stream.read", stream, 3) == b"con"
    guest.drop("io/streams", "input-stream", stream)
    assert len(OpenFiles.of(guest.state)) == before - 1


async def test_streams_of_files_are_always_ready(guest: BareGuest, file: Path) -> None:
    for kind, stream in (("input-stream", await reading(guest)), ("output-stream", await writing(guest))):
        pollable = await guest("io/streams", f"[method]{kind}.subscribe", stream)
        assert await guest("io/poll", "poll", [pollable]) == [0]


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Files of this process may have so many bytes; also the one that the results of the tests go to."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_failure_has_the_files_code_and_ends_the_stream(guest: BareGuest, file: Path) -> None:
    stream = await writing(guest, 4096)

    with small_files(4096):
        failed = await guest.stream("output-stream.blocking-write-and-flush", stream, b"x")

    error = failed["last-operation-failed"]
    assert await guest("filesystem/types", "filesystem-error-code", error) == "file-too-large"
    assert "file-too-large" in await guest("io/error", "[method]error.to-debug-string", error)
    assert await guest.stream("output-stream.check-write", stream) == CLOSED
    assert await guest.stream("output-stream.blocking-write-and-flush", stream, b"x") == CLOSED


async def test_file_work_leaves_the_loop_to_others(guest: BareGuest, file: Path) -> None:
    os.truncate(file, 64 * 1024 * 1024)
    stream = await reading(guest)

    async with counted_turns() as turns:
        for _ in range(50):
            assert len(await guest.stream("input-stream.blocking-read", stream, 1 << 20)) == READ_BYTES

    assert turns.count > 50
