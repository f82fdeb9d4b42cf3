from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.errors import Invalid
from node.engine.binary import (
    COMPONENT_HEADER,
    MODULE_HEADER,
    Kind,
    Reader,
    identify,
    import_names,
    number,
    require_component,
    section,
    sections,
    splice,
)
from node.engine.skeleton import skeleton
from tests.node.engine.guests import BYTES, IDENTITY, RESOURCES, binary

FILES = [
    (b"", Kind.EMPTY, "empty"),
    (b"\0" * 4096, Kind.ZEROS, "zeros"),
    (b"(component)", Kind.TEXT_FORMAT, "wasm-tools parse"),
    (b"  ;; a comment\n(module)", Kind.TEXT_FORMAT, "wasm-tools parse"),
    (b"hello, world\n", Kind.TEXT, "text"),
    (MODULE_HEADER, Kind.MODULE, "core WebAssembly module"),
    (b"\0asm\x0c\0\x01\0", Kind.OLD_COMPONENT, "outdated"),
    (b"\0asm\x0e\0\x01\0", Kind.NEW_WASM, "unknown version"),
    (b"\0as", Kind.UNKNOWN, "not a WebAssembly component"),
    (b"\x1f\x8b\x08", Kind.GZIP, "unpack"),
    (b"PK\x03\x04", Kind.ZIP, "unpack"),
    (b"\x7fELF", Kind.NATIVE, "precompiled"),
    (b"\xff\xd8\xff\xe0", Kind.UNKNOWN, "not a WebAssembly component"),
]


@pytest.mark.parametrize(("data", "kind", "words"), FILES)
def test_a_file_is_named_by_what_it_is(data: bytes, kind: Kind, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        require_component(data)

    assert identify(data) is kind
    assert words in caught.value.message


def test_a_component_is_recognised() -> None:
    require_component(binary(IDENTITY))

    assert identify(binary(IDENTITY)) is Kind.COMPONENT


@given(st.integers(0, 2**32 - 1))
def test_numbers_are_read_as_they_were_written(value: int) -> None:
    reader = Reader(memoryview(number(value)))

    assert reader.u32() == value
    assert reader.is_done


@pytest.mark.parametrize("data", [b"\x80" * 5 + b"\x01", b"\xff\xff\xff\xff\x1f", b"\x80"])
def test_numbers_beyond_32_bits_are_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        Reader(memoryview(data)).u32()


def test_sections_are_read_with_their_places() -> None:
    data = COMPONENT_HEADER + section(7, b"abc") + section(0, b"")

    found = list(sections(memoryview(data)))

    assert [(part.id, bytes(part.body), part.offset) for part in found] == [(7, b"abc", 10), (0, b"", 15)]


def test_a_truncated_component_says_where() -> None:
    with pytest.raises(Invalid, match="truncated or malformed at byte 10: section 4 of 100 bytes"):
        list(sections(memoryview(COMPONENT_HEADER + b"\x04\x64\0")))


def test_endless_empty_sections_are_refused() -> None:
    with pytest.raises(Invalid, match="more than 100000 sections"):
        list(sections(memoryview(COMPONENT_HEADER + b"\0\0" * 200_000)))


def test_imports_are_named_without_compiling() -> None:
    assert import_names(binary(RESOURCES)) == ["wasi:io/poll@0.2.0", "wasi:io/streams@0.2.0"]
    assert import_names(binary(BYTES)) == ["demo:bytes/host"]


def test_placeholders_are_filled_in_order() -> None:
    outer = binary('(component (component $a) (component (import "x" (func))) (component $b))')
    first, second = binary(IDENTITY), binary(RESOURCES)

    filled = splice(outer, [first, second])

    nested = [bytes(part.body) for part in sections(memoryview(filled)) if part.id == 4]
    assert nested[0] == first
    assert nested[2] == second


def test_a_binary_without_a_placeholder_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no placeholder"):
        splice(COMPONENT_HEADER, [b""])


@given(st.data())
def test_whatever_the_bytes_only_invalid_is_raised(data: st.DataObject) -> None:
    mutated = bytearray(binary(data.draw(st.sampled_from([IDENTITY, BYTES, RESOURCES]))))
    for _ in range(data.draw(st.integers(1, 5))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(mutated[: data.draw(st.integers(0, len(mutated)))])

    for read in (require_component, import_names, skeleton):
        with suppress(Invalid):
            read(cut)
