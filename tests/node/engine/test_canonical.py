from __future__ import annotations

import pytest

from lattice import wit
from node.engine.canonical import core_signature, flatten, size_and_alignment

U8, U16, U64 = (wit.Primitive(name) for name in ("u8", "u16", "u64"))
F32, F64 = wit.Primitive("f32"), wit.Primitive("f64")


@pytest.mark.parametrize(
    ("type_", "flat", "size", "alignment"),
    [
        (wit.Primitive("bool"), ["i32"], 1, 1),
        (wit.Primitive("char"), ["i32"], 4, 4),
        (wit.STRING, ["i32", "i32"], 8, 4),
        (wit.BYTES, ["i32", "i32"], 8, 4),
        (F64, ["f64"], 8, 8),
        (wit.Tuple((U8, U64, U8)), ["i32", "i64", "i32"], 24, 8),
        (wit.Record((("a", U8), ("b", U16))), ["i32", "i32"], 4, 2),
        (wit.Option(U8), ["i32", "i32"], 2, 1),
        (wit.Option(wit.Option(U64)), ["i32", "i32", "i64"], 24, 8),
        (wit.Result(None, None), ["i32"], 1, 1),
        (wit.Result(F32, U8), ["i32", "i32"], 8, 4),
        (wit.Result(F32, F64), ["i32", "i64"], 16, 8),
        (wit.Result(wit.STRING, U64), ["i32", "i64", "i32"], 16, 8),
        (wit.Variant((("a", None), ("b", wit.Tuple((F32, F32))))), ["i32", "f32", "f32"], 12, 4),
        (wit.Variant(tuple((f"c{n}", None) for n in range(300))), ["i32"], 2, 2),
        (wit.Enum(("a", "b")), ["i32"], 1, 1),
        (wit.Flags(tuple("abcdefgh")), ["i32"], 1, 1),
        (wit.Flags(tuple("abcdefghi")), ["i32"], 2, 2),
        (wit.Flags(tuple(f"f{n}" for n in range(32))), ["i32"], 4, 4),
        (wit.Handle("a#b", True), ["i32"], 4, 4),
    ],
)
def test_values_have_the_layout_of_the_canonical_abi(
    type_: wit.Type, flat: list[str], size: int, alignment: int
) -> None:
    assert flatten(type_) == flat
    assert size_and_alignment(type_) == (size, alignment)


def test_small_signatures_pass_in_core_values() -> None:
    signature = core_signature(wit.Function((("a", U64), ("b", wit.BYTES)), F32))

    assert (signature.params, signature.result, signature.area_bytes) == (("i64", "i32", "i32"), "f32", 0)


def test_more_than_sixteen_parameters_and_more_than_one_result_pass_in_memory() -> None:
    params = tuple((f"p{n}", wit.STRING) for n in range(9))

    signature = core_signature(wit.Function(params, wit.STRING))

    assert (signature.params, signature.result, signature.area_bytes) == (("i32",), None, 8)
