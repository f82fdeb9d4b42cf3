from __future__ import annotations

from typing import Any

import pytest
import wasmtime

from node.engine.canonical import CoreSignature
from node.engine.forwarding import forwarding_module, memory_module, reset_function


class Memory:
    """The adapter's memory, run by itself."""

    def __init__(self, reserved: int) -> None:
        self.store = wasmtime.Store()
        text = memory_module("$m", reserved).replace("core module", "module")
        self._instance = wasmtime.Instance(self.store, wasmtime.Module(self.store.engine, text), [])

    def call(self, name: str, *args: int) -> Any:
        return self._instance.exports(self.store)[name](self.store, *args)  # type: ignore[operator]

    def allocate(self, size: int) -> int:
        address: int = self.call("realloc", 0, 0, 1, size)
        return address

    @property
    def memory(self) -> wasmtime.Memory:
        found = self._instance.exports(self.store)["memory"]
        assert isinstance(found, wasmtime.Memory)
        return found


def test_blocks_are_aligned_and_lie_behind_what_is_reserved() -> None:
    memory = Memory(reserved=100)

    first, second = memory.allocate(3), memory.allocate(5)

    assert (first, second) == (112, 120)


def test_the_newest_block_grows_and_shrinks_in_place() -> None:
    memory = Memory(reserved=0)
    first = memory.allocate(10)

    assert memory.call("realloc", first, 10, 1, 1000) == first
    assert memory.call("realloc", first, 1000, 1, 16) == first
    assert memory.allocate(1) == first + 16


def test_an_older_block_moves_with_its_content() -> None:
    memory = Memory(reserved=0)
    first = memory.allocate(4)
    memory.memory.write(memory.store, b"abcd", first)
    memory.allocate(1)

    moved = memory.call("realloc", first, 4, 1, 8)

    assert moved != first
    assert memory.memory.read(memory.store, moved, moved + 4) == b"abcd"


def test_the_memory_grows_with_what_is_asked_for() -> None:
    memory = Memory(reserved=0)

    start = memory.allocate(10_000_000)

    assert memory.memory.data_len(memory.store) >= start + 10_000_000


@pytest.mark.parametrize("size", [-1, -8, -(1 << 31)])
def test_more_than_the_address_space_traps(size: int) -> None:
    memory = Memory(reserved=0)
    memory.allocate(3 << 30 if size == -(1 << 31) else 100)

    with pytest.raises(wasmtime.Trap):
        memory.allocate(size)


@pytest.mark.parametrize(("name", "args"), [("reset", ()), ("reset-i32", (7,)), ("reset-i64", (7,))])
def test_every_reset_frees_everything(name: str, args: tuple[int, ...]) -> None:
    memory = Memory(reserved=0)
    first = memory.allocate(100)
    memory.allocate(100)

    memory.call(name, *args)

    assert memory.allocate(1) == first


@pytest.mark.parametrize(
    ("result", "area", "name"), [(None, 0, "reset"), ("f64", 0, "reset-f64"), (None, 24, "reset-i32")]
)
def test_the_post_return_takes_what_the_function_returns(result: str | None, area: int, name: str) -> None:
    assert reset_function(CoreSignature(params=(), result=result, area_bytes=area)) == name


def test_forwarding_functions_validate() -> None:
    signatures = [
        CoreSignature(params=("i32", "f64"), result="i64", area_bytes=0),
        CoreSignature(params=(), result=None, area_bytes=0),
        CoreSignature(params=("i32",) * 16, result=None, area_bytes=48),
    ]

    text = forwarding_module("$m", signatures, 16).replace("core module", "module")

    module = wasmtime.Module(wasmtime.Engine(), text)
    assert [len(item.type.params) for item in module.imports] == [2, 0, 17]  # type: ignore[union-attr]
    assert [len(item.type.results) for item in module.exports] == [1, 0, 1]  # type: ignore[union-attr]
