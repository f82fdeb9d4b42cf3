"""Values: every type goes to JSON and back unchanged; what does not fit is refused by its path."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice import values, wit
from lattice.errors import Invalid
from tests.lattice.wit_values import bits, json_data, typed_values, types

U8 = wit.Primitive("u8")
U64 = wit.Primitive("u64")
F32 = wit.Primitive("f32")
F64 = wit.Primitive("f64")
CHAR = wit.Primitive("char")
COLOUR = wit.Enum(("red", "green"))
SHAPE = wit.Variant((("circle", U8), ("none", None), ("maybe", wit.Option(U8))))
USER = wit.Record((("name", wit.STRING), ("tags", wit.List(wit.STRING)), ("age", wit.Option(U8))))
GREET = wit.Function((("user", USER), ("limit", U8), ("shape", wit.Option(SHAPE))), wit.STRING)
BARE = {"name": "Alice", "tags": ["a"]}
ALICE = {"name": "Alice", "tags": ["a"], "age": None}


@given(typed_values())
def test_values_survive_json(typed: tuple[wit.Type, Any]) -> None:
    type_, value = typed

    text = json.dumps(values.to_json(type_, value), allow_nan=False)

    assert bits(values.from_json(type_, json.loads(text))) == bits(value)


@given(typed_values())
def test_a_value_in_its_shape_passes_unchanged(typed: tuple[wit.Type, Any]) -> None:
    type_, value = typed

    assert bits(values.check(type_, value)) == bits(value)


@given(types, json_data | st.binary(max_size=4))
def test_data_either_fits_its_type_or_is_invalid(type_: wit.Type, data: Any) -> None:
    for read in (values.check, values.from_json):
        with contextlib.suppress(Invalid):
            bits(values.to_json(type_, read(type_, data)))


@given(types, st.text(max_size=20))
def test_typed_text_either_is_a_value_or_invalid(type_: wit.Type, text: str) -> None:
    with contextlib.suppress(Invalid):
        values.to_json(type_, values.parse_argument(type_, text))


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (wit.BYTES, b"hi", {"base64": "aGk="}),
        (U64, 2**53, 2**53),
        (U64, 2**53 + 1, "9007199254740993"),
        (F64, math.nan, "NaN"),
        (F64, -math.inf, "-Infinity"),
        (wit.Option(wit.Option(U8)), None, None),
        (wit.Option(wit.Option(U8)), [None], [None]),
        (wit.Option(wit.Option(U8)), [5], [5]),
        (wit.Result(None, wit.STRING), {"ok": None}, {"ok": None}),
        (SHAPE, {"none": None}, {"none": None}),
    ],
)
def test_json_has_the_documented_forms(type_: wit.Type, value: Any, expected: Any) -> None:
    assert values.to_json(type_, value) == expected
    assert bits(values.from_json(type_, expected)) == bits(value)


@pytest.mark.parametrize(
    ("type_", "data", "expected"),
    [
        (wit.BYTES, [1, 2], b"\x01\x02"),
        (U64, "18446744073709551615", 2**64 - 1),
        (U8, 3.0, 3),
        (F64, 3, 3.0),
        (F64, "Infinity", math.inf),
        (SHAPE, "none", {"none": None}),
        (wit.Result(None, None), "ok", {"ok": None}),
        (USER, {"name": "Bo", "tags": []}, {"name": "Bo", "tags": [], "age": None}),
        (wit.Flags(("a", "b")), ["b", "a"], ["a", "b"]),
    ],
)
def test_json_is_read_leniently(type_: wit.Type, data: Any, expected: Any) -> None:
    assert values.from_json(type_, data) == expected


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        (SHAPE, "none"),
        (U64, "5"),
        (U8, 3.0),
        (F64, "NaN"),
        (wit.BYTES, {"base64": ""}),
        (USER, {"name": "Bo", "tags": []}),
    ],
)
def test_msgpack_has_one_form_only(type_: wit.Type, data: Any) -> None:
    with pytest.raises(Invalid):
        values.check(type_, data)


@pytest.mark.parametrize(
    ("type_", "data", "message"),
    [
        (U8, 300, "value: 300 is out of range for u8 (0 to 255)"),
        (U8, True, "value: expected a u8, got True"),
        (U8, None, "value: expected a u8, got nil"),
        (wit.Primitive("bool"), 1, "value: expected a bool, got 1"),
        (F32, 1e300, "value: 1e+300 is out of range for f32"),
        (F64, 10**400, "value: an integer of 1329 bits is out of range for f64"),
        (CHAR, "ab", "value: expected a char (a string of one code point), got 'ab'"),
        (wit.STRING, "\ud800", "value: a string must be Unicode text; this one has half of a surrogate pair"),
        (wit.BYTES, [256], "value: expected list<u8>: every item must be an integer from 0 to 255"),
        (wit.BYTES, [True], "value: expected list<u8>: every item must be an integer from 0 to 255"),
        (wit.BYTES, {"base64": "!"}, "not base64"),
        (wit.Tuple((U8, U8)), [1], "value: expected a tuple of 2, got a list of 1"),
        (wit.List(wit.List(U8)), [[], 5], "value[1]: expected list<u8>"),
        (
            wit.Record((("x", wit.Tuple((U64, U64))),)),
            {"x": [1, -1]},
            "value.x[1]: -1 is out of range",
        ),
        (COLOUR, "gren", "the enum has no case 'gren'; did you mean `green`?"),
        (COLOUR, "xyz", "value: the enum has no case 'xyz': it has red, green"),
        (SHAPE, {"circle": 300}, "value.circle: 300 is out of range"),
        (SHAPE, {"none": 1}, "value.none: this case has no payload: expected nil, got 1"),
        (SHAPE, "maybe", "value: expected a variant"),
        (
            SHAPE,
            {"a": 1, "b": 2},
            "expected a variant (a map of one case to its payload), got a map of 2",
        ),
        (wit.Flags(("a", "b")), ["a", "a"], "value: a flag is named twice"),
        (USER, {"name": "x"}, "value: field 'tags' is missing"),
        (USER, {"name": "x", "tags": [], "agge": 1}, "the record has no field 'agge'; did you mean `age`?"),
        (wit.Option(wit.Option(U8)), 5, "value: expected nil or a list of one"),
        (wit.Handle("demo:x/y#z", True), 1, "value: a resource handle can't leave"),
    ],
)
def test_what_does_not_fit_is_refused_by_path_and_rule(type_: wit.Type, data: Any, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        values.from_json(type_, data)

    assert message in caught.value.message


def test_arguments_may_come_in_order_or_by_name() -> None:
    in_order = [ALICE, 5, None]

    assert values.check_arguments(GREET, in_order) == in_order
    assert values.check_arguments(GREET, {"limit": 5, "user": ALICE, "shape": None}) == in_order
    assert values.arguments_from_json(GREET, {"user": BARE, "limit": 5}) == in_order


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([ALICE, 300, None], "argument 'limit': 300 is out of range for u8 (0 to 255)"),
        ([{**ALICE, "tags": ["a", 1]}, 3, None], "argument 'user'.tags[1]: expected a string, got 1"),
        ([ALICE], "3 arguments are wanted, 1 given: (user: record"),
        ({"user": ALICE, "limt": 5}, "there is no argument 'limt'; did you mean `limit`?"),
        ({"user": ALICE}, "argument 'limit' is missing"),
        ("hello", "arguments: expected a list in order or a map by name, got 'hello'"),
        (None, "arguments: expected a list in order or a map by name, got nil"),
    ],
)
def test_wrong_arguments_are_refused_by_name(args: Any, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        values.check_arguments(GREET, args)

    assert message in caught.value.message


def test_a_result_where_there_is_none_is_refused() -> None:
    with pytest.raises(Invalid, match="the function has none"):
        values.check_result(wit.Function((), None), 5)

    assert values.check_result(wit.Function((), None), None) is None
    assert values.result_to_json(wit.Function((), wit.BYTES), b"") == {"base64": ""}


@pytest.mark.parametrize(
    ("type_", "text", "expected"),
    [
        (wit.STRING, "hello", "hello"),
        (wit.STRING, '"hello"', "hello"),
        (wit.STRING, "5", "5"),
        (wit.STRING, "null", "null"),
        (wit.STRING, '{"a": 1}', '{"a": 1}'),
        (wit.STRING, '"half', '"half'),
        (wit.STRING, "", ""),
        (wit.Option(wit.STRING), "null", None),
        (wit.Option(wit.STRING), "hello", "hello"),
        (CHAR, "7", "7"),
        (COLOUR, "red", "red"),
        (COLOUR, '"red"', "red"),
        (SHAPE, "none", {"none": None}),
        (SHAPE, '{"circle": 3}', {"circle": 3}),
        (U64, "18446744073709551615", 2**64 - 1),
        (F64, "NaN", math.nan),
        (F64, "-Infinity", -math.inf),
        (wit.List(U64), "[1, 2]", [1, 2]),
        (wit.Primitive("bool"), "true", True),
    ],
)
def test_arguments_can_be_typed(type_: wit.Type, text: str, expected: Any) -> None:
    assert bits(values.parse_argument(type_, text)) == bits(expected)


def test_text_that_is_not_json_names_the_type() -> None:
    with pytest.raises(Invalid, match=r"argument 'ids': 'one' is not JSON for list<u64>"):
        values.parse_argument(wit.List(U64), "one", "argument 'ids'")


def test_values_of_any_size_and_depth_are_shown_shortly() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    assert max(len(values.shown(value)) for value in (deep, "x" * 10**6, b"x" * 10**6, 10**10_000)) < 80
    while deep:  # taken apart by hand: the interpreter would recurse
        deep = deep[0]
