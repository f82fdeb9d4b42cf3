"""Reads one response of HTTP/1.1 from bytes: no connection, no waiting.

httptools does the parsing, strictly; here are the limits, what it leaves to its user (responses without a
body, bodies that end with the connection), and the errors in the words of `wasi:http`.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

import httptools

from lattice.http import Headers, first, has_body
from node.capabilities.http.errors import HttpError

HEADER_BYTES = 64 * 1024
"""Of the status line and headers, and of the trailers."""

_KEPT = re.compile(rb"(?i:timeout)\s*=\s*(\d{1,9})")

INFORMATIONAL_RESPONSES = 16
"""How many may come before the final response."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """Status and headers of a response."""

    status: int
    headers: Headers


class ResponseParser:
    """Feed it what comes; it collects the head, the body's chunks and the trailers."""

    # The mutable state: what was parsed and not taken, the fields being read, and how it ended.

    def __init__(self, method: str) -> None:
        self._method = method
        self._parser = httptools.HttpResponseParser(self)
        self._fields: list[tuple[str, bytes]] = []
        self._field_bytes = 0
        self._silent_bytes = 0
        self._informational = 0
        self._ends_with_connection = False
        self._can_keep_alive = False
        self._is_spoilt = False
        self.head: ResponseHead | None = None
        self.chunks: deque[bytes] = deque()
        self.size = 0
        """The bytes of the body that wait here."""
        self.trailers: Headers = ()
        self.is_complete = False
        self.error: HttpError | None = None
        self.has_begun = False
        """Whether any byte came."""

    @property
    def has_ended(self) -> bool:
        return self.is_complete or self.error is not None

    @property
    def is_reusable(self) -> bool:
        """Whether another request may be sent over the same connection."""
        return self.is_complete and self._can_keep_alive and not self._is_spoilt

    @property
    def kept_seconds(self) -> float | None:
        """How long the server keeps an idle connection, if it says so."""
        said = first(self.head.headers, "keep-alive") if self.head is not None else None
        found = _KEPT.search(said) if said else None
        return float(found[1]) if found else None

    def feed(self, data: bytes) -> None:
        """Take bytes; after an error or the end, none should come, and more spoil the connection."""
        self.has_begun = True
        if self.has_ended:
            self._is_spoilt = True
            return
        self._silent_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(HttpError("HTTP-upgrade-failed", reason="the server would switch protocols"))
        except httptools.HttpParserCallbackError as error:
            self._fail(_cause(error))
        except httptools.HttpParserError as error:
            self._parse_failed(str(error))
        if self._silent_bytes > HEADER_BYTES and not self.has_ended:
            self._fail(self._too_large(self._silent_bytes))

    def end(self, error: HttpError | None = None, *, is_clean: bool = True) -> None:
        """The connection has ended, maybe because of an error; `is_clean`: surely by the server."""
        if self.has_ended:
            return
        if self._ends_with_connection and error is None and is_clean:
            self.is_complete = True
        elif error is not None:
            self._fail(error)
        elif not self.has_begun:
            self._fail(HttpError("connection-terminated", reason="the server closed the connection"))
        else:
            self._fail(HttpError("HTTP-response-incomplete", reason="the connection ended within a response"))

    def take(self) -> bytes:
        """The next chunk; there must be one."""
        chunk = self.chunks.popleft()
        self.size -= len(chunk)
        return chunk

    # Called by httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self._field_bytes += len(name) + len(value)
        if self._field_bytes > HEADER_BYTES:
            raise self._too_large(self._field_bytes)
        self._fields.append((name.decode("latin-1").lower(), value))

    def on_headers_complete(self) -> None:
        if self.is_complete:
            return
        status = self._parser.get_status_code()
        headers = tuple(self._fields)
        self._fields = []
        self._field_bytes = self._silent_bytes = 0
        if 100 <= status < 200:
            self._informational += 1
            if status == 101:
                raise HttpError("HTTP-upgrade-failed", reason="the server switched protocols unasked")
            if self._informational > INFORMATIONAL_RESPONSES:
                raise HttpError("HTTP-protocol-error", reason="only informational responses came")
            return
        self._check_coding(headers)
        self.head = ResponseHead(status=status, headers=headers)
        names = {name for name, _ in headers}
        self._can_keep_alive = self._parser.should_keep_alive()
        if not has_body(self._method, status):
            self.is_complete = True
        elif not names & {"content-length", "transfer-encoding"}:
            self._ends_with_connection = True

    def on_body(self, data: bytes) -> None:
        self._silent_bytes = 0
        if self.is_complete:
            self._is_spoilt = True
            return
        self.chunks.append(data)
        self.size += len(data)

    def on_message_complete(self) -> None:
        if self.head is None or self.is_complete:
            return
        self.trailers = tuple(self._fields)
        self.is_complete = True

    def on_message_begin(self) -> None:
        if self.is_complete:
            self._is_spoilt = True  # another response, that nobody asked for

    def _check_coding(self, headers: Headers) -> None:
        codings = [value.lower() for name, value in headers if name == "transfer-encoding"]
        if codings and codings != [b"chunked"]:
            shown = b", ".join(codings).decode("latin-1")
            reason = f"a transfer coding that was not asked for: {shown}"
            raise HttpError("HTTP-response-transfer-coding", shown, reason=reason)

    def _too_large(self, size: int) -> HttpError:
        part = "header" if self.head is None else "trailer"
        reason = f"the response's {part}s have more than {HEADER_BYTES} bytes"
        return HttpError(f"HTTP-response-{part}-section-size", size, reason=reason)

    def _parse_failed(self, problem: str) -> None:
        self._fail(HttpError("HTTP-protocol-error", reason=problem))

    def _fail(self, error: HttpError) -> None:
        if self.is_complete:
            self._is_spoilt = True
        else:
            self.error = error


def _cause(error: BaseException) -> HttpError:
    cause = error.__cause__ or error.__context__
    return cause if isinstance(cause, HttpError) else HttpError("HTTP-protocol-error", reason=repr(cause))
