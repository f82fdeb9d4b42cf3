"""The wire format: round trips, limits, hostile bytes, and bytes that old peers have in their hands."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lattice import wire, wit
from lattice.errors import BY_CODE, Failed, Interrupted, Invalid, LatticeError, NotFound
from lattice.headers import HeaderBlock
from lattice.wire import CallHeaders, StreamId
from tests.lattice.wit_values import bits, json_data, typed_values, types

GOLDEN = Path(__file__).parent / "golden"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STREAM = StreamId(owner="NA", stream="0123456789abcdef0123456789abcdef")
ECHO = wit.Function((("name", wit.STRING), ("blob", wit.BYTES)), wit.Option(wit.BYTES))
FULL = CallHeaders(
    content_type=wire.JSON,
    budget_ms=1500,
    idempotent=True,
    traceparent=TRACE,
    call_id="c-1",
    caller="shop",
    attempt=2,
    hops=1,
    request_stream=STREAM,
    accepts_stream=True,
)
CONTENT_TYPES = [wire.MSGPACK, wire.JSON]

call_headers = st.builds(
    CallHeaders,
    content_type=st.sampled_from(CONTENT_TYPES),
    budget_ms=st.none() | st.integers(0, wire.MAX_BUDGET_MS),
    idempotent=st.booleans(),
    traceparent=st.none() | st.just(TRACE),
    call_id=st.none() | st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
    caller=st.none() | st.from_regex(r"[a-z0-9][a-z0-9/:-]{0,20}", fullmatch=True),
    attempt=st.integers(1, wire.MAX_ATTEMPT),
    hops=st.integers(0, wire.MAX_HOPS),
    request_stream=st.none() | st.just(STREAM),
    accepts_stream=st.booleans(),
)


# Bodies


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@given(typed=typed_values())
def test_results_of_any_type_survive(content_type: str, typed: tuple[wit.Type, Any]) -> None:
    type_, value = typed
    function = wit.Function((), type_)

    body = wire.encode_result(function, value, content_type)

    assert bits(wire.decode_result(function, body, content_type)) == bits(value)


@given(typed_values())
def test_arguments_of_any_type_survive(typed: tuple[wit.Type, Any]) -> None:
    type_, value = typed
    function = wit.Function((("first", type_), ("second", type_)), None)

    in_order = wire.decode_arguments(function, wire.encode_arguments([value, value]))
    by_name = wire.decode_arguments(function, wire.encode_arguments({"second": value, "first": value}))

    assert bits(in_order) == bits(by_name) == bits([value, value])


@given(json_data | st.binary())
def test_what_msgpack_carries_comes_back(data: Any) -> None:
    with contextlib.suppress(Invalid):
        body = wire.encode(data)
        assert bits(wire.decode(body)) == bits(data)


@given(st.binary(max_size=200))
@example(b"\xc7\x0c\xff" + b"\x00" * 12)
@example(b"\xd6\xff" + b"\x00" * 4)
@example(b"\xc1")
def test_hostile_bytes_parse_or_are_invalid(data: bytes) -> None:
    for decode in (wire.decode, wire.decode_json, wire.decode_message):
        with contextlib.suppress(Invalid):
            decode(data)


@given(types, st.binary(max_size=60), st.sampled_from(CONTENT_TYPES))
def test_hostile_bodies_of_calls_parse_or_are_invalid(
    type_: wit.Type, data: bytes, content_type: str
) -> None:
    function = wit.Function((("x", type_),), type_)
    for body in (data, b"\x91" + data, b"[" + data + b"]"):
        with contextlib.suppress(Invalid):
            wire.decode_arguments(function, body, content_type)
        with contextlib.suppress(Invalid):
            wire.decode_result(function, body, content_type)


@given(typed_values(), st.data())
def test_damaged_bodies_parse_or_are_invalid(typed: tuple[wit.Type, Any], data: st.DataObject) -> None:
    type_, value = typed
    body = bytearray(wire.encode([value]))
    position = data.draw(st.integers(0, len(body) - 1))
    body[position] = data.draw(st.integers(0, 255))

    with contextlib.suppress(Invalid):
        wire.decode_arguments(wit.Function((("x", type_),), None), bytes(body))


@pytest.mark.parametrize(
    "bomb",
    [
        b"\xdd\x00\x0f\xff\xff" * 200_000,
        b"\xdc\xff\xff" * 300_000,
        b"\x91" * 1_000_000,
        b"\x81\xa1a" * 300_000,
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 65 + b"\xc0",
        b"\x81\xa1a" * 65 + b"\xc0",
    ],
    ids=range(9),
)
def test_bombs_of_msgpack_are_refused(bomb: bytes) -> None:
    with pytest.raises(Invalid):
        wire.decode(bomb)


@pytest.mark.parametrize(
    "bomb",
    [b"[" * 500_000, b'{"a":' * 200_000, b"[" * 65 + b"]" * 65, b"9" * 10_000, b'"\\ud800"x', b"\xff\xfe"],
    ids=range(6),
)
def test_bombs_of_json_are_refused(bomb: bytes) -> None:
    with pytest.raises(Invalid):
        wire.decode_json(bomb)


def test_depth_counts_up_to_the_limit() -> None:
    assert wire.decode(b"\x91" * 64 + b"\xc0") is not None
    assert wire.decode_json(b"[" * 64 + b"]" * 64) is not None


def test_large_arrays_are_taken_whole() -> None:
    value = [[number, "é"] for number in range(100_000)]

    assert wire.decode(wire.encode(value)) == value


def test_a_body_that_looks_nested_within_a_string_is_taken() -> None:
    value = [b"\xdd\x00\x00\xff\xff" * 20_000, b"\xd6\xff"]

    assert wire.decode(wire.encode(value)) == value


def test_a_large_body_nested_too_deep_is_found_before_decoding() -> None:
    large = wire.encode([0] * 70_000)

    with pytest.raises(Invalid, match="nested deeper than 64"):
        wire.decode((b"\xdd\x00\x00\x00\x01") * 70 + large + b"\xdd\x00\x01\x00\x00" * 20)


def test_a_body_above_the_limit_is_refused_with_both_sizes() -> None:
    with pytest.raises(Invalid, match="2000005 bytes, the limit is 1048576"):
        wire.decode(wire.encode(b"x" * 2_000_000))

    assert len(wire.decode(wire.encode(b"x" * 2_000_000), max_bytes=3_000_000)) == 2_000_000


@pytest.mark.parametrize("value", ["\ud800", 2**64, -(2**63) - 1, {1: object()}, object(), {"a": {1, 2}}])
def test_what_can_not_be_sent_is_refused(value: Any) -> None:
    with pytest.raises(Invalid, match="can't be sent"):
        wire.encode(value)


@pytest.mark.parametrize("value", ["\ud800", math.nan, object(), b"x"])
def test_what_json_can_not_carry_is_refused(value: Any) -> None:
    with pytest.raises(Invalid, match="can't be sent"):
        wire.encode_json(value)


def test_an_empty_body_is_a_call_without_arguments_and_a_result_of_nothing() -> None:
    assert wire.decode_arguments(wit.Function((), None), b"") == []
    assert wire.decode_result(wit.Function((), None), b"") is None
    assert wire.decode_result(None, b"") is None
    assert wire.decode_message(b"") == {}
    with pytest.raises(Invalid, match="2 arguments are wanted, 0 given"):
        wire.decode_arguments(ECHO, b"")


def test_a_call_in_json_is_answered_in_json() -> None:
    body = b'["World", {"base64": "aGk="}]'

    assert wire.decode_arguments(ECHO, body, "Application/JSON; charset=utf-8") == ["World", b"hi"]
    assert wire.encode_result(ECHO, b"hi", wire.JSON) == b'{"base64":"aGk="}'


@pytest.mark.parametrize("body", [b"\x93", b"\xa1a", b"\x81\x01\x02", b"\x81\xc4\x01a\x02"])
def test_control_messages_are_maps_by_name(body: bytes) -> None:
    with pytest.raises(Invalid):
        wire.decode_message(body)


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_control_messages_round_trip(content_type: str) -> None:
    fields = {"name": "greeter", "replicas": 3, "labels": {"zone": "a"}, "unknown": [None, True]}

    assert wire.decode_message(wire.encode_message(fields, content_type), content_type) == fields


def test_an_unknown_content_type_is_refused() -> None:
    with pytest.raises(Invalid, match="content-type 'text/plain' is unknown"):
        wire.content_type_of({"Content-Type": "text/plain"})

    assert wire.content_type_of({}) == wire.MSGPACK


# Headers


@given(call_headers)
def test_headers_round_trip(call: CallHeaders) -> None:
    assert wire.decode_headers(wire.encode_headers(call)) == call


@given(call_headers)
def test_headers_survive_as_a_block(call: CallHeaders) -> None:
    block = wire.header_block(call)

    assert wire.decode_headers(block) == call
    assert dict(HeaderBlock(block.raw)) == wire.encode_headers(call)


@given(
    call_headers,
    st.sampled_from([b"lattice-Hops: 3\r\n", b"x: y\r\n", b"lattice-caller: \xff\r\n"]),
    st.data(),
)
def test_a_block_means_what_its_lines_mean(call: CallHeaders, line: bytes, data: st.DataObject) -> None:
    lines = wire.header_block(call).raw.splitlines(keepends=True)
    lines.insert(data.draw(st.integers(1, len(lines) - 1)), line)
    block = HeaderBlock(b"".join(lines))

    assert _decoded(block) == _decoded(dict(block))


def _decoded(headers: Mapping[str, str]) -> CallHeaders | str:
    try:
        return wire.decode_headers(headers)
    except Invalid as error:
        return error.message


def test_an_id_with_an_end_of_line_is_not_sent() -> None:
    with pytest.raises(Invalid, match="end of line"):
        wire.header_block(CallHeaders(call_id="a\r\nlattice-hops: 0"))


@given(call_headers)
def test_headers_are_read_in_any_case(call: CallHeaders) -> None:
    titled = {name.title(): value for name, value in wire.encode_headers(call).items()}

    assert wire.decode_headers({**titled, "X-Unknown": "1"}) == call


KNOWN = [*wire.encode_headers(FULL), "lattice-reply-stream"]


@given(st.dictionaries(st.sampled_from(KNOWN), st.text(max_size=30)))
def test_hostile_headers_are_read_or_invalid(headers: dict[str, str]) -> None:
    with contextlib.suppress(Invalid):
        wire.decode_headers(headers)
    with contextlib.suppress(Invalid):
        wire.reply_stream_of(headers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lattice-budget-ms", "-1"),
        ("lattice-budget-ms", "1.5"),
        ("lattice-budget-ms", "²"),
        ("lattice-budget-ms", "9" * 5000),
        ("lattice-budget-ms", str(wire.MAX_BUDGET_MS + 1)),
        ("lattice-idempotent", "yes"),
        ("lattice-caller", "a b"),
        ("lattice-call-id", ""),
        ("lattice-attempt", "x"),
        ("lattice-request-stream", "NA.short"),
        ("lattice-request-stream", "*.0123456789abcdef"),
        ("content-type", "text/html"),
    ],
)
def test_a_malformed_header_is_named(name: str, value: str) -> None:
    with pytest.raises(Invalid, match=name):
        wire.decode_headers({name: value})


def test_a_call_that_goes_in_a_circle_is_refused() -> None:
    with pytest.raises(Invalid, match="circle"):
        wire.decode_headers({"lattice-hops": str(wire.MAX_HOPS + 1)})


@pytest.mark.parametrize(
    "text", ["", "00", TRACE.upper(), "ff" + TRACE[2:], TRACE + "\n", "00-" + "0" * 32 + TRACE[35:]]
)
def test_a_malformed_traceparent_is_dropped(text: str) -> None:
    assert wire.decode_headers({"traceparent": text}).traceparent is None


def test_a_child_keeps_the_trace_and_has_a_span_of_its_own() -> None:
    child = wire.child_traceparent(TRACE, trace_id="1" * 32, span_id="2" * 16)
    root = wire.child_traceparent(None, trace_id="1" * 32, span_id="2" * 16)

    assert child == f"00-0af7651916cd43dd8448eb211c80319c-{'2' * 16}-01"
    assert root == f"00-{'1' * 32}-{'2' * 16}-01"
    assert wire.check_traceparent(child) == child and wire.check_traceparent(root) == root


def test_replies_announce_their_stream() -> None:
    headers = wire.reply_headers(wire.JSON, STREAM)

    assert headers is not None and wire.reply_stream_of(headers) == STREAM
    assert wire.reply_headers() is None


# Errors


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@given(code=st.sampled_from(sorted(BY_CODE)), message=st.text(), error_id=st.none() | st.just("e-1"))
def test_errors_round_trip(content_type: str, code: str, message: str, error_id: str | None) -> None:
    headers, body = wire.encode_error(BY_CODE[code](message, error_id=error_id), content_type)

    error = wire.decode_error(headers, body)

    assert type(error) is BY_CODE[code]
    assert error.error_id == error_id
    assert error.message in (
        message.encode("utf-8", "replace").decode(),
        "the other side gave no reason",
        code,
    )


@given(st.text())
def test_header_values_are_one_line_of_printable_ascii(text: str) -> None:
    value = wire.header_value(text)

    assert value.isascii() and (value.isprintable()) and len(value) <= wire.MAX_HEADER_LENGTH


@given(
    st.dictionaries(st.sampled_from([wire.ERROR_HEADER, wire.ERROR_CODE_HEADER, "content-type"]), st.text()),
    st.binary(),
)
def test_reading_an_error_never_raises(headers: dict[str, str], body: bytes) -> None:
    error = wire.decode_error(headers, body)

    assert (error is None) == (not {wire.ERROR_HEADER, wire.ERROR_CODE_HEADER} & headers.keys())


def test_an_error_without_its_body_is_read_from_the_headers() -> None:
    error = wire.decode_error(
        {wire.ERROR_HEADER: "no such function", wire.ERROR_CODE_HEADER: "not-found"}, b""
    )

    assert isinstance(error, NotFound) and error.message == "no such function"


def test_an_unknown_code_is_failed() -> None:
    headers, body = (
        {wire.ERROR_CODE_HEADER: "teapot", wire.ERROR_HEADER: "short"},
        wire.encode({"code": "teapot"}),
    )

    assert type(wire.decode_error(headers, body)) is Failed


def test_a_successful_reply_has_no_error() -> None:
    assert wire.decode_error({}, b"\xc0") is None
    assert wire.decode_error({"content-type": wire.JSON}, b"null") is None


# Golden bytes: what version 1 peers send and expect; a change here breaks them


def _golden() -> dict[str, bytes]:
    error: LatticeError = Interrupted("the node was lost", error_id="e-1")
    everything = {
        "bool": True, "u8": 255, "s64": -(2**63), "u64": 2**64 - 1, "f64": 0.5, "nan": math.nan,
        "char": "é",
        "bytes": b"\x00\xff", "list": [1, 2], "record": {"first-name": "A"}, "enum": "red",
        "flags": ["r", "w"],
        "variant": {"circle": 1}, "empty-case": {"none": None}, "none": None, "some-none": [None],
        "ok": {"ok": 1}, "err": {"err": "why"},
    }  # fmt: skip
    return {
        "values": wire.encode(everything),
        "arguments": wire.encode_arguments(["World", b"hi"]),
        "arguments_by_name": wire.encode_arguments({"name": "World", "blob": b"hi"}),
        "result_nil": wire.encode_result(wit.Function((), None), None),
        "headers": wire.encode(wire.encode_headers(FULL)),
        "error": wire.encode(list(wire.encode_error(error))),
        "message": wire.encode_message({"name": "greeter", "replicas": 2}),
    }


@pytest.mark.parametrize("name", sorted(_golden()))
def test_bytes_are_those_of_version_1(name: str) -> None:
    expected = (GOLDEN / f"{name}.msgpack").read_bytes()

    assert _golden()[name] == expected
