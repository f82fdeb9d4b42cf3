"""Core modules are read part by part; what could not be written again, and rubbish, is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from lattice.errors import Invalid
from node.engine.component_items import CORE_FUNC, CORE_MEMORY
from node.engine.core_module import read_module

WHOLE = bytes(
    wasmtime.wat2wasm("""(module
      (import "a" "f" (func $f (param i32) (result i64)))
      (import "a" "m" (memory 1 5))
      (table 3 funcref) (global i32 (i32.const 7)) (global (mut f64) (f64.const 1))
      (export "g" (func $g)) (export "t" (table 0))
      (func $g (param i32) (result i64) (call $f (local.get 0)))
      (func $h)
      (start $h)
      (elem (i32.const 1) func $f $g) (elem declare func $h)
      (elem (table 0) (i32.const 0) funcref (ref.null func))
      (data (i32.const 8) "abc") (data "passive"))""")
)


def test_each_part_is_read() -> None:
    module = read_module(WHOLE)

    assert [(item.name, item.sort) for item in module.imports] == [("f", CORE_FUNC), ("m", CORE_MEMORY)]
    assert module.exports == {"g": ("core func", 1), "t": ("core table", 0)}
    assert (len(module.functions), len(module.bodies), module.start) == (2, 2, 2)
    assert [item.is_mutable for item in module.globals] == [False, True]
    assert [(part.table, part.functions, len(part.values)) for part in module.elements] == [
        (0, (0, 1), 0),
        (None, (2,), 0),
        (0, None, 1),
    ]
    assert [(part.memory, bytes(part.data)) for part in module.data] == [(0, b"abc"), (None, b"passive")]
    assert module.names == {0: b"f", 1: b"g", 2: b"h"}


@pytest.mark.parametrize(
    "text",
    [
        "(module (memory i64 1))",
        "(module (memory 1 2 shared))",
        "(module (memory 1 (pagesize 1)))",
        "(module (tag))",
        "(module (type (struct)))",
        "(module (rec (type (func)) (type (func))))",
        "(module (func (param anyref)))",
        "(module (global i32 (i32.add (i32.const 1) (i32.const 2))))",
        "(module (table 1 1 funcref (ref.null func)) (table 1 (ref func) (ref.func 0)) (func))",
    ],
)
def test_what_is_too_new_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        read_module(bytes(wasmtime.wat2wasm(text)))


@given(st.data())
def test_whatever_the_bytes_reading_ends_in_a_module_or_invalid(data: st.DataObject) -> None:
    module = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(8, len(module) - 1))
        module[place] = data.draw(st.integers(0, 255))

    with suppress(Invalid):
        read_module(bytes(module))
