"""Core code of the byte adapter: its memory, and functions that hand their parameters on."""

from __future__ import annotations

from collections.abc import Sequence

from node.engine.borrows import Release
from node.engine.canonical import CoreSignature, align

_PAGE_BYTES = 1 << 16
_SPARE_BYTES = 48 << 10
"""With which the memory starts, above the fixed places: enough for most calls without growing.

Each page is zeroed when the instance ends, which takes a microsecond.
"""
_CORE_TYPES = ("i32", "i64", "f32", "f64")

MEMORY_FUNCTIONS = ("realloc", "reset", *(f"reset-{core}" for core in _CORE_TYPES))
"""What the memory's module exports besides `memory`."""

_MEMORY = """(core module {symbol}
    (memory (export "memory") {pages})
    (global $next (mut i32) (i32.const {start}))
    (global $last (mut i32) (i32.const 0))
    (func (export "realloc")
      (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
      (local $start i32) (local $end i32)
      ;; The newest block grows in place; else a new one is aligned to 8, which suits every type of the ABI.
      (local.set $start (local.get $old))
      (if (i32.or (i32.eqz (local.get $old)) (i32.ne (local.get $old) (global.get $last)))
        (then (local.set $start (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))))
      (local.set $end (i32.add (local.get $start) (local.get $size)))
      (if (i32.lt_u (local.get $end) (local.get $start)) (then unreachable))
      (call $reach (local.get $end))
      (if (i32.and (i32.ne (local.get $old) (i32.const 0)) (i32.ne (local.get $old) (local.get $start)))
        (then (memory.copy (local.get $start) (local.get $old)
          (select (local.get $old-size) (local.get $size)
            (i32.lt_u (local.get $old-size) (local.get $size))))))
      (global.set $last (local.get $start))
      (global.set $next (local.get $end))
      (local.get $start))
    (func $reach (param $end i32)
      (local $missing i32)
      (local.set $missing (i32.sub
        (i32.wrap_i64
          (i64.shr_u (i64.add (i64.extend_i32_u (local.get $end)) (i64.const 65535)) (i64.const 16)))
        (memory.size)))
      (if (i32.gt_s (local.get $missing) (i32.const 0))
        (then (if (i32.eq (memory.grow (local.get $missing)) (i32.const -1)) (then unreachable)))))
    (func $reset (export "reset") (global.set $next (i32.const {start})) (global.set $last (i32.const 0)))
    {resets})"""


def memory_module(symbol: str, reserved: int, pages: int | None = None) -> str:
    """A memory whose first `reserved` bytes are the caller's, and a bump allocator over the rest.

    It starts with `pages`, or with what suits most calls: each costs time when its instance ends.

    `reset` frees everything; `reset-T` does too and takes the one result of a function, as a post-return
    must.
    """
    resets = (f'(func (export "reset-{core}") (param {core}) (call $reset))' for core in _CORE_TYPES)
    start = align(max(reserved, 1), 16)  # address 0 means no block
    pages = pages or -(-(start + _SPARE_BYTES) // _PAGE_BYTES)
    return _MEMORY.format(symbol=symbol, start=start, pages=pages, resets="\n    ".join(resets))


def reset_function(signature: CoreSignature) -> str:
    """The name of the post-return that fits a lifted function."""
    result = "i32" if signature.area_bytes else signature.result
    return f"reset-{result}" if result else "reset"


def forwarding_module(
    symbol: str,
    signatures: Sequence[CoreSignature],
    area: int,
    releases: Sequence[Release] = (),
    drops: int = 0,
) -> str:
    """Functions that hand their parameters on to the imports of the same number.

    What is imported was lowered: a result that doesn't fit one core value is written where the last
    parameter says. What is exported will be lifted: it returns that place, which is `area` for all.

    With `releases`, one for each function, a function then gives back what it borrowed: by the imports
    `$drop-0` and so on, as many as `drops`.
    """
    releases = releases or [Release()] * len(signatures)
    imports = [_import(index, signature) for index, signature in enumerate(signatures)]
    imports += [f'(import "drop" "{index}" (func $drop-{index} (param i32)))' for index in range(drops)]
    imports += ['(import "memory" "memory" (memory 0))'] if drops else []
    functions = [
        _function(index, signature, area, release)
        for index, (signature, release) in enumerate(zip(signatures, releases, strict=True))
    ]
    body = "\n    ".join(imports + functions)
    return f"(core module {symbol}\n    {body})"


def _import(index: int, signature: CoreSignature) -> str:
    place = ("i32",) if signature.area_bytes else ()
    params = " ".join((*signature.params, *place))
    return f'(import "lowered" "{index}" (func $f{index} (param {params}) {_result(signature.result)}))'


def _function(index: int, signature: CoreSignature, area: int, release: Release) -> str:
    params = " ".join(signature.params)
    handed = " ".join(f"local.get {number}" for number in range(len(signature.params)))
    place = f"i32.const {area}" if signature.area_bytes else ""
    result = "(result i32)" if place else _result(signature.result)
    more = f"(local {'i32 ' * release.locals})" if release.locals else ""
    body = f"{result} {more} {handed} {place} call $f{index} {release.code} {place}"
    return f'(func (export "{index}") (param {params}) {body})'


def _result(core: str | None) -> str:
    return f"(result {core})" if core else ""
