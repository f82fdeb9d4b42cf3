"""From a component's response to the bytes of its head, and how its body is framed. Pure.

A component can't break the framing: fields of the connection are the listener's own, a length is checked
against what is sent, and names and values that would end a line are refused.
"""

from __future__ import annotations

import enum
from http import HTTPStatus

from lattice.errors import Invalid
from lattice.http import (
    FORBIDDEN_TRAILERS,
    HOP_BY_HOP,
    Headers,
    HttpResponse,
    has_body,
    is_field_value,
    is_token,
)

_APART = HOP_BY_HOP | {"content-length", "date"}
_MAX_KNOWN_NAMES = 1024
_MAX_KNOWN_STARTS = 512
_MAX_KNOWN_BYTES = 1024

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Framing(enum.Enum):
    """How a client knows the end of a body."""

    NONE = enum.auto()
    LENGTH = enum.auto()
    CHUNKED = enum.auto()
    CLOSE = enum.auto()


class ResponseHead:
    """The head of one response, checked; raises `Invalid` that says what the component must change."""

    __slots__ = ("framing", "length", "lines")

    def __init__(self, response: HttpResponse, method: str, version: str) -> None:
        status = response.status
        if not 200 <= status <= 599:
            raise Invalid(f"the component answered with the status {status}: use 200 to 599")
        start, length = _known_starts.get((status, response.headers)) or _start(status, response.headers)
        self.lines = [start]
        self.length = 0
        self._frame(response, method, version, length)

    def _frame(self, response: HttpResponse, method: str, version: str, length: int | None) -> None:
        """Choose how the body ends; `length` is what the component said."""
        body, status = response.body, response.status
        if isinstance(body, bytes) and has_body(method, status):
            if length is not None and length != len(body):
                raise Invalid(f"the component said `content-length` {length} and sent {len(body)} bytes")
            length = len(body)
        if not has_body(method, status):
            self.framing = Framing.NONE
            length = len(body) if length is None and isinstance(body, bytes) and body else length
            if length is not None and status not in (204, 304):
                self.lines.append(b"content-length: %d\r\n" % length)
        elif isinstance(body, bytes) and response.trailers and version == "1.1":
            self._chunked()
        elif length is not None:
            self.framing, self.length = Framing.LENGTH, length
            self.lines.append(b"content-length: %d\r\n" % length)
        elif version == "1.1":
            self._chunked()
        else:
            self.framing = Framing.CLOSE

    def _chunked(self) -> None:
        self.framing = Framing.CHUNKED
        self.lines.append(b"transfer-encoding: chunked\r\n")


def trailer_lines(trailers: Headers) -> bytes:
    """The end of a chunked body; fields that must not stand there are left out."""
    if not trailers:
        return b"0\r\n\r\n"
    lines = [b"0\r\n"]
    for name, value in trailers:
        if name in FORBIDDEN_TRAILERS or not is_token(name) or not is_field_value(value):
            continue
        lines.append(b"%b: %b\r\n" % (name.encode("ascii"), value))
    lines.append(b"\r\n")
    return b"".join(lines)


def _start(status: int, headers: Headers) -> tuple[bytes, int | None]:
    """The lines of status and fields, and the length that the component said; remembered if it is small.

    A component answers with the same few heads again and again.
    """
    lines = [_STATUS_LINES[status] if status in _STATUS_LINES else b"HTTP/1.1 %d \r\n" % status]
    length: int | None = None
    for name, value in headers:
        if name in _APART:
            if name == "content-length":
                length = _length(value, length)
            continue
        if not is_field_value(value):
            raise Invalid(f"the component's header `{name}` has a value with a control character")
        lines += (_known_names.get(name) or _learn(name), value, b"\r\n")
    start = b"".join(lines), length
    if len(start[0]) <= _MAX_KNOWN_BYTES:
        if len(_known_starts) >= _MAX_KNOWN_STARTS:
            _known_starts.clear()
        _known_starts[status, headers] = start
    return start


def _length(value: bytes, former: int | None) -> int:
    if not value.isdigit() or len(value) > 18 or (former is not None and int(value) != former):
        raise Invalid("the component's `content-length` must be one number in digits")
    return int(value)


_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}
_known_names: dict[str, bytes] = {}
_known_starts: dict[tuple[int, Headers], tuple[bytes, int | None]] = {}


def _learn(name: str) -> bytes:
    """`name: ` as bytes; each is checked once. Bounded, as components choose the names."""
    if not is_token(name):
        raise Invalid(f"the component's header {name!r} has a name that is not allowed")
    if len(_known_names) >= _MAX_KNOWN_NAMES:
        _known_names.clear()
    line = _known_names[name] = name.lower().encode("ascii") + b": "
    return line
