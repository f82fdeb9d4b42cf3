"""What a call carries besides its arguments, in the headers of its messages. Pure; part of `lattice.wire`.

A call has half a dozen headers, most of them the same in all calls of its caller. Requests are written with
those last that differ, so that a receiver reads the others once: it knows the bytes again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lattice import subjects, values
from lattice.errors import Invalid
from lattice.headers import VERSION, HeaderBlock, block_of
from lattice.plain import copier, maker

MSGPACK = "application/msgpack"
JSON = "application/json"

MAX_BUDGET_MS = 24 * 3600 * 1000
MAX_HOPS = 16
"""Nodes and components that a call may pass through; only a circle of links needs more."""

MAX_ATTEMPT = 1000

_TRACE = r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT = re.compile(_TRACE)
_CALLER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}")
_CALL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LINK = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


# Content types


def content_type_of(headers: Mapping[str, str]) -> str:
    """The content type that the headers name; msgpack if they name none. Raises `Invalid`."""
    if not headers:
        return MSGPACK
    return check_content_type(_lowered(headers).get("content-type", MSGPACK))


def check_content_type(content_type: str) -> str:
    """Return `MSGPACK` or `JSON`, parameters such as `charset` cut off, or raise `Invalid`."""
    if content_type in (MSGPACK, JSON):
        return content_type
    bare = content_type.partition(";")[0].strip().lower()
    if bare in (MSGPACK, JSON):
        return bare
    raise Invalid(f"content-type {values.shown(content_type)} is unknown: use {MSGPACK} or {JSON}")


# Headers of calls


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamId:
    """Names a byte stream: the end that sends, and an id that nobody can guess."""

    owner: str
    stream: str

    @property
    def text(self) -> str:
        """As it stands in a header: `{owner}.{stream}`."""
        return f"{self.owner}.{self.stream}"


@dataclass(slots=True, kw_only=True)
class CallHeaders:
    """What a call carries besides its arguments. Not to be changed: to freeze them takes twice the time."""

    content_type: str = MSGPACK
    budget_ms: int | None = None
    """What is left of the caller's time; relative, as clocks differ. None: the component's own budget."""
    idempotent: bool = False
    traceparent: str | None = None
    call_id: str | None = None
    caller: str | None = None
    attempt: int = 1
    hops: int = 0
    request_stream: StreamId | None = None
    """Set when the arguments come as a stream: the body of the message is then empty."""
    accepts_stream: bool = False
    """Whether the caller can take a result that comes as a stream."""
    origin: str | None = None
    """Who waits for the reply, a node or a client; with the call id it names what is to be cancelled."""
    link: str | None = None
    """The name of the link that the call is over."""
    body_stream: StreamId | None = None
    """The byte stream that comes beside the arguments, of unknown length."""
    accepts_body: bool = False
    """Whether the caller takes a byte stream beside the result."""


make_call_headers = maker(CallHeaders)
_copy_call_headers = copier(CallHeaders)

NO_CALL_HEADERS = CallHeaders()
"""Of a call that has none; shared."""


def encode_headers(call: CallHeaders) -> dict[str, str]:
    """The headers of a request; what has its default value is left out."""
    headers: dict[str, str] = {}
    if call.content_type != MSGPACK:
        headers["content-type"] = call.content_type
    if call.budget_ms is not None:
        headers["lattice-budget-ms"] = str(call.budget_ms)
    if call.idempotent:
        headers["lattice-idempotent"] = "true"
    if call.traceparent is not None:
        headers["traceparent"] = call.traceparent
    if call.call_id is not None:
        headers["lattice-call-id"] = call.call_id
    if call.caller is not None:
        headers["lattice-caller"] = call.caller
    if call.attempt != 1:
        headers["lattice-attempt"] = str(call.attempt)
    if call.hops:
        headers["lattice-hops"] = str(call.hops)
    if call.request_stream is not None:
        headers["lattice-request-stream"] = call.request_stream.text
    if call.accepts_stream:
        headers["lattice-accept-stream"] = "true"
    if call.origin is not None:
        headers["lattice-origin"] = call.origin
    if call.link is not None:
        headers["lattice-link"] = call.link
    if call.body_stream is not None:
        headers["lattice-body-stream"] = call.body_stream.text
    if call.accepts_body:
        headers["lattice-accept-body"] = "true"
    return headers


def header_block(call: CallHeaders) -> HeaderBlock:
    """The headers of a request as bytes; those that differ from call to call stand behind the others."""
    text, lines = _constant_block(
        call.content_type,
        call.idempotent,
        call.caller,
        call.attempt,
        call.hops,
        call.accepts_stream,
        call.origin,
        call.link,
        call.accepts_body,
    )
    if call.request_stream is not None:
        text += f"lattice-request-stream: {call.request_stream.text}\r\n"
        lines += 1
    if call.body_stream is not None:
        text += f"lattice-body-stream: {call.body_stream.text}\r\n"
        lines += 1
    if call.call_id is not None:
        text += f"lattice-call-id: {call.call_id}\r\n"
        lines += 1
    if call.budget_ms is not None:
        text += f"lattice-budget-ms: {call.budget_ms}\r\n"
        lines += 1
    if call.traceparent is not None:
        text += f"traceparent: {call.traceparent}\r\n"
        lines += 1
    if text.count("\n") != lines:
        raise Invalid("the call's id or trace has an end of line")
    return HeaderBlock(f"{text}\r\n".encode())


@lru_cache(maxsize=512)
def _constant_block(
    content_type: str,
    idempotent: bool,
    caller: str | None,
    attempt: int,
    hops: int,
    accepts_stream: bool,
    origin: str | None,
    link: str | None,
    accepts_body: bool,
) -> tuple[str, int]:
    """What is the same in all calls of one caller over one link, and its number of lines.

    A process has few of these.
    """
    call = CallHeaders(
        content_type=content_type,
        idempotent=idempotent,
        caller=caller,
        attempt=attempt,
        hops=hops,
        accepts_stream=accepts_stream,
        origin=origin,
        link=link,
        accepts_body=accepts_body,
    )
    text = block_of(encode_headers(call)).decode().removesuffix("\r\n") or f"{VERSION}\r\n"
    return text, text.count("\n")


def decode_headers(headers: Mapping[str, str]) -> CallHeaders:
    """The headers of a request, in any case of letters. Raises `Invalid` naming the header and its rule.

    A malformed `traceparent` is dropped, as its specification asks; too many hops are refused.
    """
    if isinstance(headers, HeaderBlock):
        found = _decode_block(headers.raw)
        if found is not None:
            return found
    elif not headers:
        return NO_CALL_HEADERS
    fields: dict[str, Any] = {}
    for name, text in headers.items():
        reader = _READERS.get(name) or _READERS.get(name.lower())
        if reader is not None:
            fields[reader[0]] = reader[1](text)
    return CallHeaders(**fields)


_MAX_KNOWN_BLOCKS = 512
_MAX_KNOWN_BYTES = 1024
_known_blocks: dict[bytes, CallHeaders] = {}
_BEGIN_OF_VARYING = b"\r\nlattice-call-id: "
_VARYING = re.compile(
    rb"\r\nlattice-call-id: ([A-Za-z0-9_-]{1,64})\r\nlattice-budget-ms: ([0-9]{1,8})"
    rb"(?:\r\ntraceparent: (%b))?\r\n\r\n" % _TRACE.encode()
)


def _decode_block(raw: bytes) -> CallHeaders | None:
    """The headers in a block as `header_block` writes it; None for others.

    What stands before those that vary comes again in every call of its caller, and is remembered.
    """
    begin = raw.find(_BEGIN_OF_VARYING)
    varying = _VARYING.fullmatch(raw, begin) if begin > 0 else None
    if varying is None:
        return None
    call_id, budget, trace = varying.groups()
    if (budget_ms := int(budget)) > MAX_BUDGET_MS:
        return None
    known = _known_blocks.get(raw[:begin]) or _learn(raw[:begin])
    call = _copy_call_headers(known)
    call.call_id, call.budget_ms = call_id.decode(), budget_ms
    if trace is not None:
        call.traceparent = trace.decode()
    return call


def _learn(raw: bytes) -> CallHeaders:
    known = decode_headers(HeaderBlock(raw))
    if len(raw) <= _MAX_KNOWN_BYTES and known.request_stream is None and known.body_stream is None:
        if len(_known_blocks) >= _MAX_KNOWN_BLOCKS:
            _known_blocks.clear()
        _known_blocks[raw] = known
    return known


def reply_headers(
    content_type: str = MSGPACK, reply_stream: StreamId | None = None, body_stream: StreamId | None = None
) -> dict[str, str] | None:
    """The headers of a successful reply; None when there are none, which is cheaper to send."""
    if content_type == MSGPACK and reply_stream is None and body_stream is None:
        return None
    headers: dict[str, str] = {}
    if content_type != MSGPACK:
        headers["content-type"] = content_type
    if reply_stream is not None:
        headers["lattice-reply-stream"] = reply_stream.text
    if body_stream is not None:
        headers["lattice-body-stream"] = body_stream.text
    return headers or None


def reply_stream_of(headers: Mapping[str, str]) -> StreamId | None:
    """The stream in which the result comes, if it does. Raises `Invalid`."""
    text = _lowered(headers).get("lattice-reply-stream") if headers else None
    return None if text is None else _reply_stream(text)


def body_stream_of(headers: Mapping[str, str]) -> StreamId | None:
    """The byte stream that comes beside the result, if one does. Raises `Invalid`."""
    text = _lowered(headers).get("lattice-body-stream") if headers else None
    return None if text is None else _body_stream(text)


def check_traceparent(text: str | None) -> str | None:
    """Return a W3C `traceparent` if it is a valid one, else None."""
    return text if text is not None and _TRACEPARENT.fullmatch(text) else None


def child_traceparent(parent: str | None, *, trace_id: str, span_id: str) -> str:
    """The `traceparent` of a call made within `parent`, or of a new trace; ids are lower-case hex."""
    if parent is None:
        return f"00-{trace_id}-{span_id}-01"
    _, trace_id, _, flags = parent.split("-")[:4]
    return f"00-{trace_id}-{span_id}-{flags}"


# Fields of headers


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _number(name: str, limit: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if text.isascii() and text.isdecimal() and len(text) <= 12 and (number := int(text)) <= limit:
            return number
        raise Invalid(f"header {name}: {values.shown(text)} is not an integer from 0 to {limit}")

    return read


_any_hops = _number("lattice-hops", 10**9)
_any_attempt = _number("lattice-attempt", MAX_ATTEMPT)


def _attempt(text: str) -> int:
    return _any_attempt(text) or 1


def _hops(text: str) -> int:
    hops = _any_hops(text)
    if hops <= MAX_HOPS:
        return hops
    raise Invalid(
        f"the call passed through {hops} nodes and components, at most {MAX_HOPS}: is there a circle?"
    )


def _flag(name: str) -> Callable[[str], bool]:
    def read(text: str) -> bool:
        if text == "true" or text == "false":
            return text == "true"
        raise Invalid(f"header {name}: {values.shown(text)} is neither `true` nor `false`")

    return read


def _matching(name: str, rule: re.Pattern[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if rule.fullmatch(text):
            return text
        raise Invalid(f"header {name}: {values.shown(text)} is not valid")

    return read


def _stream_id(name: str) -> Callable[[str], StreamId]:
    def read(text: str) -> StreamId:
        owner, _, stream = text.partition(".")
        try:
            return StreamId(owner=subjects.check_node(owner), stream=subjects.check_stream(stream))
        except Invalid as error:
            raise Invalid(f"header {name}: {error.message}") from None

    return read


def _origin(text: str) -> str:
    try:
        return subjects.check_node(text)
    except Invalid as error:
        raise Invalid(f"header lattice-origin: {error.message}") from None


_READERS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "content-type": ("content_type", check_content_type),
    "lattice-budget-ms": ("budget_ms", _number("lattice-budget-ms", MAX_BUDGET_MS)),
    "lattice-idempotent": ("idempotent", _flag("lattice-idempotent")),
    "traceparent": ("traceparent", check_traceparent),
    "lattice-call-id": ("call_id", _matching("lattice-call-id", _CALL_ID)),
    "lattice-caller": ("caller", _matching("lattice-caller", _CALLER)),
    "lattice-attempt": ("attempt", _attempt),
    "lattice-hops": ("hops", _hops),
    "lattice-request-stream": ("request_stream", _stream_id("lattice-request-stream")),
    "lattice-accept-stream": ("accepts_stream", _flag("lattice-accept-stream")),
    "lattice-origin": ("origin", _origin),
    "lattice-link": ("link", _matching("lattice-link", _LINK)),
    "lattice-body-stream": ("body_stream", _stream_id("lattice-body-stream")),
    "lattice-accept-body": ("accepts_body", _flag("lattice-accept-body")),
}
"""The field of `CallHeaders` that each header sets, and how it is read; a call has few of them."""

_reply_stream = _stream_id("lattice-reply-stream")
_body_stream = _stream_id("lattice-body-stream")
