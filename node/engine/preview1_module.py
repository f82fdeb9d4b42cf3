"""Which core modules are commands of WASI 0.1: the only ones that run without being made a component."""

from __future__ import annotations

import wasmtime

from lattice.errors import Invalid

WASI_MODULES = ("wasi_snapshot_preview1", "wasi_unstable")
START = "_start"
CURE = (
    "`latticectl run` takes core modules that are commands: build a program with a `main` for wasm32-wasip1"
)


def check_command(module: wasmtime.Module) -> None:
    """Raise `Invalid`, which says what is wrong, unless it exports `_start` and imports WASI 0.1 only."""
    exports = {item.name: item.type for item in module.exports}
    foreign = sorted({item.module for item in module.imports} - set(WASI_MODULES))
    if foreign:
        raise Invalid(f"this core module imports `{foreign[0]}`, which is not WASI 0.1: {CURE}")
    start = exports.get(START)
    if not isinstance(start, wasmtime.FuncType) or start.params or start.results:
        kind = "is a library (a reactor)" if "_initialize" in exports else f"has no function `{START}`"
        raise Invalid(f"this core module {kind}, not a command: {CURE}")
    if not isinstance(exports.get("memory"), wasmtime.MemoryType):
        raise Invalid(f"this core module exports no `memory`, which WASI 0.1 needs: {CURE}")
