from hypothesis import given
from hypothesis import strategies as st

from node.capabilities.wasi.lines import LINE_BYTES, LineBuffer


def test_a_line_is_handed_on_when_it_ends() -> None:
    lines = LineBuffer()

    assert lines.feed(b"hel") == []
    assert lines.feed(b"lo\nwor") == [b"hello"]
    assert lines.drain() == b"wor"
    assert lines.drain() == b""


def test_lines_that_end_together_are_one_block() -> None:
    assert LineBuffer().feed(b"a\n\nb\nc") == [b"a\n\nb"]


def test_an_empty_line_is_a_block_of_its_own() -> None:
    assert LineBuffer().feed(b"\n") == [b""]


def test_a_line_without_end_is_cut_into_pieces() -> None:
    lines = LineBuffer()

    blocks = lines.feed(b"x" * (2 * LINE_BYTES + 1))

    assert [len(block) for block in blocks] == [LINE_BYTES, LINE_BYTES]
    assert lines.drain() == b"x"


@given(st.lists(st.binary(max_size=20_000)))
def test_no_byte_is_lost_and_little_is_held(writes: list[bytes]) -> None:
    lines = LineBuffer()
    handed_on = b""
    for write in writes:
        handed_on += b"".join(lines.feed(write))
        assert len(lines._rest) < LINE_BYTES
    handed_on += lines.drain()

    assert handed_on.replace(b"\n", b"") == b"".join(writes).replace(b"\n", b"")
