"""Blocks of headers as they stand on the wire: written, read when asked for, whatever came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.errors import Invalid
from lattice.headers import HeaderBlock, block_of

keys = st.from_regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,20}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["C"]), max_size=30).map(str.strip)


@given(st.dictionaries(keys, texts))
def test_headers_survive(headers: dict[str, str]) -> None:
    block = HeaderBlock(block_of(headers))

    assert dict(block) == headers
    assert block_of(block) is block.raw


@given(st.binary(max_size=200))
def test_whatever_comes_is_read(raw: bytes) -> None:
    block = HeaderBlock(b"NATS/1.0" + raw)

    assert len(block) == len(list(block))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"NATS/1.0 503", {"Status": "503"}),
        (b"NATS/1.0 100 Idle Heartbeat", {"Status": "100", "Description": "Idle Heartbeat"}),
        (b"NATS/1.0 408 ", {"Status": "408"}),
        (b"NATS/1.0", {}),
    ],
)
@pytest.mark.parametrize("more", [{}, {"Nats-Last-Consumer": "1016"}])
def test_a_status_of_the_server_is_read(line: bytes, found: dict[str, str], more: dict[str, str]) -> None:
    raw = block_of({"a": "b", **more}).replace(b"NATS/1.0\r\na: b", line, 1)

    assert dict(HeaderBlock(raw)) == {**found, **more}


def test_a_value_stays_on_its_line() -> None:
    assert dict(HeaderBlock(block_of({"a": "b\r\nc: d"}))) == {"a": "b  c: d"}


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(Invalid, match="'a b'"):
        block_of({"a b": "c"})
