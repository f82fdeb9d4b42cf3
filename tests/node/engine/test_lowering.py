"""What does not fit its type is refused with the path that leads to it."""

from __future__ import annotations

from typing import Any

import pytest

from lattice import wit
from lattice.errors import Invalid
from node.engine.capi import Lender
from node.engine.converter import Converter
from node.engine.lowering import HEAVY_BYTES, Heavy

U8, U32, F32, STRING = wit.U8, wit.Primitive("u32"), wit.Primitive("f32"), wit.STRING
POINT = wit.Record((("x", U32), ("y", wit.Option(U32))))
SHAPE = wit.Variant((("empty", None), ("dot", POINT)))
COLOURS = wit.Enum(("red", "green"))
MODES = wit.Flags(("read", "write"))
NESTED = wit.Option(wit.Option(U8))


def lower(type_: wit.Type, value: Any, *, is_adapted: bool = False, may_be_heavy: bool = True) -> bytes:
    converter = Converter(wit.Function((("limit", type_),), None), is_adapted=is_adapted)
    return converter.lower_arguments([value], Lender(None, may_be_heavy=may_be_heavy))


@pytest.mark.parametrize(
    ("type_", "value", "message"),
    [
        (U8, 300, "argument 'limit': 300 is out of range for u8 (0 to 255)"),
        (U8, -1, "argument 'limit': -1 is out of range for u8 (0 to 255)"),
        (U8, True, "argument 'limit': True is not an integer (u8)"),
        (U8, 1.0, "argument 'limit': 1.0 is not an integer (u8)"),
        (wit.Primitive("bool"), 1, "argument 'limit': 1 is not a bool"),
        (wit.Primitive("char"), "ab", "'ab' is not a char: a string of one Unicode scalar value"),
        (wit.Primitive("char"), "\ud800", "is not a char"),
        (STRING, b"x", "argument 'limit': b'x' is not a string"),
        (STRING, "ab\udc00", "argument 'limit': the string has half a surrogate pair at 2"),
        (F32, "1", "argument 'limit': '1' is not a number (f32)"),
        (F32, 1e300, "argument 'limit': 1e+300 is out of range for f32"),
        (wit.Primitive("f64"), 10**400, "is out of range for f64"),
        pytest.param(U8, 10**5000, "a number of 16610 bits is out of range for u8", id="huge"),
        (wit.BYTES, "text", "argument 'limit': 'text' is not bytes, nor a list of numbers from 0 to 255"),
        (wit.BYTES, [1, 256], "argument 'limit'[1]: 256 is not a number from 0 to 255"),
        (wit.List(U32), [1, 2, "3"], "argument 'limit'[2]: '3' is not an integer (u32)"),
        (wit.List(U32), [0] * 20 + [2**32], "argument 'limit'[20]: 4294967296 is out of range for u32"),
        (wit.List(U32), "12", "argument 'limit': '12' is not a list"),
        (POINT, {"x": 1}, "argument 'limit': the field y is missing"),
        (POINT, {"x": 1, "y": None, "z": 1}, "argument 'limit': there is no field 'z'; the fields are x, y"),
        (POINT, [1, 2], "argument 'limit': [1, 2] is not a map with x, y"),
        (wit.List(POINT), [{"x": 1, "y": "2"}], "argument 'limit'[0].y: '2' is not an integer (u32)"),
        (wit.Tuple((U8, U8)), [1], "argument 'limit': [1] is not a tuple of 2"),
        (wit.Tuple((U8, U8)), [1, 999], "argument 'limit'[1]: 999 is out of range for u8 (0 to 255)"),
        (SHAPE, "empty", "argument 'limit': 'empty' is not a map with one of empty, dot"),
        (SHAPE, {"empty": 1}, "argument 'limit'.empty: 1 must be nil: this case carries nothing"),
        (SHAPE, {"dot": {"x": -1, "y": None}}, "argument 'limit'.dot.x: -1 is out of range for u32"),
        (wit.Result(U8, None), {"no": 1}, "argument 'limit': {'no': 1} is not a map with one of ok, err"),
        (wit.Result(U8, None), {"ok": 256}, "argument 'limit'.ok: 256 is out of range for u8"),
        (COLOURS, "blue", "argument 'limit': 'blue' is not one of red, green"),
        (COLOURS, ["red"], "argument 'limit': ['red'] is not one of red, green"),
        (MODES, ["read", "run"], "argument 'limit': 'run' is not one of read, write"),
        (MODES, ["read", "read"], "argument 'limit': ['read', 'read'] names a flag twice"),
        (MODES, "read", "argument 'limit': 'read' is not a list"),
        (NESTED, 5, "argument 'limit': 5 must be nil or a list of one, for the option inside"),
        (wit.Handle("a:b/c#d", True), 5, "handles of the resource a:b/c#d can't be passed"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_path(type_: wit.Type, value: Any, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        lower(type_, value)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (F32, 3),
        (wit.BYTES, [1, 2]),
        (wit.BYTES, bytearray(b"ab")),
        (wit.BYTES, memoryview(b"ab")),
        (wit.List(U32), (1, 2)),
        (NESTED, None),
        (NESTED, [None]),
        (NESTED, [5]),
        (MODES, []),
    ],
)
def test_what_is_equivalent_is_accepted(type_: wit.Type, value: Any) -> None:
    assert len(lower(type_, value)) == 32


@pytest.mark.parametrize(
    ("type_", "value", "is_adapted"),
    [
        (wit.BYTES, bytes(HEAVY_BYTES + 1), False),
        (wit.BYTES, bytes(300_000), True),
        (STRING, "x" * 300_000, False),
        (wit.List(STRING), ["x"] * 5000, False),
        (wit.List(U32), [1] * 70_000, False),
    ],
)
def test_large_values_are_left_to_a_thread(type_: wit.Type, value: Any, is_adapted: bool) -> None:
    with pytest.raises(Heavy):
        lower(type_, value, is_adapted=is_adapted, may_be_heavy=False)

    assert lower(type_, value, is_adapted=is_adapted)


def test_long_values_are_cut_short_in_messages() -> None:
    with pytest.raises(Invalid) as caught:
        lower(U8, "x" * 10_000)

    assert len(caught.value.message) < 120
