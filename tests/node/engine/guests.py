"""Component text that the tests of the compiler share."""

from __future__ import annotations

import wasmtime

IDENTITY = """
(component
  (core module $m (func (export "run") (param i32) (result i32) local.get 0))
  (core instance $i (instantiate $m))
  (func (export "run") (param "a" u32) (result u32) (canon lift (core func $i "run"))))
"""

_ALLOCATOR = """
  (core module $libc (memory (export "memory") 2)
    (global $next (mut i32) (i32.const 1024))
    (func (export "realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32)
      (result i32) (local $start i32)
      (local.set $start (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $start) (local.get $size)))
      (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
        (then (drop (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get $size) (i32.const 16)))))))
      (if (local.get $old)
        (then (memory.copy (local.get $start) (local.get $old) (local.get $old-size))))
      (local.get $start)))
  (core instance $l (instantiate $libc))
"""

_WITH_MEMORY = '(memory (core memory $l "memory")) (realloc (core func $l "realloc"))'
_BYTES = '(param "data" (list u8)) (result (list u8))'
_TAKE = '(param "c" {chunk}) (param "n" u32) (result {chunk})'
_CHUNK = '(record (field "data" (list u8)) (field "note" string))'

BYTES = f"""
(component
  (import "demo:bytes/host" (instance $host
     (type $r (record (field "data" (list u8)) (field "note" string))) (export "chunk" (type $chunk (eq $r)))
     (export "flip" (func {_BYTES}))
     (export "take" (func {_TAKE.format(chunk="$chunk")}))
     (export "count" (func (param "n" u32) (result u32)))))
  {_ALLOCATOR}
  (alias export $host "flip" (func $flip)) (alias export $host "take" (func $take))
  (alias export $host "count" (func $count)) (alias export $host "chunk" (type $chunk))
  (core func $flip' (canon lower (func $flip) {_WITH_MEMORY}))
  (core func $take' (canon lower (func $take) {_WITH_MEMORY}))
  (core func $count' (canon lower (func $count)))
  (core module $m
    (import "l" "memory" (memory 1))
    (import "h" "flip" (func $flip (param i32 i32 i32)))
    (import "h" "take" (func $take (param i32 i32 i32 i32 i32 i32)))
    (import "h" "count" (func $count (param i32) (result i32)))
    (func (export "echo") (param i32 i32) (result i32)
      (i32.store (i32.const 16) (local.get 0)) (i32.store (i32.const 20) (local.get 1)) i32.const 16)
    (func (export "twice") (param i32 i32) (result i32)
      (call $flip (local.get 0) (local.get 1) (i32.const 32))
      (call $flip (i32.load (i32.const 32)) (i32.load (i32.const 36)) (i32.const 40))
      i32.const 40)
    (func (export "take") (param i32 i32 i32 i32 i32) (result i32)
      (call $take (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (i32.const 48))
      i32.const 48)
    (func (export "size") (param i32 i32) (result i32) (call $count (local.get 1))))
  (core instance $i (instantiate $m (with "l" (instance $l)) (with "h" (instance
    (export "flip" (func $flip')) (export "take" (func $take')) (export "count" (func $count'))))))
  (func $echo {_BYTES} (canon lift (core func $i "echo") {_WITH_MEMORY}))
  (func $twice {_BYTES} (canon lift (core func $i "twice") {_WITH_MEMORY}))
  (func $take2 {_TAKE.format(chunk="$chunk")} (canon lift (core func $i "take") {_WITH_MEMORY}))
  (func $size (param "data" (list u8)) (result u32) (canon lift (core func $i "size") {_WITH_MEMORY}))
  (component $naming
    (type $c0 {_CHUNK})
    (import "chunk" (type $c (eq $c0)))
    (import "echo" (func $echo {_BYTES}))
    (import "twice" (func $twice {_BYTES}))
    (import "take" (func $take {_TAKE.format(chunk="$c")}))
    (export $chunk "chunk" (type $c))
    (export "echo" (func $echo)) (export "twice" (func $twice))
    (export "take" (func $take) (func {_TAKE.format(chunk="$chunk")})))
  (instance $api (instantiate $naming (with "chunk" (type $chunk))
    (with "echo" (func $echo)) (with "twice" (func $twice)) (with "take" (func $take2))))
  (export "demo:bytes/api" (instance $api))
  (export "size" (func $size)))
"""
"""Imports and exports functions over bytes, in an interface with a record and in the world."""

RESOURCES = """
(component
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $p (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $p))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:io/streams@0.2.0" (instance
    (export "input-stream" (type $s (sub resource)))
    (alias outer 1 $pollable (type $p0))
    (export "pollable" (type $p (eq $p0)))
    (export "[method]input-stream.subscribe" (func (param "self" (borrow $s)) (result (own $p)))))))
"""
"""Two interfaces, of which one uses the other's resource."""


def binary(text: str) -> bytes:
    """The text as a binary."""
    return bytes(wasmtime.wat2wasm(text))


USED_TYPES = """
(component
  (import "demo:mail/types@0.1.0" (instance $types
    (type $mail (record (field "subject" string) (field "body" (list u8))))
    (export "mail" (type (eq $mail)))))
  (alias export $types "mail" (type $mail))
  (import "mail" (type $used (eq $mail)))
  (type $urgency (enum "low" "high"))
  (import "urgency" (type $urgency' (eq $urgency)))
  (import "send" (func $send (param "m" $used) (param "u" $urgency') (result $used)))
  (core module $libc
    (memory (export "memory") 3)
    (global $next (mut i32) (i32.const 64))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (global.get $next)
      (global.set $next (i32.add (global.get $next) (local.get 3)))))
  (core instance $libc (instantiate $libc))
  (core func $send' (canon lower (func $send)
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core module $guest
    (import "host" "send" (func $send (param i32 i32 i32 i32 i32 i32)))
    (func (export "forward") (param i32 i32 i32 i32) (result i32)
      (call $send (local.get 0) (local.get 1) (local.get 2) (local.get 3) (i32.const 1) (i32.const 16))
      (i32.const 16)))
  (core instance $guest (instantiate $guest (with "host" (instance (export "send" (func $send'))))))
  (func $forward (param "m" $used) (result $used)
    (canon lift (core func $guest "forward")
      (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (export "forward" (func $forward)))
"""
"""Its world uses a type of an interface and has one of its own: `forward` sends a mail, urgently."""
