"""The committed shim is what its sources give, and what the rest of the code takes it for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import wasmtime

from lattice import wit
from lattice.errors import Invalid
from node.capabilities.http import shim
from node.capabilities.http.shim import build
from node.engine.carriage import carriage, is_carried
from node.engine.compile_worker import describe_artifact
from node.engine.compiled import Form
from node.engine.configuration import EngineSettings, make_engine
from node.engine.shim_compose import compose_beside, load_core
from tests.node.capabilities.http.corpus import HELLO, ROOT

FOLDER = Path(shim.__file__).parent


@pytest.mark.slow
def test_the_sources_give_the_committed_file(tmp_path: Path) -> None:
    subprocess.run([sys.executable, build.__file__, str(tmp_path)], check=True)

    for name in build.MODULES:
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


@pytest.mark.parametrize("name", build.MODULES)
def test_static_data_end_where_the_handles_begin(name: str) -> None:
    engine = wasmtime.Engine()
    module = wasmtime.Module(engine, (FOLDER / name).read_bytes())
    store = wasmtime.Store(engine)
    memory = wasmtime.Memory(store, wasmtime.MemoryType(wasmtime.Limits(1, None)))
    linker = wasmtime.Linker(engine)
    linker.define(store, "env", "memory", memory)
    linker.define_unknown_imports_as_traps(module)

    heap = linker.instantiate(store, module).exports(store)["__heap_base"]

    assert isinstance(heap, wasmtime.Global)
    assert heap.value(store) <= build.HEAP
    assert f"(global $handles (mut i32) (i32.const {build.HEAP}))" in (FOLDER / "memory.wat").read_text()


def test_every_function_of_the_shim_belongs_to_an_interface_that_it_carries() -> None:
    interfaces = {name.partition("#")[0] for name in load_core().functions}

    assert {name for name in interfaces if not is_carried(f"{name}@0.2.0")} == {"lattice:shim/control"}


def test_what_the_host_provides_with_streams_of_wasi_is_not_carried_beside() -> None:
    binary = (ROOT / HELLO).read_bytes()
    type_ = describe_artifact(make_engine(EngineSettings(is_pooling=False)), binary)
    stream = wit.Handle("wasi:io/streams@0.2.0#input-stream", is_owned=True)
    files = wit.Interface(
        "demo:files/reader", {"open": wit.Function((), stream)}, types={"input-stream": stream}
    )
    asked = replace(type_, imports={**type_.imports, files.name: files})

    found = carriage(asked, Form.SHIM)

    assert found.is_mixed
    assert list(found.hosted) == ["demo:files/reader"]
    with pytest.raises(Invalid, match="streams of the host"):
        compose_beside(binary, asked, found, load_core())


@pytest.mark.parametrize(
    ("name", "carried"),
    [
        ("wasi:io/streams@0.2.0", True),
        ("wasi:http/types@0.2.12", True),
        ("wasi:io/streams@0.3.0", False),
        ("wasi:keyvalue/store@0.2.0-draft", False),
        ("wasi:config/store@0.2.0-rc.1", False),
        ("demo:wasi/io", False),
    ],
)
def test_wasi_0_2_is_carried_and_nothing_else(name: str, carried: bool) -> None:
    assert is_carried(name) is carried
