"""Code that is written again: the same where indexes stay, with new ones where they don't; else refused."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from lattice.errors import Invalid
from node.engine.binary import CORE_MODULE, sections
from node.engine.core_module import CoreModule, read_module
from node.engine.instructions import Indexes, rewrite, rewrite_body
from tests.node.engine.components import EXAMPLES, ROOT

MANY = range(100_000)
SAME = Indexes(types=MANY, functions=MANY, tables=MANY, memories=MANY, globals=MANY, elements=MANY, data=MANY)
OTHER = Indexes(
    types=range(10, 99),
    functions=range(200, 999),
    tables=range(3, 99),
    memories=range(1, 99),
    globals=range(300, 999),
    elements=range(5, 99),
    data=range(6, 99),
)

ALL_KINDS = """(module
  (type $pair (func (param i32 i32) (result i32 i32)))
  (memory 1) (memory 1) (table 2 funcref) (table 2 funcref)
  (global $g (mut i64) (i64.const -1))
  (data $d "abc") (elem $e func $f)
  (func $f (param i32 i32) (result i32 i32) (local f32 f64 v128)
    (block (param i32 i32) (result i32 i32) local.get 0 (br_table 0 0 0))
    (loop (br_if 0 (i32.const -64)))
    (if (result i32) (i32.const 64) (then (i32.const 0)) (else (i32.const 1)))
    (drop (f32.const 1.5)) (drop (f64.const -2.5)) (drop (i64.const 0x7fffffffffffffff)) drop
    (call $f (i32.const 1) (i32.const 2)) (call_indirect 1 (type $pair) (i32.const 0)) drop drop
    (global.set $g (global.get $g))
    (i32.store offset=64 (i32.const 0) (i32.load8_u (i32.const 0)))
    (i64.store 1 offset=300 (i32.const 0) (i64.load 1 (i32.const 0)))
    (drop (memory.grow 1 (memory.size))) (memory.copy 0 1 (i32.const 0) (i32.const 0) (i32.const 0))
    (memory.fill 1 (i32.const 0) (i32.const 0) (i32.const 0))
    (memory.init 1 $d (i32.const 0) (i32.const 0) (i32.const 0)) (data.drop $d)
    (table.init 1 $e (i32.const 0) (i32.const 0) (i32.const 0)) (elem.drop $e)
    (table.copy 0 1 (i32.const 0) (i32.const 0) (i32.const 0))
    (drop (table.grow 1 (ref.null func) (table.size 1)))
    (table.fill 1 (i32.const 0) (ref.func $f) (i32.const 0))
    (table.set 1 (i32.const 0) (table.get 0 (i32.const 0)))
    (drop (select (result funcref) (ref.func $f) (ref.null func) (ref.is_null (ref.func $f))))
    (drop (i32.trunc_sat_f32_s (f32.const 1)))
    (v128.store 1 offset=16 (i32.const 0) (i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15
      (v128.const i32x4 1 2 3 4) (v128.load8_lane 1 3 (i32.const 0) (v128.load32_zero (i32.const 0)))))
    (drop (i8x16.extract_lane_s 15 (i8x16.splat (i32.const 0))))
    (drop (i32x4.add (local.get 4) (local.get 4)))
    (return_call $f)))"""


def _modules(component: bytes) -> list[CoreModule]:
    parts = sections(memoryview(component))
    return [read_module(part.body) for part in parts if part.id == CORE_MODULE]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT / "examples")))
def test_code_whose_indexes_stay_is_the_same(path: Path) -> None:
    bodies = [bytes(body) for module in _modules(path.read_bytes()) for body in module.bodies]
    shortest = [rewrite_body(body, SAME) for body in bodies]  # linkers write numbers longer than need be

    assert [rewrite_body(body, SAME) for body in shortest] == shortest
    assert all(len(body) <= len(before) for body, before in zip(shortest, bodies, strict=True))


def test_all_kinds_of_instructions_are_known() -> None:
    (body,) = read_module(bytes(wasmtime.wat2wasm(ALL_KINDS))).bodies

    assert rewrite_body(bytes(body), SAME) == body


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"\x10\x01", b"\x10\xc9\x01"),  # call
        (b"\x12\x01", b"\x12\xc9\x01"),  # return_call
        (b"\xd2\x01", b"\xd2\xc9\x01"),  # ref.func
        (b"\x11\x01\x00", b"\x11\x0b\x03"),  # call_indirect: type, table
        (b"\x02\x36", b"\x02\xc0\x00"),  # a block with a type of the module: a number with a sign
        (b"\x23\x02", b"\x23\xae\x02"),  # global.get
        (b"\x25\x00", b"\x25\x03"),  # table.get
        (b"\x28\x02\x08", b"\x28\x42\x01\x08"),  # i32.load of memory 0
        (b"\x28\x42\x01\x08", b"\x28\x42\x02\x08"),  # and of memory 1
        (b"\x3f\x00", b"\x3f\x01"),  # memory.size
        (b"\x40\x00", b"\x40\x01"),  # memory.grow
        (b"\xfc\x08\x01\x00", b"\xfc\x08\x07\x01"),  # memory.init: data, memory
        (b"\xfc\x0a\x00\x01", b"\xfc\x0a\x01\x02"),  # memory.copy
        (b"\xfc\x0c\x01\x00", b"\xfc\x0c\x06\x03"),  # table.init: elements, table
        (b"\xfd\x00\x04\x10", b"\xfd\x00\x44\x01\x10"),  # v128.load
        (b"\xfd\x54\x00\x00\x07", b"\xfd\x54\x40\x01\x00\x07"),  # v128.load8_lane
        (b"\x41\x10\x10\x00", b"\x41\x10\x10\xc8\x01"),  # a constant that looks like a call, and a call
        (b"\x0e\x01\x10\x10\x01", b"\x0e\x01\x10\x10\x01"),  # br_table: its labels are no calls
    ],
)
def test_indexes_become_the_new_ones(before: bytes, after: bytes) -> None:
    assert rewrite(before, OTHER) == after


def test_a_memory_that_goes_to_the_front_is_named_no_more() -> None:
    indexes = Indexes(memories=[1, 0])

    assert rewrite(b"\x28\x42\x01\x08\x28\x02\x08", indexes) == b"\x28\x02\x08\x28\x42\x01\x08"


@pytest.mark.parametrize(
    "code",
    [
        b"\x08\x00",  # throw
        b"\xfb\x00\x00",  # struct.new
        b"\xfe\x00\x02\x00",  # memory.atomic.notify
        b"\x02\x63\x70\x0b",  # a block whose type is a reference of a newer kind
        b"\xfc\x7f",
        b"\xfd\xff\x7f",
        b"\x10",  # cut off
        b"\x41\x80",
        b"\x10\xff\xff\xff\x0f",  # a function that is not there
    ],
)
def test_what_is_not_known_or_malformed_is_refused(code: bytes) -> None:
    with pytest.raises(Invalid):
        rewrite(code, OTHER)


@given(st.binary(max_size=200))
def test_whatever_the_bytes_it_ends_in_code_or_invalid(code: bytes) -> None:
    with suppress(Invalid):
        rewrite_body(code, OTHER)
