"""Components and files that are made for a test."""

from __future__ import annotations

from pathlib import Path

import wasmtime

_RELAY = """
(component
  (import "demo:kv/store" (instance $kv
    (export "get" (func (param "key" string) (result (option string))))))
  (core module $libc (memory (export "memory") 2)
    (global $next (mut i32) (i32.const 1024))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $start i32)
      (local.set $start (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $start) (local.get 3)))
      (local.get $start)))
  (core instance $l (instantiate $libc))
  (core func $get (canon lower (func $kv "get")
    (memory (core memory $l "memory")) (realloc (core func $l "realloc"))))
  (core module $m
    (import "h" "get" (func $get (param i32 i32 i32)))
    (func (export "get") (param i32 i32) (result i32)
      (call $get (local.get 0) (local.get 1) (i32.const 16)) (i32.const 16)))
  (core instance $i (instantiate $m (with "h" (instance (export "get" (func $get))))))
  (func $out (param "key" string) (result (option string))
    (canon lift (core func $i "get") (memory (core memory $l "memory")) (realloc (core func $l "realloc"))))
  (instance $store (export "get" (func $out)))
  (export "demo:kv/store" (instance $store)))
"""


def relay(folder: Path, name: str) -> Path:
    """A component that exports `demo:kv/store` and answers by asking its own import of it."""
    file = folder / f"{name}.wasm"
    file.write_bytes(wasmtime.wat2wasm(_RELAY))
    return file


def core_module() -> bytes:
    """A WebAssembly module that is no component."""
    return bytes(wasmtime.wat2wasm('(module (func (export "run")))'))


def missing_import(folder: Path, interface: str) -> Path:
    """A component that imports an interface."""
    file = folder / "importer.wasm"
    file.write_bytes(
        wasmtime.wat2wasm(f'(component (import "{interface}" (instance (export "run" (func)))))')
    )
    return file
