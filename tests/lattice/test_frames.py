"""The machines of byte streams: what came is always what was sent, or the stream says that it is broken."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice import wire
from lattice.errors import Failed, Interrupted, Invalid, LatticeError, NotFound
from lattice.frames import (
    FIRST_CREDIT_BYTES,
    MAX_CHUNK_BYTES,
    MAX_CREDIT_BYTES,
    Broken,
    Cancel,
    Credit,
    Data,
    End,
    Ended,
    Granted,
    Received,
    ReceivingStream,
    SendingStream,
    decode_frame,
    encode_frame,
)

CHUNKS = [bytes([number]) * 7 for number in range(8)]


def _granted(window: int = FIRST_CREDIT_BYTES) -> tuple[SendingStream, ReceivingStream]:
    sender, receiver = SendingStream(), ReceivingStream(window)
    sender.receive(receiver.credit())
    receiver.credit_sent()
    return sender, receiver


def _frames(sender: SendingStream) -> list[bytes]:
    return [sender.data(chunk) for chunk in CHUNKS] + [sender.end({"checksum": "1"})]


@given(st.lists(st.integers(0, len(CHUNKS)), max_size=40))
def test_whatever_arrives_is_a_prefix_and_ends_only_if_it_is_all(order: list[int]) -> None:
    sender, receiver = _granted()
    frames = _frames(sender)

    events = [event for index in order if (event := receiver.receive(frames[index]))]

    received = b"".join(event.data for event in events if isinstance(event, Received))
    assert b"".join(CHUNKS).startswith(received)
    assert any(isinstance(event, Ended) for event in events) == (not receiver.is_open and not _broken(events))
    if any(isinstance(event, Ended) for event in events):
        assert received == b"".join(CHUNKS)


@given(st.lists(st.sampled_from(["drop", "twice", "pass", "late"]), min_size=20, max_size=60))
def test_lost_late_and_repeated_credit_never_lets_too_much_through(fates: list[str]) -> None:
    sender, receiver = _granted(100)
    late: list[bytes] = []
    for fate in fates:
        if sender.sendable:
            event = receiver.receive(sender.data(b"x" * min(sender.sendable, 30)))
            assert isinstance(event, Received)
            receiver.consume(len(event.data))
        frames = [receiver.credit()]
        if fate == "late":
            late += frames
            frames = []
        for frame in {"drop": [], "twice": frames * 2 + late}.get(fate, frames):
            sender.receive(frame)

    assert receiver.is_open


def test_all_bytes_pass_through_a_small_window() -> None:
    sender, receiver = _granted(10)
    rest, received = b"abcdefghij" * 20, b""
    while rest:
        frame = sender.data(rest[: sender.sendable])
        event = receiver.receive(frame)
        assert isinstance(event, Received)
        received += event.data
        rest = rest[len(event.data) :]
        receiver.consume(len(event.data))
        if receiver.is_credit_due:
            assert sender.receive(receiver.credit()) == Granted()
            receiver.credit_sent()

    assert received == b"abcdefghij" * 20
    assert receiver.receive(sender.end({"a": "b"})) == Ended({"a": "b"})
    assert not sender.is_open and not receiver.is_open


def test_a_gap_ends_the_stream_with_interrupted_and_tells_the_peer() -> None:
    sender, receiver = _granted()
    first, _, third = (sender.data(chunk) for chunk in CHUNKS[:3])
    receiver.receive(first)

    event = receiver.receive(third)

    assert isinstance(event, Broken) and isinstance(event.error, Interrupted) and event.reply is not None
    told = sender.receive(event.reply)
    assert isinstance(told, Broken) and isinstance(told.error, Interrupted)
    assert sender.sendable == 0


def test_an_end_whose_data_were_lost_is_a_gap() -> None:
    sender, receiver = _granted()
    sender.data(b"lost")

    event = receiver.receive(sender.end())

    assert isinstance(event, Broken) and isinstance(event.error, Interrupted)


def test_more_than_was_granted_is_refused() -> None:
    _, receiver = _granted(4)

    event = receiver.receive(encode_frame(Data(0, b"12345")))

    assert isinstance(event, Broken) and isinstance(event.error, Invalid)


def test_data_before_the_first_credit_are_refused() -> None:
    event = ReceivingStream().receive(encode_frame(Data(0, b"1")))

    assert isinstance(event, Broken) and isinstance(event.error, Invalid)


def test_the_sending_end_can_not_exceed_its_credit_or_the_frame() -> None:
    sender, _ = _granted(10)

    for chunk in (b"", b"x" * 11):
        with pytest.raises(ValueError, match="1 to 10"):
            sender.data(chunk)
    large, _ = _granted(MAX_CREDIT_BYTES)
    assert large.sendable == MAX_CHUNK_BYTES


def test_a_huge_credit_is_taken_up_to_a_limit() -> None:
    sender = SendingStream()
    sender.receive(encode_frame(Credit(2**63)))

    sent = 0
    while sender.sendable:
        sent += len(sender.data(b"x" * sender.sendable)) and MAX_CHUNK_BYTES

    assert sent == MAX_CREDIT_BYTES


@pytest.mark.parametrize("stop", ["fail", "cancel"])
def test_either_end_can_stop_with_a_reason(stop: str) -> None:
    sender, receiver = _granted()
    reason = NotFound("no such blob", error_id="e-1")

    if stop == "fail":
        frame = sender.fail(reason)
        event = receiver.receive(frame or b"")
    else:
        frame = receiver.cancel(reason)
        event = sender.receive(frame or b"")

    assert isinstance(event, Broken) and isinstance(event.error, NotFound)
    assert (event.error.message, event.error.error_id) == ("no such blob", "e-1")
    assert not sender.is_open and not receiver.is_open
    assert sender.fail(reason) is None and receiver.cancel(reason) is None


def test_frames_after_the_end_change_nothing() -> None:
    sender, receiver = _granted()
    frame = sender.data(b"x")
    receiver.receive(frame)
    receiver.receive(sender.end())

    assert receiver.receive(frame) is None and receiver.receive(b"\xc1") is None
    assert sender.receive(b"\xc1") is None
    assert not receiver.is_credit_due


def test_credit_that_may_not_have_been_sent_is_still_due() -> None:
    sender, receiver = _granted(10)
    receiver.receive(sender.data(b"x" * 10))
    receiver.consume(10)

    receiver.credit()

    assert receiver.is_credit_due
    receiver.credit_sent()
    assert not receiver.is_credit_due


@given(st.binary(max_size=100))
def test_hostile_frames_parse_or_are_invalid(data: bytes) -> None:
    with contextlib.suppress(Invalid):
        decode_frame(data)


@given(
    st.sampled_from(["data", "end", "credit", "cancel", "other", 1, None]),
    st.lists(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.binary()
        | st.dictionaries(st.text(), st.text())
    ),
)
def test_hostile_fields_of_frames_are_events_or_nothing(kind: object, items: list[object]) -> None:
    frame = wire.encode([kind, *items])
    for machine in (*_granted(), SendingStream(), ReceivingStream()):
        event = machine.receive(frame)
        assert event is None or isinstance(event, Received | Ended | Granted | Broken)


def test_frames_of_newer_peers_are_ignored() -> None:
    sender, receiver = _granted()

    assert receiver.receive(wire.encode(["pause", 5])) is None
    assert sender.receive(wire.encode(["credit", 10**6, "for you"])) == Granted()
    assert receiver.receive(wire.encode(["data", 0, b"x", {"later": 1}])) == Received(b"x")


@pytest.mark.parametrize(
    ("frame", "data"),
    [
        (Data(7, b"\x00\xff"), b"\x93\xa4data\x07\xc4\x02\x00\xff"),
        (Credit(262144), b"\x92\xa6credit\xce\x00\x04\x00\x00"),
        (End(8, {"a": "b"}), b"\x94\xa3end\x08\x81\xa1a\xa1b\xc0"),
    ],
)
def test_frames_are_those_of_version_1(frame: Data | Credit | End, data: bytes) -> None:
    assert encode_frame(frame) == data
    assert decode_frame(data) == frame


@pytest.mark.parametrize("error", [Failed("x" * 9000), Interrupted("é" * 9000)])
def test_errors_in_frames_stay_small(error: LatticeError) -> None:
    assert len(encode_frame(Cancel(error))) < 1200
    assert isinstance(decode_frame(encode_frame(End(0, error=error))), End)


class _Detailed(Failed):
    """An error of a kind that this module has never heard of, made of other things than a message."""

    def __init__(self, case: str, number: int) -> None:
        super().__init__(f"{case}: {number}")


def test_an_error_of_a_kind_of_its_own_crosses_as_its_code_and_message() -> None:
    error = _Detailed("size", 7)
    error.error_id = "e1"

    frame = decode_frame(encode_frame(End(0, error=error)))

    assert isinstance(frame, End) and isinstance(frame.error, Failed)
    assert (frame.error.message, frame.error.error_id) == ("size: 7", "e1")


def _broken(events: list[Received | Ended | Granted | Broken]) -> bool:
    return any(isinstance(event, Broken) for event in events)
