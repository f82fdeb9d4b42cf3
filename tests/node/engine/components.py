"""Components for the engine's tests: WAT compiled and described here, without the limited subprocess."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import wasmtime
from wasmtime import component as wasm

from node.engine.capi import EngineSettings, make_engine
from node.engine.compiled import CompiledComponent
from node.engine.describe import describe


@functools.cache
def _compiling_engine() -> wasmtime.Engine:
    return make_engine(EngineSettings(is_pooling=False))


def compile_wat(
    text: str,
    folder: Path,
    *,
    adapted_imports: frozenset[str] = frozenset(),
    adapted_exports: frozenset[str] = frozenset(),
) -> CompiledComponent:
    """Compile component text into `folder`; adapted interfaces are those that the text already adapts."""
    binary = wasmtime.wat2wasm(text)
    engine = _compiling_engine()
    component = wasm.Component(engine, binary)
    digest = hashlib.sha256(binary).hexdigest()
    path = folder / f"{digest}.cwasm"
    path.write_bytes(component.serialize())
    return CompiledComponent(
        digest=f"sha256:{digest}",
        size=len(binary),
        type=describe(component, engine),
        adapted_imports=adapted_imports,
        adapted_exports=adapted_exports,
        path=path,
    )


ADD = """
(component
  (core module $m
    (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add)
    (func (export "spin") (loop $l br $l))
    (func (export "trap") unreachable)
    (func $recurse (export "recurse") (param i32) (result i32)
      local.get 0 i32.const 1 i32.add call $recurse i32.const 1 i32.add)
    (global $count (mut i32) (i32.const 0))
    (func (export "count") (result i32)
      global.get $count i32.const 1 i32.add global.set $count global.get $count)
    (memory 1)
    (func (export "grow") (param i32) (result i32) local.get 0 memory.grow))
  (core instance $i (instantiate $m))
  (func (export "add") (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add")))
  (func (export "spin") (canon lift (core func $i "spin")))
  (func (export "trap") (canon lift (core func $i "trap")))
  (func (export "recurse") (param "n" u32) (result u32) (canon lift (core func $i "recurse")))
  (func (export "count") (result u32) (canon lift (core func $i "count")))
  (func (export "grow") (param "pages" u32) (result s32) (canon lift (core func $i "grow"))))
"""
