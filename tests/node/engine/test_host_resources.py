"""Objects of the host that guests hold handles to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from lattice.errors import Denied, Invalid, Trapped
from node.engine.host import GuestCall, HostInterface
from tests.node.engine.components import FILES, VISITOR
from tests.node.engine.conftest import Bench, context


@dataclass(eq=False)
class File:
    size: int


class Files:
    """A host of files that records what becomes of them."""

    def __init__(self) -> None:
        self.made: list[File] = []
        self.dropped: list[File] = []
        self.closed: list[File] = []

    def interfaces(self) -> list[HostInterface]:
        types = HostInterface(
            name="demo:files/types@0.2.0",
            functions={"[constructor]file": self._make, "[method]file.size": lambda call, file: file.size},
            resources={"file": lambda call, file: self.dropped.append(file)},
        )
        opener = HostInterface(
            name="demo:files/opener@0.2.0", functions={"open": self._open, "close": self._close}
        )
        return [types, opener]

    def _make(self, call: GuestCall, size: int) -> File:
        self.made.append(File(size))
        return self.made[-1]

    async def _open(self, call: GuestCall, size: int) -> File:
        await anyio.lowlevel.checkpoint()
        return self._make(call, size)

    def _close(self, call: GuestCall, file: File) -> int:
        self.closed.append(file)
        return file.size + 1


@pytest.fixture
def files() -> Files:
    return Files()


async def test_borrowed_handle_is_the_same_object_and_its_drop_is_told(bench: Bench, files: Files) -> None:
    pool = bench.pool(FILES, imports=files.interfaces())

    assert await pool.call("-", "measure", [7], context()) == 7
    assert files.dropped == files.made


async def test_object_of_a_coroutine_is_dropped_when_its_instance_ends(bench: Bench, files: Files) -> None:
    pool = bench.pool(FILES, imports=files.interfaces())

    assert await pool.call("-", "keep", [7], context()) == 7
    assert files.dropped == files.made


async def test_reused_instance_keeps_its_objects(bench: Bench, files: Files) -> None:
    pool = bench.pool(FILES, imports=files.interfaces(), reuse=3)

    for size in (1, 2):
        await pool.call("-", "keep", [size], context())
    assert files.dropped == []

    await pool.call("-", "keep", [3], context())
    assert len(files.dropped) == 3


async def test_owned_argument_returns_the_object_to_the_host(bench: Bench, files: Files) -> None:
    pool = bench.pool(FILES, imports=files.interfaces())

    assert await pool.call("-", "hand-over", [7], context()) == 8
    assert files.closed == files.made
    assert files.dropped == []


async def test_forged_handle_traps(bench: Bench, files: Files) -> None:
    pool = bench.pool(FILES, imports=files.interfaces())

    with pytest.raises(Trapped, match="unknown handle index 77"):
        await pool.call("-", "forge", [], context())


async def test_three_hundred_calls_drop_three_hundred_objects(bench: Bench, files: Files) -> None:
    pool = bench.pool(FILES, imports=files.interfaces(), slots=40, queue_length=1000)

    async with anyio.create_task_group() as tasks:
        for size in range(300):
            tasks.start_soon(pool.call, "-", "keep" if size % 2 else "measure", [size], context())

    assert len(files.dropped) == 300
    assert set(files.dropped) == set(files.made)


async def test_failing_drop_ends_nobodys_call(bench: Bench, files: Files) -> None:
    def fail(call: GuestCall, file: Any) -> None:
        raise ValueError("x")

    types, opener = files.interfaces()
    failing = HostInterface(name=types.name, functions=types.functions, resources={"file": fail})
    pool = bench.pool(FILES, imports=[failing, opener])

    assert await pool.call("-", "measure", [7], context()) == 7


async def test_missing_resource_is_denied(bench: Bench, files: Files) -> None:
    types, opener = files.interfaces()
    poor = HostInterface(name=types.name, functions=types.functions)

    with pytest.raises(Denied, match="resource `file`"):
        bench.pool(FILES, imports=[poor, opener])


async def test_objects_of_the_host_can_be_passed_to_an_export_by_who_may(bench: Bench, files: Files) -> None:
    pool = bench.pool(VISITOR, imports=files.interfaces())
    file = File(7)

    size = await pool.call("demo:files/visits@0.2.0", "visit", [file], context(), takes_objects=True)

    assert size == 7
    assert files.dropped == [file]


async def test_objects_that_an_export_returns_are_the_hosts_own(bench: Bench, files: Files) -> None:
    pool = bench.pool(VISITOR, imports=files.interfaces())
    file = File(7)

    back = await pool.call("demo:files/visits@0.2.0", "back", [file], context(), takes_objects=True)

    assert back is file
    assert files.dropped == []


async def test_an_export_with_resources_is_refused_to_calls_from_outside(bench: Bench, files: Files) -> None:
    pool = bench.pool(VISITOR, imports=files.interfaces())

    with pytest.raises(Invalid, match="a resource, which can't be passed"):
        await pool.call("demo:files/visits@0.2.0", "visit", [1], context())


async def test_a_drop_that_the_host_forbids_ends_the_call(bench: Bench, files: Files) -> None:
    def refuse(call: GuestCall, file: File) -> None:
        raise Trapped("the file is still in use")

    types, opener = files.interfaces()
    guarded = HostInterface(name=types.name, functions=types.functions, resources={"file": refuse})
    pool = bench.pool(FILES, imports=[guarded, opener])

    with pytest.raises(Trapped, match="still in use"):
        await pool.call("-", "measure", [3], context())
