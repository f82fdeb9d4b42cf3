"""Signatures in WIT syntax are read as they are shown."""

from __future__ import annotations

import pytest

from lattice import wit
from lattice.errors import Invalid
from providers.signatures import function_type


@pytest.mark.parametrize(
    "text",
    [
        "func()",
        "func() -> string",
        "func(a: u8, b-c: list<option<tuple<u32, string>>>) -> result<_, string>",
        "func(x: result) -> result<u64>",
        "func(x: result<list<u8>, variant { none, other(string) }>)",
        "func(r: record { a: bool, b: enum { x, y } }) -> flags { read, write }",
    ],
)
def test_signature_is_read_as_it_is_shown(text: str) -> None:
    assert wit.function_text("f", function_type(text)) == text.replace("func", "f: func", 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("fun()", "'func' is wanted"),
        ("func(", "name is wanted"),
        ("func(a: strin)", "'strin' is not a type"),
        ("func() -> string string", "nothing may follow"),
        ("func(a: list<u8)", "'>' is wanted"),
        ("func(a; u8)", "is not WIT"),
        ("func(a: borrow<thing>)", "'borrow' is not a type"),
    ],
)
def test_what_is_wrong_is_shown(text: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        function_type(text)
