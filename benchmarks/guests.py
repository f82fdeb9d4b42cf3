"""The components that are measured: committed ones, and text for what they do not show."""

from __future__ import annotations

from pathlib import Path

import wasmtime

EXAMPLES = Path(__file__).parents[1] / "examples"

ECHO_INTERFACE = "demo:bytes/echo"

SPIN = """
(component
  (core module $m (memory 1)
    (func (export "spin") (loop $l br $l))
    (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
    (func $fib (export "fib") (param $n i32) (result i64)
      (if (result i64) (i32.lt_u (local.get $n) (i32.const 2))
        (then (i64.extend_i32_u (local.get $n)))
        (else (i64.add (call $fib (i32.sub (local.get $n) (i32.const 1)))
                       (call $fib (i32.sub (local.get $n) (i32.const 2))))))))
  (core instance $i (instantiate $m))
  (func (export "spin") (canon lift (core func $i "spin")))
  (func (export "add") (param "a" s32) (param "b" s32) (result s32) (canon lift (core func $i "add")))
  (func (export "fib") (param "n" u32) (result u64) (canon lift (core func $i "fib"))))
"""
"""Adds, computes and loops for ever."""

_LINKED = """
(component
  (import "demo:bytes/echo" (instance $echo
    (export "echo" (func (param "data" (list u8)) (result (list u8))))))
  (core module $libc (memory (export "memory") 4)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 131072))
  (core instance $l (instantiate $libc))
  (core func $echo' (canon lower (func $echo "echo")
    (memory (core memory $l "memory")) (realloc (core func $l "realloc"))))
  (core module $m
    (import "l" "memory" (memory 4))
    (import "h" "echo" (func $echo (param i32 i32 i32)))
    (func (export "run") (param $times i32) (param $size i32) (result i32) (local $sum i32)
      (block $done (loop $again
        (br_if $done (i32.eqz (local.get $times)))
        (call $echo (i32.const 1024) (local.get $size) (i32.const 16))
        (local.set $sum (i32.add (local.get $sum) (i32.load (i32.const 20))))
        (local.set $times (i32.sub (local.get $times) (i32.const 1)))
        (br $again)))
      (local.get $sum)))
  (core instance $i (instantiate $m (with "l" (instance $l))
    (with "h" (instance (export "echo" (func $echo'))))))
  (func (export "run") (param "times" u32) (param "size" u32) (result u32) (canon lift (core func $i "run"))))
"""

_VARIANT = """
(component
  (core module $m (memory 1) (global i32 (i32.const {number}))
    (func (export "number") (result i32) i32.const {number}))
  (core instance $i (instantiate $m))
  (func (export "number") (result u32) (canon lift (core func $i "number"))))
"""


def echo() -> bytes:
    """Gives back the bytes that it is given."""
    return (EXAMPLES / "bytes/c/bytes.wasm").read_bytes()


def spin() -> bytes:
    """Adds, computes and loops for ever."""
    return bytes(wasmtime.wat2wasm(SPIN))


def linked() -> bytes:
    """`run(times, size)` calls the `echo` that it is linked to so many times, with so many bytes."""
    return bytes(wasmtime.wat2wasm(_LINKED))


def variant(number: int) -> bytes:
    """One of many components that differ."""
    return bytes(wasmtime.wat2wasm(_VARIANT.format(number=number)))
