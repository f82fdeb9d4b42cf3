"""What messages look like: bodies and errors; headers are in `call_headers`. Pure; see docs/wire-format.md.

Whatever the bytes, decoding either returns a value or raises `Invalid`. A body is msgpack unless its
`content-type` says JSON, and is answered in kind. Unknown headers and fields are ignored, so that newer peers
can add to them; what changes the meaning of a message takes a new version in the subject.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack

from lattice import values, wit
from lattice.call_headers import JSON as JSON
from lattice.call_headers import MAX_ATTEMPT as MAX_ATTEMPT
from lattice.call_headers import MAX_BUDGET_MS as MAX_BUDGET_MS
from lattice.call_headers import MAX_HOPS as MAX_HOPS
from lattice.call_headers import MSGPACK as MSGPACK
from lattice.call_headers import NO_CALL_HEADERS as NO_CALL_HEADERS
from lattice.call_headers import CallHeaders as CallHeaders
from lattice.call_headers import StreamId as StreamId
from lattice.call_headers import body_stream_of as body_stream_of
from lattice.call_headers import check_content_type as check_content_type
from lattice.call_headers import check_traceparent as check_traceparent
from lattice.call_headers import child_traceparent as child_traceparent
from lattice.call_headers import content_type_of as content_type_of
from lattice.call_headers import decode_headers as decode_headers
from lattice.call_headers import encode_headers as encode_headers
from lattice.call_headers import header_block as header_block
from lattice.call_headers import reply_headers as reply_headers
from lattice.call_headers import reply_stream_of as reply_stream_of
from lattice.errors import BY_CODE, Failed, Invalid, LatticeError

MAX_BODY_BYTES = 1 << 20
"""As NATS carries by default; larger bodies come as a stream, whose receiver passes its own limit."""

MAX_DEPTH = 64
"""Containers within containers. WIT types are finite, and nobody nests values by hand this deep."""

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


# Bodies


def encode(value: Any) -> bytes:
    """A value as msgpack. Raises `Invalid` for what msgpack can't carry."""
    try:
        return bytes(msgpack.packb(value))
    except _ENCODE_ERRORS as error:
        raise Invalid(f"the value can't be sent: {error}") from None


def decode(data: bytes, *, max_bytes: int = MAX_BODY_BYTES) -> Any:
    """The value that msgpack bytes stand for. Raises `Invalid`."""
    if not 0 < len(data) <= max_bytes:
        _check_size(data, max_bytes)
    if len(data) <= MAX_DEPTH or len(data.translate(None, _NOT_CONTAINERS)) <= MAX_DEPTH:
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
