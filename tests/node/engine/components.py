"""Components for the engine's tests: WAT compiled and described here, without the limited subprocess."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

import wasmtime
from wasmtime import component as wasm

from lattice import wit
from node.engine.compiled import CompiledComponent
from node.engine.configuration import EngineSettings, make_engine
from node.engine.describe import describe

ROOT = Path(__file__).parents[3]
COMMITTED_BYTES = 100_000
"""Larger ones are there where somebody has built them."""
EXAMPLES = sorted(
    path
    for path in (ROOT / "examples").glob("*/*/*.wasm")
    if path.stat().st_size < COMMITTED_BYTES and path.read_bytes()[4:6] == b"\x0d\x00"
)
"""The components among the examples."""


@functools.cache
def _compiling_engine() -> wasmtime.Engine:
    return make_engine(EngineSettings(is_pooling=False))


def compile_wat(text: str, folder: Path, *, is_adapted: bool = False) -> CompiledComponent:
    """Compile component text into `folder`.

    With `is_adapted`, the text is one that an adapter has changed: its strings stand for byte lists.
    """
    binary = bytes(wasmtime.wat2wasm(text))
    engine = _compiling_engine()
    component = wasm.Component(engine, binary)
    digest = hashlib.sha256(binary).hexdigest()
    path = folder / f"{digest}.cwasm"
    if not path.exists():  # an engine may still have it mapped
        path.write_bytes(component.serialize())
    type_ = describe(binary, engine)
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

KEY_VALUE = """
(component
  (import "demo:kv/store@0.2.3" (instance $kv
    (export "get" (func (param "key" u32) (result u32)))
    (export "note" (func (param "key" u32)))))
  (core func $get (canon lower (func $kv "get")))
  (core func $note (canon lower (func $kv "note")))
  (core module $m
    (import "kv" "get" (func $get (param i32) (result i32)))
    (import "kv" "note" (func $note (param i32)))
    (func (export "run") (param i32) (result i32) local.get 0 call $get i32.const 1 i32.add)
    (func (export "note") (param i32) local.get 0 call $note)
    (func (export "repeat") (param $n i32) (result i32) (local $sum i32)
      (loop $again
        (local.set $sum (i32.add (local.get $sum) (call $get (i32.const 1))))
        (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
      (local.get $sum))
    (func (export "labour") (param $n i32) (result i32) (local $left i32) (local $sum i32)
      (loop $again
        (local.set $left (i32.const 3000000))
        (loop $work (br_if $work (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (local.set $sum (i32.add (local.get $sum) (call $get (i32.const 1))))
        (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
      (local.get $sum))
    (func (export "pester") (loop $again (call $note (i32.const 1)) (br $again)))
    (func (export "spin") (result i32) (loop $l br $l) (i32.const 0))
    (func (export "work") (param $n i32) (result i32)
      (loop $l (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1))))) (i32.const 7)))
  (core instance $i (instantiate $m
    (with "kv" (instance (export "get" (func $get)) (export "note" (func $note))))))
  (func (export "run") (param "key" u32) (result u32) (canon lift (core func $i "run")))
  (func (export "note") (param "key" u32) (canon lift (core func $i "note")))
  (func (export "repeat") (param "times" u32) (result u32) (canon lift (core func $i "repeat")))
  (func (export "labour") (param "times" u32) (result u32) (canon lift (core func $i "labour")))
  (func (export "pester") (canon lift (core func $i "pester")))
  (func (export "spin") (result u32) (canon lift (core func $i "spin")))
  (func (export "work") (param "n" u32) (result u32) (canon lift (core func $i "work"))))
"""

FILES = """
(component
  (import "demo:files/types@0.2.0" (instance $types
    (export "file" (type $file (sub resource)))
    (export "[constructor]file" (func (param "size" u32) (result (own $file))))
    (export "[method]file.size" (func (param "self" (borrow $file)) (result u32)))))
  (alias export $types "file" (type $file))
  (import "demo:files/opener@0.2.1" (instance $opener
    (alias outer 1 $file (type $outer))
    (export "file" (type $file (eq $outer)))
    (export "open" (func (param "size" u32) (result (own $file))))
    (export "close" (func (param "file" (own $file)) (result u32)))))
  (core func $new (canon lower (func $types "[constructor]file")))
  (core func $size (canon lower (func $types "[method]file.size")))
  (core func $open (canon lower (func $opener "open")))
  (core func $close (canon lower (func $opener "close")))
  (core func $drop (canon resource.drop $file))
  (core module $m
    (import "h" "new" (func $new (param i32) (result i32)))
    (import "h" "size" (func $size (param i32) (result i32)))
    (import "h" "open" (func $open (param i32) (result i32)))
    (import "h" "close" (func $close (param i32) (result i32)))
    (import "h" "drop" (func $drop (param i32)))
    (func (export "measure") (param i32) (result i32) (local $file i32) (local $size i32)
      (local.set $file (call $new (local.get 0)))
      (local.set $size (call $size (local.get $file)))
      (call $drop (local.get $file))
      (local.get $size))
    (func (export "keep") (param i32) (result i32) (call $size (call $open (local.get 0))))
    (func (export "hand-over") (param i32) (result i32) (call $close (call $open (local.get 0))))
    (func (export "forge") (result i32) (call $size (i32.const 77))))
  (core instance $i (instantiate $m (with "h" (instance
    (export "new" (func $new)) (export "size" (func $size)) (export "open" (func $open))
    (export "close" (func $close)) (export "drop" (func $drop))))))
  (func (export "measure") (param "size" u32) (result u32) (canon lift (core func $i "measure")))
  (func (export "keep") (param "size" u32) (result u32) (canon lift (core func $i "keep")))
  (func (export "hand-over") (param "size" u32) (result u32) (canon lift (core func $i "hand-over")))
  (func (export "forge") (result u32) (canon lift (core func $i "forge"))))
"""

VISITOR = """
(component
  (import "demo:files/types@0.2.0" (instance $types
    (export "file" (type $file (sub resource)))
    (export "[method]file.size" (func (param "self" (borrow $file)) (result u32)))))
  (alias export $types "file" (type $file))
  (core func $size (canon lower (func $types "[method]file.size")))
  (core func $drop (canon resource.drop $file))
  (core module $m
    (import "h" "size" (func $size (param i32) (result i32)))
    (import "h" "drop" (func $drop (param i32)))
    (func (export "visit") (param i32) (result i32) (local $size i32)
      (local.set $size (call $size (local.get 0)))
      (call $drop (local.get 0))
      (local.get $size))
    (func (export "peek") (param i32) (result i32)
      (call $size (local.get 0))
      (call $drop (local.get 0)))
    (func (export "back") (param i32) (result i32) (local.get 0)))
  (core instance $i (instantiate $m (with "h" (instance
    (export "size" (func $size)) (export "drop" (func $drop))))))
  (func $visit (param "file" (own $file)) (result u32) (canon lift (core func $i "visit")))
  (func $peek (param "file" (borrow $file)) (result u32) (canon lift (core func $i "peek")))
  (func $back (param "file" (own $file)) (result (own $file)) (canon lift (core func $i "back")))
  (component $wrapper
    (import "file" (type $file (sub resource)))
    (import "visit" (func $visit (param "file" (own $file)) (result u32)))
    (import "back" (func $back (param "file" (own $file)) (result (own $file))))
    (export $exported "file" (type $file))
    (export "visit" (func $visit) (func (param "file" (own $exported)) (result u32)))
    (export "back" (func $back) (func (param "file" (own $exported)) (result (own $exported)))))
  (instance $visits (instantiate $wrapper
    (with "file" (type $file)) (with "visit" (func $visit)) (with "back" (func $back))))
  (export "demo:files/visits@0.2.3" (instance $visits)))
"""
"""Exports functions that take files of the host."""
