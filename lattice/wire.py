"""What messages look like: bodies, the headers of calls, and errors. Pure; docs/wire-format.md specifies it.

Whatever the bytes, decoding either returns a value or raises `Invalid`. A body is msgpack unless its
`content-type` says JSON, and is answered in kind. Unknown headers and fields are ignored, so that newer peers
can add to them; what changes the meaning of a message takes a new version in the subject.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgpack

from lattice import subjects, values, wit
from lattice.errors import BY_CODE, Failed, Invalid, LatticeError
from lattice.headers import VERSION, HeaderBlock, block_of

MSGPACK = "application/msgpack"
JSON = "application/json"

MAX_BODY_BYTES = 1 << 20
"""As NATS carries by default; larger bodies come as a stream, whose receiver passes its own limit."""

MAX_DEPTH = 64
"""Containers within containers. WIT types are finite, and nobody nests values by hand this deep."""

MAX_BUDGET_MS = 24 * 3600 * 1000
MAX_HOPS = 16
"""Nodes and components that a call may pass through; only a circle of links needs more."""

MAX_ATTEMPT = 1000
MAX_HEADER_LENGTH = 512
MAX_ERROR_MESSAGE_LENGTH = 8192

ERROR_HEADER = "Nats-Service-Error"
ERROR_CODE_HEADER = "Nats-Service-Error-Code"

_DECODE_ERRORS = (ValueError, TypeError, OverflowError, RecursionError, MemoryError, msgpack.UnpackException)
_ENCODE_ERRORS = (ValueError, TypeError, OverflowError, RecursionError)

_NOT_CONTAINERS = bytes(code for code in range(256) if not (0x80 <= code <= 0x9F or 0xDC <= code <= 0xDF))
"""All bytes that can't begin an array or a map in msgpack: what is left bounds the depth."""

_LARGE_ARRAY = re.compile(rb"\xdd(?=([\x00-\x0f][\x00-\xff]{3}))")
"""Where a 32-bit array header may stand; within a string it is a false alarm, which costs time only."""

_MAX_CLAIMS = 8
"""Large arrays within large arrays that are taken without a look at the nesting."""

_TIMESTAMPS = (b"\xd6\xff", b"\xd7\xff", b"\xc7\x0c\xff")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_CALLER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}")
_CALL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LINK = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


# Bodies


def encode(value: Any) -> bytes:
    """A value as msgpack. Raises `Invalid` for what msgpack can't carry."""
    try:
        return bytes(msgpack.packb(value))
    except _ENCODE_ERRORS as error:
        raise Invalid(f"the value can't be sent: {error}") from None


def decode(data: bytes, *, max_bytes: int = MAX_BODY_BYTES) -> Any:
    """The value that msgpack bytes stand for. Raises `Invalid`."""
    _check_size(data, max_bytes)
    if len(data.translate(None, _NOT_CONTAINERS)) <= MAX_DEPTH:
        return _unpack(data)
    _check_claims(data)
    value = _unpack(data)
    _check_depth(value)
    return value


