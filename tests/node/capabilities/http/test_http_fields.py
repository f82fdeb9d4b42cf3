"""Fields that guests make: nothing that they hold can split a message."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.errors import Trapped
from lattice.http import HttpRequest
from node.capabilities.http.errors import HttpError
from node.capabilities.http.fields import FIELDS_BYTES, FORBIDDEN, Fields, HeaderError
from node.capabilities.http.request_head import RequestHead, destination_of
from node.capabilities.http.response_parser import ResponseParser

NASTY = st.sampled_from(
    ["\r", "\n", "\r\n", "\0", ":", " ", "a", "content-length", "transfer-encoding", "\x85"]
)
PATHS = st.text(st.characters(max_codepoint=127), max_size=10)
NAMES = st.lists(st.one_of(NASTY, st.text(max_size=4)), max_size=5).map("".join)
VALUES = st.lists(
    st.one_of(NASTY.map(lambda text: text.encode("latin-1")), st.binary(max_size=5)), max_size=5
).map(b"".join)


class _Seen:
    """What another parser makes of a request."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.messages = 0
        self.target = b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_message_begin(self) -> None:
        self.messages += 1


def test_names_compare_without_case_and_values_keep_their_order() -> None:
    fields = Fields.from_list([("B", b"1"), ("a", b"2"), ("b", b"3")])

    assert fields.headers() == (("b", b"1"), ("b", b"3"), ("a", b"2"))
    assert fields.get("B") == [b"1", b"3"]


def test_received_fields_are_immutable_and_their_clones_are_not() -> None:
    fields = Fields.received([("a", b"1"), ("connection", b"close")])

    with pytest.raises(HeaderError, match="immutable"):
        fields.set("a", [b"2"])
    copy = fields.clone()
    copy.set("a", [b"2"])

    assert fields.headers() == (("a", b"1"),)
    assert copy.headers() == (("a", b"2"),)


def test_setting_no_values_deletes() -> None:
    fields = Fields.from_list([("a", b"1")])

    fields.set("A", [])

    assert not fields.has("a")


def test_fields_have_a_size() -> None:
    fields = Fields()
    fields.set("a", [b"x" * (FIELDS_BYTES - 100)])
    fields.set("a", [b"x" * (FIELDS_BYTES - 100)])  # instead of the former

    with pytest.raises(Trapped):
        fields.append("b", b"x" * 100)


@given(st.sampled_from(sorted(FORBIDDEN)), st.randoms(use_true_random=False))
def test_forbidden_names_are_so_in_any_case(name: str, random: object) -> None:
    mixed = "".join(letter.upper() if index % 2 else letter for index, letter in enumerate(name))

    with pytest.raises(HeaderError, match="forbidden"):
        Fields().append(mixed, b"x")


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6), PATHS, st.sampled_from(["GET", "POST"]))
def test_what_is_accepted_reads_as_one_request_with_those_fields(
    entries: list[tuple[str, bytes]], path: str, method: str
) -> None:
    fields = Fields()
    for name, value in entries:
        try:
            fields.append(name, value)
        except HeaderError:
            continue
    request = HttpRequest(
        method=method, scheme="http", authority="a.test", path=f"/{path}", headers=fields.headers()
    )
    try:
        head = RequestHead(request, destination_of(request))
    except HttpError:
        return

    seen = _Seen()
    httptools.HttpRequestParser(seen).feed_data(head.data)

    framing = {b"host", b"content-length"}
    expected = [(name.encode(), value.strip(b" \t")) for name, value in fields.headers()]
    found = [(name, value.rstrip(b" \t")) for name, value in seen.headers if name not in framing]
    assert seen.messages == 1
    assert found == [item for item in expected if item[0] != b"content-length"]
    assert seen.target == f"/{path}".encode()


@given(st.lists(st.binary(max_size=40), max_size=6), st.sampled_from(["GET", "HEAD"]))
def test_no_response_breaks_the_parser(chunks: list[bytes], method: str) -> None:
    parser = ResponseParser(method)

    for chunk in chunks:
        parser.feed(chunk)
    parser.end()

    assert parser.has_ended


@given(st.data())
def test_a_response_is_the_same_however_it_is_cut(data: st.DataObject) -> None:
    response = (
        b"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\na: b\r\n\r\n"
        b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nsum: 7\r\n\r\n"
    )
    cuts = sorted(data.draw(st.sets(st.integers(1, len(response) - 1), max_size=8)))
    parser = ResponseParser("GET")

    for start, end in zip([0, *cuts], [*cuts, len(response)], strict=True):
        parser.feed(response[start:end])

    assert parser.head is not None
    assert parser.head.status == 200
    assert b"".join(parser.chunks) == b"abcdefg"
    assert parser.trailers == (("sum", b"7"),)
    assert parser.is_reusable
