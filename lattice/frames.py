"""Byte streams without I/O: the frames, and what each end does with those of its peer.

Theory of operation. A stream carries bytes one way. The receiving end lets the sending end have credit: the
total number of bytes that may have been sent since the beginning. Totals instead of increments: a credit
that comes twice, late or never does no harm, as the next one says more. Data frames are numbered; a frame
that was seen is dropped, a missing one ends the stream, as the bytes between are lost. Either end may stop:
the sending one by `end` with an error, the receiving one by `cancel`.

    sending end:    open --end--> ended            open --receives cancel, or breaks--> broken
    receiving end:  open --receives end--> ended   open --gap, excess, error, cancels--> broken

Neither machine raises for what a peer sent: it is an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from lattice import wire
from lattice.errors import Interrupted, Invalid, LatticeError

FIRST_CREDIT_BYTES = 256 * 1024
MAX_CHUNK_BYTES = 64 * 1024
"""Data in one frame."""

MAX_FRAME_BYTES = MAX_CHUNK_BYTES + 1024
MAX_TRAILERS = 64
MAX_REASON_LENGTH = 512
"""Characters of an error's message: a frame has to hold it beside trailers."""
MAX_CREDIT_BYTES = 16 * 1024 * 1024
"""What a sending end takes at most beyond what it has sent, whatever the receiving one grants."""


# Frames: msgpack arrays that begin with their kind; items after those known here are ignored


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes; the first frame has sequence 0."""

    sequence: int
    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The last frame of the sending end; `error` tells that the bytes are not all."""

    sequence: int
    trailers: Mapping[str, str] = field(default_factory=dict)
    error: LatticeError | None = None


@dataclass(frozen=True, slots=True)
class Credit:
    """How many bytes may have been sent since the beginning."""

    total: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """The receiving end wants no more."""

    error: LatticeError


Frame: TypeAlias = Data | End | Credit | Cancel


ALIVE_FRAME = wire.encode(["alive"])
"""What a sending end says that has nothing to send: any frame proves that its sender lives."""


def encode_frame(frame: Frame) -> bytes:
    """The bytes of a frame. Raises `Invalid` for trailers that are not text."""
    match frame:
        case Data(sequence, data):
            return wire.encode(["data", sequence, data])
        case End(sequence, trailers, error):
            return wire.encode(["end", sequence, dict(trailers), error and _error_fields(error)])
        case Credit(total):
            return wire.encode(["credit", total])
        case Cancel(error):
            return wire.encode(["cancel", _error_fields(error)])


def decode_frame(data: bytes) -> Frame | None:
    """The frame; None for a kind that only newer peers know. Raises `Invalid` and nothing else."""
    match wire.decode(data, max_bytes=MAX_FRAME_BYTES):
        case ["data", int(sequence), bytes(chunk), *_] if 0 < len(chunk) <= MAX_CHUNK_BYTES and sequence >= 0:
            return Data(sequence, chunk)
        case ["end", int(sequence), trailers, error, *_] if sequence >= 0:
            return End(
                sequence, _trailers(trailers), None if error is None else wire.error_from_fields(error)
            )
        case ["credit", int(total), *_] if total >= 0:
            return Credit(total)
        case ["cancel", error, *_]:
            return Cancel(wire.error_from_fields(error))
        case [str(kind), *_] if kind not in ("data", "end", "credit", "cancel"):
            return None
    raise Invalid("not a frame of a byte stream")


def _trailers(fields: Any) -> dict[str, str]:
    if fields is None:
        return {}
    if not isinstance(fields, dict) or len(fields) > MAX_TRAILERS:
        raise Invalid(f"trailers must be a map of at most {MAX_TRAILERS} texts by name")
    if not all(isinstance(text, str) for item in fields.items() for text in item):
        raise Invalid("names and values of trailers must be text")
    return dict(fields)


def _error_fields(error: LatticeError) -> dict[str, Any]:
    fields = wire.error_fields(error)
    return {**fields, "message": (fields["message"] or "")[:MAX_REASON_LENGTH]}


# Events


@dataclass(frozen=True, slots=True)
class Received:
    """Bytes came, in order and once."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """All bytes came."""

    trailers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Granted:
    """More may be sent now."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The stream is over before its end; `reply` is for the peer, if it should know."""

    error: LatticeError
    reply: bytes | None = None


Event: TypeAlias = Received | Ended | Granted | Broken


# The two ends


