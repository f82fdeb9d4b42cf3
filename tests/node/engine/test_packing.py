"""Bytes packed into text: any bytes come back, and both ways of doing it give the same text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.engine import packing

SIZES = [*range(0, 130), 223, 224, 225, 1000, 65_535, 65_536, 200_001]


@pytest.mark.parametrize("size", SIZES)
def test_bytes_of_any_size_come_back(size: int) -> None:
    data = bytes(index * 131 % 256 for index in range(size))

    text = packing.pack(data)

    assert text.isascii()
    assert len(text) == size + -(-size // 7)
    assert packing.unpack(text) == data


@given(st.binary(max_size=2000))
def test_python_packs_as_the_driver_does(data: bytes) -> None:
    text = packing.pack(data)

    assert packing._pack(data, -(-len(data) // 7)) == text
    assert packing._unpack(text, len(data)) == data


@given(st.text(alphabet=[chr(code) for code in range(128)], max_size=300))
def test_any_text_is_taken_for_some_bytes(text: str) -> None:
    found = packing.unpack(text.encode())

    assert packing._unpack(text.encode(), len(found)) == found
