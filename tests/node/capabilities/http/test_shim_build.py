"""The committed shim is what its sources give, and what the rest of the code takes it for."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import wasmtime

from node.capabilities.http import shim
from node.capabilities.http.shim import build
from node.engine.shim_compose import load_core
from node.engine.shim_text import is_carried

FOLDER = Path(shim.__file__).parent


@pytest.mark.slow
def test_the_sources_give_the_committed_file(tmp_path: Path) -> None:
    if find_spec("ziglang") is None and not os.environ.get("CI"):
        pytest.skip("needs the package ziglang")

    subprocess.run([sys.executable, build.__file__, str(tmp_path / "shim.wasm")], check=True)

    assert (tmp_path / "shim.wasm").read_bytes() == (FOLDER / "shim.wasm").read_bytes()


def test_static_data_end_where_the_arena_begins() -> None:
    engine = wasmtime.Engine()
    module = wasmtime.Module(engine, (FOLDER / "shim.wasm").read_bytes())
    store = wasmtime.Store(engine)
    memory = wasmtime.Memory(store, wasmtime.MemoryType(wasmtime.Limits(1, None)))
    linker = wasmtime.Linker(engine)
    linker.define(store, "env", "memory", memory)
    linker.define_unknown_imports_as_traps(module)

    heap = linker.instantiate(store, module).exports(store)["__heap_base"]

    assert isinstance(heap, wasmtime.Global)
    assert heap.value(store) <= build.HEAP
    assert f"(global $base (mut i32) (i32.const {build.HEAP}))" in (FOLDER / "memory.wat").read_text()


def test_every_function_of_the_shim_belongs_to_an_interface_that_it_carries() -> None:
    interfaces = {name.partition("#")[0] for name in load_core().functions}

    assert {name for name in interfaces if not is_carried(f"{name}@0.2.0")} == {"lattice:shim/control"}
