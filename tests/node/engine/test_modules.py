"""Core modules: which are commands, and that their compiled code is kept apart from that of components."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
import wasmtime

from lattice.errors import Invalid
from node.engine.compile_process import CompileLimits
from node.engine.compiler import Compiler
from node.engine.configuration import EngineSettings
from node.engine.modules import ModuleCompiler
from node.engine.preview1_module import FUNCTIONS, WASI

COMMAND = '(module (memory (export "memory") 1) (func (export "_start")))'
WITH_WASI = (
    '(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))'
    ' (memory (export "memory") 1) (func (export "_start")))'
)


@pytest.fixture
async def modules(tmp_path: Path) -> ModuleCompiler:
    return await anyio.to_thread.run_sync(lambda: make(tmp_path))


def make(folder: Path) -> ModuleCompiler:
    return ModuleCompiler(folder / "modules", b"k" * 32, CompileLimits(), EngineSettings())


@pytest.mark.parametrize("text", [COMMAND, WITH_WASI])
async def test_a_command_is_compiled_once(modules: ModuleCompiler, text: str) -> None:
    module = wasmtime.wat2wasm(text)

    first, second = await modules.compile(bytes(module)), await modules.compile(bytes(module))

    assert first == second
    assert first.path.parent.name == "modules"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(module)", "has no function `_start`"),
        ('(module (func (export "_start") (param i32)))', "has no function `_start`"),
        ('(module (func (export "_initialize")))', "is a library"),
        ('(module (func (export "_start")))', "exports no `memory`"),
        ('(module (import "env" "f" (func)) (func (export "_start")))', "imports `env`"),
        ('(module (import "wasi_unstable" "sched_yield" (func)))', "imports `wasi_unstable`, which is not"),
        (f'(module (import "{WASI}" "thread_spawn" (func)))', f"imports `{WASI}.thread_spawn`, which is not"),
    ],
)
async def test_what_is_no_command_is_refused(modules: ModuleCompiler, text: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        await modules.compile(bytes(wasmtime.wat2wasm(text)))


def test_what_a_command_may_import_is_what_the_host_has() -> None:
    engine = wasmtime.Engine()
    store, linker = wasmtime.Store(engine), wasmtime.Linker(engine)
    store.set_wasi(wasmtime.WasiConfig())
    linker.define_wasi()

    assert all(linker.get(store, WASI, name) for name in FUNCTIONS)


@pytest.mark.parametrize("data", [b"", b"\0asm\x0d\x00\x01\x00", b"\0asm\x01\x00\x00\x00\xff"])
async def test_what_is_no_module_is_refused(modules: ModuleCompiler, data: bytes) -> None:
    with pytest.raises(Invalid):
        await modules.compile(data)


async def test_the_compiler_of_components_refuses_modules_with_a_hint(tmp_path: Path) -> None:
    compiler = await anyio.to_thread.run_sync(lambda: Compiler(tmp_path / "compiled", b"k" * 32))

    with pytest.raises(Invalid, match="`latticectl run`"):
        await compiler.compile(bytes(wasmtime.wat2wasm(COMMAND)))


async def test_code_that_was_changed_on_disk_is_not_run(tmp_path: Path) -> None:
    module = bytes(wasmtime.wat2wasm(COMMAND))
    first = await (await anyio.to_thread.run_sync(lambda: make(tmp_path))).compile(module)
    path = anyio.Path(first.path)
    good = await path.read_bytes()
    await path.chmod(0o600)
    await path.write_bytes(b"evil" + good)

    again = await (await anyio.to_thread.run_sync(lambda: make(tmp_path))).compile(module)

    assert await anyio.Path(again.path).read_bytes() == good
