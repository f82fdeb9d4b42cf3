"""Components and files that are made for a test."""

from __future__ import annotations

from pathlib import Path

import wasmtime

_LIBC = """(core module $libc (memory (export "memory") 2)
    (data (i32.const 16) "{data}")
    (global $next (mut i32) (i32.const 1024))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $start i32)
      (local.set $start (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $start) (local.get 3)))
      (local.get $start)))
  (core instance $l (instantiate $libc))"""

_RELAY = """
(component
  (import "demo:kv/store" (instance $kv
    (export "get" (func (param "key" string) (result (option string))))))
  {libc}
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


_COMMAND = """
(component
  {host}
  {libc}
  (core func $get (canon lower (func $host "get")
    (memory (core memory $l "memory")) (realloc (core func $l "realloc"))))
  (core module $m
    (import "l" "memory" (memory 1))
    (import "h" "get" (func $get (param i32 i32 i32)))
    (func (export "run") (result i32)
      (call $get (i32.const 16) (i32.const {length}) (i32.const 512))
      (i32.ne (i32.load8_u (i32.const 512)) (i32.const {good}))))
  (core instance $i (instantiate $m
    (with "l" (instance $l)) (with "h" (instance (export "get" (func $get))))))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $command)))
"""

_STORE = """(import "demo:kv/store" (instance $host
  (export "get" (func (param "key" string) (result (option string))))))"""

_SECRETS = """(import "wasmcloud:secrets/store@0.1.0-draft" (instance $host
  (export "secret" (type $secret (sub resource)))
  (type $e (variant (case "upstream" string) (case "io" string) (case "not-found")))
  (export "secrets-error" (type $error (eq $e)))
  (export "get" (func (param "key" string) (result (result (own $secret) (error $error)))))))"""


def store_command(folder: Path, key: str) -> Path:
    """A command that succeeds if the `demo:kv/store` to which it is linked has the key."""
    return _command(folder / "looker.wasm", _STORE, key, good=1)


def secret_command(folder: Path, key: str) -> Path:
    """A command that succeeds if it was granted a secret under the key."""
    return _command(folder / "keeper.wasm", _SECRETS, key, good=0)


def _command(file: Path, host: str, key: str, *, good: int) -> Path:
    libc = _LIBC.format(data=key)
    file.write_bytes(wasmtime.wat2wasm(_COMMAND.format(host=host, libc=libc, length=len(key), good=good)))
    return file


def relay(folder: Path, name: str) -> Path:
    """A component that exports `demo:kv/store` and answers by asking its own import of it."""
    file = folder / f"{name}.wasm"
    file.write_bytes(wasmtime.wat2wasm(_RELAY.format(libc=_LIBC.format(data=""))))
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
