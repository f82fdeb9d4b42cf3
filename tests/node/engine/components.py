"""Components for the engine's tests: WAT compiled and described here, without the limited subprocess."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

import wasmtime
from wasmtime import component as wasm

from lattice import wit
from node.engine.capi import EngineSettings, make_engine
from node.engine.compiled import CompiledComponent
from node.engine.describe import describe


@functools.cache
def _compiling_engine() -> wasmtime.Engine:
    return make_engine(EngineSettings(is_pooling=False))


def compile_wat(text: str, folder: Path, *, is_adapted: bool = False) -> CompiledComponent:
    """Compile component text into `folder`.

    With `is_adapted`, the text is one that an adapter has changed: its strings stand for byte lists.
    """
    binary = wasmtime.wat2wasm(text)
    engine = _compiling_engine()
    component = wasm.Component(engine, binary)
    digest = hashlib.sha256(binary).hexdigest()
    path = folder / f"{digest}.cwasm"
    path.write_bytes(component.serialize())
    type_ = describe(component, engine)
    if is_adapted:
        type_ = _with_bytes_for_strings(type_)
    return CompiledComponent(
        digest=f"sha256:{digest}",
        size=len(binary),
        type=type_,
        adapted_imports=frozenset(type_.imports if is_adapted else ()),
        adapted_exports=frozenset(type_.exports if is_adapted else ()),
        path=path,
    )


def _with_bytes_for_strings(type_: wit.ComponentType) -> wit.ComponentType:
    text = json.dumps(wit.component_type_to_json(type_))
    return wit.component_type_from_json(json.loads(text.replace('"string"', '{"list": "u8"}')))


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