def encode_json(value: Any) -> bytes:
    """JSON data (what `values.to_json` made) as bytes. Raises `Invalid` for what JSON can't carry."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except _ENCODE_ERRORS as error:
        raise Invalid(f"the value can't be sent as JSON: {error}") from None


def decode_json(data: bytes, *, max_bytes: int = MAX_BODY_BYTES) -> Any:
    """The data that JSON bytes stand for. Raises `Invalid`."""
    _check_size(data, max_bytes)
    try:
        value = json.loads(str(data, "utf-8"))
    except _DECODE_ERRORS as error:
        raise Invalid(f"the body is not JSON: {_reason(error)}") from None
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        _check_depth(value)
    return value


# Calls


def encode_arguments(args: Sequence[Any] | Mapping[str, Any]) -> bytes:
    """The body of a call: the arguments in order or by name, as msgpack. Raises `Invalid`."""
    return encode(args)


def decode_arguments(
    function: wit.Function, data: bytes, content_type: str = MSGPACK, *, max_bytes: int = MAX_BODY_BYTES
) -> list[Any]:
    """The checked arguments in order; an empty body is a call without arguments. Raises `Invalid`."""
    if not data:
        return values.check_arguments(function, [])
    if check_content_type(content_type) == JSON:
        return values.arguments_from_json(function, decode_json(data, max_bytes=max_bytes))
    return values.check_arguments(function, decode(data, max_bytes=max_bytes))


def encode_result(function: wit.Function, value: Any, content_type: str = MSGPACK) -> bytes:
    """The body of a reply, in the form in which the call came. Raises `Invalid`.

    For msgpack the value is taken as it is: what a guest returned has the shape of its type.
    """
    if check_content_type(content_type) == JSON:
        return encode_json(values.result_to_json(function, value))
    return encode(value)


def decode_result(
    function: wit.Function | None,
    data: bytes,
    content_type: str = MSGPACK,
    *,
    max_bytes: int = MAX_BODY_BYTES,
) -> Any:
    """The result in the body of a reply; checked if the function is known. Raises `Invalid`.

    Without the function JSON is returned as parsed: bytes and large integers stay in their JSON form.
    """
    if not data:
        return None if function is None else values.check_result(function, None)
    if check_content_type(content_type) == JSON:
        parsed = decode_json(data, max_bytes=max_bytes)
        return parsed if function is None else values.result_from_json(function, parsed)
    value = decode(data, max_bytes=max_bytes)
    return value if function is None else values.check_result(function, value)


# Control messages, heartbeats, events: maps with names as keys


def encode_message(fields: Mapping[str, Any], content_type: str = MSGPACK) -> bytes:
    """The body of a control message. Raises `Invalid`."""
    return encode_json(fields) if check_content_type(content_type) == JSON else encode(fields)


def decode_message(
    data: bytes, content_type: str = MSGPACK, *, max_bytes: int = MAX_BODY_BYTES
) -> dict[str, Any]:
    """The fields of a control message; an empty body has none. Raises `Invalid`."""
    if not data:
        return {}
    is_json = check_content_type(content_type) == JSON
    fields = (decode_json if is_json else decode)(data, max_bytes=max_bytes)
    if isinstance(fields, dict) and all(isinstance(name, str) for name in fields):
        return fields
    raise Invalid(f"the body must be a map of fields by name, not {values.shown(fields)}")


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
    constant = _constant_block(
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
    lines = [constant]
    if call.request_stream is not None:
        lines.append(f"lattice-request-stream: {call.request_stream.text}")
    if call.body_stream is not None:
        lines.append(f"lattice-body-stream: {call.body_stream.text}")
    if call.call_id is not None:
        lines.append(f"lattice-call-id: {call.call_id}")
    if call.budget_ms is not None:
        lines.append(f"lattice-budget-ms: {call.budget_ms}")
    if call.traceparent is not None:
        lines.append(f"traceparent: {call.traceparent}")
    text = "\r\n".join(lines)
    if text.count("\n") != constant.count("\n") + len(lines) - 1:
        raise Invalid("the call's id or trace has an end of line")
    return HeaderBlock(text.encode() + b"\r\n\r\n")


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
) -> str:
    """What is the same in all calls of one caller over one link: a process has few of these."""
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
    return block_of(encode_headers(call)).decode().removesuffix("\r\n\r\n") or VERSION


def decode_headers(headers: Mapping[str, str]) -> CallHeaders:
    """The headers of a request, in any case of letters. Raises `Invalid` naming the header and its rule.

    A malformed `traceparent` is dropped, as its specification asks; too many hops are refused.
    """
    if isinstance(headers, HeaderBlock):
        found = _decode_block(headers.raw)
        if found is not None:
            return found
    elif not headers:
        return _DEFAULT_HEADERS
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
    rb"(?:\r\ntraceparent: ([0-9a-f-]{55}))?\r\n\r\n"
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
    return CallHeaders(
        content_type=known.content_type,
        budget_ms=budget_ms,
        idempotent=known.idempotent,
        traceparent=known.traceparent if trace is None else check_traceparent(trace.decode()),
        call_id=call_id.decode(),
        caller=known.caller,
        attempt=known.attempt,
        hops=known.hops,
        request_stream=known.request_stream,
        accepts_stream=known.accepts_stream,
        origin=known.origin,
        link=known.link,
        body_stream=known.body_stream,
        accepts_body=known.accepts_body,
    )


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


# Errors


def encode_error(error: LatticeError, content_type: str = MSGPACK) -> tuple[dict[str, str], bytes]:
    """The headers and the body of a reply that says that a request failed."""
    headers = {ERROR_HEADER: header_value(error.message) or error.code, ERROR_CODE_HEADER: error.code}
    if content_type == JSON:
        headers["content-type"] = JSON
    return headers, encode_message(error_fields(error), headers.get("content-type", MSGPACK))


def error_fields(error: LatticeError) -> dict[str, str | None]:
    """The fields by which an error is written wherever one stands."""
    message = _valid_text(error.message)[:MAX_ERROR_MESSAGE_LENGTH]
    return {"code": error.code, "message": message, "error_id": error.error_id}


def decode_error(headers: Mapping[str, str], data: bytes) -> LatticeError | None:
    """The error that a reply carries, or None for a successful one. Never raises.

    The body counts; where it is missing or damaged, the headers do. Unknown codes become `Failed`.
    """
    if not headers:
        return None
    code = headers.get(ERROR_CODE_HEADER)
    message = headers.get(ERROR_HEADER)
    if code is None and message is None:
        return None
    try:
        fields = _texts(decode_message(data, content_type_of(headers)))
    except Invalid:
        fields = {}
    return error_from_fields({"code": code, "message": message} | fields)


def error_from_fields(fields: Any) -> LatticeError:
    """The inverse of `error_fields`. Never raises: what is missing or damaged is replaced."""
    known = _texts(fields)
    error = BY_CODE.get(known.get("code", ""), Failed)
    message = known.get("message") or "the other side gave no reason"
    return error(_valid_text(message)[:MAX_ERROR_MESSAGE_LENGTH], error_id=known.get("error_id"))


def _texts(fields: Any) -> dict[str, str]:
    items = fields.items() if isinstance(fields, Mapping) else ()
    return {name: text for name, text in items if isinstance(text, str)}


def header_value(text: str) -> str:
    """The text as it may stand in a header: printable ASCII on one line, cut to a length."""
    safe = "".join(char if " " <= char <= "~" else "?" if char.isprintable() else " " for char in text[:1024])
    return " ".join(safe.split())[:MAX_HEADER_LENGTH]


def _valid_text(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


# Fields of headers

_DEFAULT_HEADERS = CallHeaders()


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


# Decoding within limits


def _check_size(data: bytes, max_bytes: int) -> None:
    if len(data) > max_bytes:
        raise Invalid(f"the body has {len(data)} bytes, the limit is {max_bytes}")
    if not data:
        raise Invalid("the body is empty")


def _unpack(data: bytes) -> Any:
    try:
        value = msgpack.unpackb(data, ext_hook=_refuse_extension)
    except _DECODE_ERRORS as error:
        raise _not_msgpack(data, error) from None
    if b"\xff" in data and any(begin in data for begin in _TIMESTAMPS):
        _refuse_timestamps(value)
    return value


def _check_claims(data: bytes) -> None:
    # msgpack allocates an array on its header's word alone, bounded by the size of the body; a thousand such
    # headers nested would cost seconds. Honest arrays have a byte per item, so their claims add up to little.
    claims = (int.from_bytes(found[1], "big") for found in _LARGE_ARRAY.finditer(data))
    if sum(claim for claim in claims if claim <= len(data)) > _MAX_CLAIMS * len(data):
        _scan(data)


def _refuse_extension(code: int, data: bytes) -> None:
    raise ValueError(f"extension type {code} is not part of the format")


def _refuse_timestamps(value: Any) -> None:
    # The library decodes this one extension by itself. What looks like one may be the middle of a string.
    level = [value]
    while level:
        if any(isinstance(child, msgpack.Timestamp) for child in level):
            raise Invalid("the body is not msgpack: extension type -1 is not part of the format")
        level = _children(level)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for child in _children(level) if type(child) is list or type(child) is dict]
        if not level:
            return
    raise Invalid(f"the body is nested deeper than {MAX_DEPTH}")


def _children(level: list[Any]) -> list[Any]:
    in_lists = [child for parent in level if type(parent) is list for child in parent]
    return in_lists + [child for parent in level if type(parent) is dict for child in parent.values()]


def _scan(data: bytes) -> None:
    """Raise `Invalid` if a body of msgpack is nested too deep, without decoding it."""
    unpacker = msgpack.Unpacker(None, max_buffer_size=len(data))
    unpacker.feed(data)
    left = [1]
    try:
        while left:
            if not left[-1]:
                left.pop()
                continue
            left[-1] -= 1
            _enter(unpacker, data, left)
    except _DECODE_ERRORS as error:
        raise _not_msgpack(data, error) from None


def _not_msgpack(data: bytes, error: Exception) -> Invalid:
    cure = f"; JSON needs the header `content-type: {JSON}`" if data[:1] in _JSON_BEGINS else ""
    return Invalid(f"the body is not msgpack: {_reason(error)}{cure}")


_JSON_BEGINS = (b"[", b"{", b'"')


def _enter(unpacker: Any, data: bytes, left: list[int]) -> None:
    position = unpacker.tell()
    code = data[position] if position < len(data) else 0xC1
    if 0x80 <= code <= 0x8F or code in (0xDE, 0xDF):
        left.append(2 * unpacker.read_map_header())
    elif 0x90 <= code <= 0x9F or code in (0xDC, 0xDD):
        left.append(unpacker.read_array_header())
    else:
        unpacker.skip()
    if len(left) > MAX_DEPTH + 1:
        raise Invalid(f"the body is nested deeper than {MAX_DEPTH}")


def _reason(error: BaseException) -> str:
    return header_value(str(error)) or type(error).__name__