class SendingStream:
    """The end that sends. Ask `sendable`, make frames with `data`, finish with `end` or `fail`."""

    def __init__(self) -> None:
        # The mutable state: what was sent, what may be, and whether the stream still runs.
        self._sequence = 0
        self._sent = 0
        self._credit = 0
        self._is_open = True

    def __repr__(self) -> str:
        state = "open" if self._is_open else "over"
        return f"<SendingStream {state}: {self._sent} bytes sent of {self._credit} granted>"

    @property
    def is_open(self) -> bool:
        """Whether neither end has finished."""
        return self._is_open

    @property
    def sendable(self) -> int:
        """How many bytes the next data frame may have."""
        return min(self._credit - self._sent, MAX_CHUNK_BYTES) if self._is_open else 0

    def receive(self, frame: bytes) -> Event | None:
        """Take a frame of the peer: `Granted`, `Broken`, or None when it changes nothing."""
        if not self._is_open:
            return None
        try:
            decoded = decode_frame(frame)
        except Invalid as invalid:
            return self._break(invalid, is_told=True)
        match decoded:
            case Credit(total) if total > self._credit:
                self._credit = max(self._credit, min(total, self._sent + MAX_CREDIT_BYTES))
                return Granted()
            case Cancel(error):
                return self._break(error, is_told=False)
        return None

    def data(self, chunk: bytes) -> bytes:
        """The frame for 1 to `sendable` bytes."""
        if not 0 < len(chunk) <= self.sendable:
            raise ValueError(f"{len(chunk)} bytes for a frame of 1 to {self.sendable}")
        frame = encode_frame(Data(self._sequence, chunk))
        self._sequence += 1
        self._sent += len(chunk)
        return frame

    def end(self, trailers: Mapping[str, str] | None = None) -> bytes:
        """The frame that says that these were all bytes."""
        if not self._is_open:
            raise ValueError("the stream is over")
        frame = encode_frame(End(self._sequence, trailers or {}))
        if len(frame) > MAX_FRAME_BYTES:
            raise Invalid(f"trailers of {len(frame)} bytes are too large, at most {MAX_FRAME_BYTES}")
        self._is_open = False
        return frame

    def fail(self, error: LatticeError) -> bytes | None:
        """Give up; the frame that tells the peer, or None when the stream was over."""
        if not self._is_open:
            return None
        self._is_open = False
        return encode_frame(End(self._sequence, error=error))

    def _break(self, error: LatticeError, *, is_told: bool) -> Broken:
        reply = encode_frame(End(self._sequence, error=error)) if is_told else None
        self._is_open = False
        return Broken(error, reply)


class ReceivingStream:
    """The end that receives. Send `credit` first, and again whenever `is_credit_due`."""

    def __init__(self, window_bytes: int = FIRST_CREDIT_BYTES) -> None:
        if not 0 < window_bytes <= MAX_CREDIT_BYTES:
            raise ValueError(f"a window of {window_bytes} bytes, 1 to {MAX_CREDIT_BYTES} are possible")
        self._window = window_bytes
        # The mutable state: what came, what of it the reader has taken, and what the peer was granted.
        self._next_sequence = 0
        self._received = 0
        self._consumed = 0
        self._granted = 0
        self._announced = 0
        self._is_open = True

    def __repr__(self) -> str:
        state = "open" if self._is_open else "over"
        return f"<ReceivingStream {state}: {self._received} bytes received, {self._consumed} consumed>"

    @property
    def is_open(self) -> bool:
        """Whether more may come."""
        return self._is_open

    @property
    def is_credit_due(self) -> bool:
        """Whether half of the window has been consumed since the last credit that was surely sent."""
        return self._is_open and 2 * (self._consumed + self._window - self._announced) >= self._window

    def credit(self) -> bytes:
        """The frame that grants a whole window beyond what was consumed; say `credit_sent` afterwards."""
        self._granted = self._consumed + self._window
        return encode_frame(Credit(self._granted))

    def credit_sent(self) -> None:
        """Note that the last credit was sent: before that it may be used, but is still due."""
        self._announced = self._granted

    def consume(self, count: int) -> None:
        """Note that the reader has taken so many bytes."""
        self._consumed += count

    def receive(self, frame: bytes) -> Event | None:
        """Take a frame of the peer: `Received`, `Ended`, `Broken`, or None when it changes nothing."""
        if not self._is_open:
            return None
        try:
            decoded = decode_frame(frame)
        except Invalid as invalid:
            return self._break(invalid)
        match decoded:
            case Data(sequence, data) if sequence == self._next_sequence:
                return self._take(data)
            case End(sequence, trailers, error) if sequence == self._next_sequence or error is not None:
                self._is_open = False
                return Ended(trailers) if error is None else Broken(error)
            case Data(sequence) | End(sequence) if sequence > self._next_sequence:
                missing = f"{self._next_sequence} to {sequence - 1}"
                return self._break(Interrupted(f"frames {missing} of a byte stream were lost"))
        return None

    def cancel(self, error: LatticeError | None = None) -> bytes | None:
        """Want no more; the frame that tells the peer, or None when the stream was over."""
        if not self._is_open:
            return None
        self._is_open = False
        return encode_frame(Cancel(error or Interrupted("the receiving end wants no more")))

    def _take(self, data: bytes) -> Event:
        if self._received + len(data) > self._granted:
            return self._break(Invalid(f"more came than the {self._granted} bytes that were granted"))
        self._next_sequence += 1
        self._received += len(data)
        return Received(data)

    def _break(self, error: LatticeError) -> Broken:
        return Broken(error, self.cancel(error))
