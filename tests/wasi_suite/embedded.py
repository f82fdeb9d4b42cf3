"""Runs a command over the wasmtime library's WASI with a folder that is only read: its program has none.

python -m tests.wasi_suite.embedded FILE FOLDER GUEST_PATH
"""

from __future__ import annotations

import sys
from pathlib import Path

import wasmtime
from wasmtime import component as wasm

TRAPPED = 134
RUN = "wasi:cli/run@0.2."
MODULE_MAGIC = b"\0asm\1\0\0\0"


def _store(engine: wasmtime.Engine, folder: str, path: str) -> wasmtime.Store:
    wasi = wasmtime.WasiConfig()
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    wasi.preopen_dir(folder, path, False)
    store = wasmtime.Store(engine)
    store.set_wasi(wasi)
    return store


def run_component(file: Path, folder: str, path: str) -> None:
    """Raises `WasmtimeError` when it traps."""
    engine = wasmtime.Engine()
    store = _store(engine, folder, path)
    linker = wasm.Linker(engine)
    linker.add_wasip2()
    component = wasm.Component.from_file(engine, str(file))
    name = next(name for name in component.type.exports(engine) if name.startswith(RUN))
    instance = linker.instantiate(store, component)
    interface = instance.get_export_index(store, name)
    index = instance.get_export_index(store, "run", interface)
    assert index is not None
    function = instance.get_func(store, index)
    assert function is not None
    function(store)


def run_module(file: Path, folder: str, path: str) -> None:
    """Raises `WasmtimeError` when it traps, `ExitTrap` when it ends itself."""
    engine = wasmtime.Engine()
    store = _store(engine, folder, path)
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    instance = linker.instantiate(store, wasmtime.Module.from_file(engine, str(file)))
    start = instance.exports(store)["_start"]
    assert isinstance(start, wasmtime.Func)
    start(store)


def main() -> int:
    file, folder, path = Path(sys.argv[1]), *sys.argv[2:4]
    with file.open("rb") as opened:
        run = run_module if opened.read(len(MODULE_MAGIC)) == MODULE_MAGIC else run_component
    try:
        run(file, folder, path)
    except wasmtime.ExitTrap as ended:
        return ended.code
    except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
        sys.stderr.write(f"{error}\n")
        return TRAPPED
    return 0


if __name__ == "__main__":
    sys.exit(main())
