"""The receiving half of a connection: bytes in, requests out. Does no I/O.

    IDLE --first byte--> HEAD --blank line--> BODY --last byte--> IDLE
                           |                    |
                           +---- refused -------+--> ENDED: what still comes is forgotten

A request is ready as soon as its head is read when its body is a stream, else once it is complete. Whatever
is wrong becomes a request with a refusal, so that its answer has its place among the others.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping

import httptools
import structlog

from lattice.errors import Interrupted, Invalid
from lattice.http import FORBIDDEN_TRAILERS, INLINE_BYTES
from node.http.body import WINDOW_BYTES, RequestBody
from node.http.failures import Refusal
from node.http.limits import HttpLimits
from node.http.requests import Fields, Head, Peer

log = structlog.get_logger()

MAX_WAITING = 16
"""Requests of one connection that wait for the one being served."""
DISCARD_BYTES = 1024 * 1024
"""How much of a body that nobody wants is read to keep its connection."""


class Phase(enum.Enum):
    """Where in a message the next byte belongs."""

    IDLE = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()
    ENDED = enum.auto()


class Incoming:
    """A request that is complete, or whose body is a stream, or that is refused."""

    __slots__ = ("body", "head", "keeps_alive", "method", "refusal", "version")

    def __init__(self, method: str, version: str, keeps_alive: bool) -> None:
        self.method = method
        self.version = version
        self.keeps_alive = keeps_alive
        """Whether the client will send another one."""
        self.head: Head | None = None
        self.body: bytes | RequestBody = b""
        self.refusal: Refusal | None = None


class Inlet:
    """The mutable state is where the parser is, the request that comes, and those that are ready."""

    def __init__(
        self, limits: HttpLimits, peer: Peer, *, wanted: Callable[[], None], taken: Callable[[], None]
    ) -> None:
        """`wanted` and `taken` are called as a request's body is read: `node.http.body`."""
        self._limits = limits
        self._peer = peer
        self._wanted = wanted
        self._taken = taken
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._data: bytes | memoryview = b""
        self._earlier = bytearray()
        self._fields: Fields = []
        self._chunks: list[bytes] = []
        self._current: Incoming | None = None
        self._body_bytes = 0
        self._silent_bytes = 0
        self._discarded = 0
        self.phase = Phase.IDLE
        self.ready: deque[Incoming] = deque()
        self.stream: RequestBody | None = None
        """The body that is coming, if it is a stream."""
        self.was_cut = False
        """Whether the client may still be sending what nobody reads."""

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read for now."""
        stream = self.stream
        return len(self.ready) >= MAX_WAITING or (stream is not None and stream.waiting_bytes >= WINDOW_BYTES)

    @property
    def is_discarding(self) -> bool:
        """Whether what comes is a body that nobody wants."""
        return self.stream is not None and self.stream.is_over

    def feed(self, data: bytes | memoryview) -> None:
        """Parse what came."""
        if self.phase is Phase.ENDED:
            return
        before = self._body_bytes
        self._data = data
        rest = self._parse(data)
        while rest:
            rest = self._parse(rest)
        self._data = b""
        if self.phase is Phase.HEAD:
            self._earlier += data  # bounded with the head
        if self.phase is not Phase.IDLE:
            self._look_at(len(data), is_progress=self._body_bytes != before)

    def _parse(self, data: bytes | memoryview) -> bytes | memoryview:
        """What is left for another parser: this one stops where another protocol could begin."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserInvalidMethodError:
            self.refuse(Refusal(501, "the method is not known"))
        except httptools.HttpParserUpgrade as stop:
            self._parser = httptools.HttpRequestParser(self)
            return b"" if self.phase is Phase.ENDED else data[stop.args[0] :]
        except (httptools.HttpParserCallbackError, httptools.HttpParserError) as error:
            if isinstance(error, httptools.HttpParserCallbackError):
                log.error("http.parser-failed", exc_info=error.__context__ or error)
            self.refuse(Refusal(400, f"the request is malformed: {error}"))
        return b""

    def _look_at(self, size: int, *, is_progress: bool) -> None:
        """After each piece of a message that is not complete."""
        self._silent_bytes = 0 if is_progress else self._silent_bytes + size
        if self._silent_bytes > self._limits.header_bytes:
            most = self._limits.header_bytes
            self.refuse(Refusal(431, f"the head of the request has more than {most} bytes"))
        elif self.phase is Phase.BODY and self.stream is None:
            current = self._current
            if current is not None and current.head is not None and current.head.is_chunked:
                self._open_stream(current)

    def refuse(self, refusal: Refusal) -> None:
        """Answer what is coming with a refusal, and read nothing after it."""
        if self.phase is Phase.ENDED:
            return
        self.phase = Phase.ENDED
        self.was_cut = True
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.abort(Invalid(refusal.reason))
            stream.refusal = refusal
            return
        current = self._current or Incoming("GET", "1.1", False)
        current.keeps_alive = False
        current.refusal = refusal
        self.ready.append(current)

    def end(self) -> None:
        """The client has left, or is not listened to any more."""
        self.was_cut = self.was_cut or self.phase in (Phase.HEAD, Phase.BODY)
        self.phase = Phase.ENDED
        self.ready.clear()
        if self.stream is not None:
            self.stream.abort(Interrupted("the client has left"))

    # The parser's calls

    def on_message_begin(self) -> None:
        if self.phase is Phase.ENDED:
            return
        self.phase = Phase.HEAD
        self._url = b""
        self._fields = []
        self._current = None

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        if self.phase is Phase.ENDED:
            return
        parser = self._parser
        method = parser.get_method().decode()
        version = parser.get_http_version()
        self._current = current = Incoming(method, version, parser.should_keep_alive())
        self.phase = Phase.BODY
        self._body_bytes = self._silent_bytes = self._discarded = 0
        try:
            if self._is_other_protocol(method, version):
                raise Refusal(400, "the protocol is not HTTP")
            self._check(version)
            current.head = head = Head(method, self._url, version, self._fields, self._peer)
            if parser.should_upgrade() and (head.has_body or method == "CONNECT"):
                # An offer is passed over, as it may be; but the parser would take its body for a request.
                raise Refusal(501, "no other protocol is offered: leave `upgrade` out")
            if head.content_length > self._limits.body_bytes:
                most = self._limits.body_bytes
                raise Refusal(413, f"the body has more than {most} bytes")
        except Refusal as refusal:
            self.refuse(refusal)
            return
        self._fields = []
        self._chunks = []
        if head.content_length > INLINE_BYTES or (head.expects_continue and head.has_body):
            self._open_stream(current)

    def _check(self, version: str) -> None:
        if version not in ("1.1", "1.0"):
            raise Refusal(505, "the versions that are understood are HTTP/1.1 and HTTP/1.0")
        if len(self._fields) > self._limits.header_count:
            most = self._limits.header_count
            raise Refusal(431, f"the request has more than {most} header fields")

    def _is_other_protocol(self, method: str, version: str) -> bool:
        """Whether the request line names RTSP or ICE: the parser takes them, and does not tell.

        Looked for in what came since the head's beginning, which may have other requests in front of it.
        """
        data: bytes | memoryview = self._data
        if self._earlier or not isinstance(data, bytes):
            data = bytes(self._earlier) + bytes(data)
            self._earlier = bytearray()
        if b" RTSP/" not in data and b" ICE/" not in data:
            return False
        start = b"\n%b %b" % (method.encode(), self._url)  # of a line: a field's value may read the same
        lines = [start + b" %b/%b\r\n" % (name, version.encode()) for name in (b"RTSP", b"ICE")]
        return any(line in b"\n" + data for line in lines)

    def on_body(self, data: bytes) -> None:
        if self.phase is Phase.ENDED:
            return
        self._body_bytes += len(data)
        if self._body_bytes > self._limits.body_bytes:
            most = self._limits.body_bytes
            self.refuse(Refusal(413, f"the body has more than {most} bytes"))
        elif self.stream is not None:
            self._stream_on(self.stream, data)
        else:
            self._chunks.append(data)
            if self._body_bytes > INLINE_BYTES and self._current is not None:
                self._open_stream(self._current)

    def _stream_on(self, stream: RequestBody, data: bytes) -> None:
        stream.feed(data)
        if stream.is_over:
            self._discarded += len(data)
            if self._discarded > DISCARD_BYTES:
                self.was_cut = True
                self.phase = Phase.ENDED

    def _open_stream(self, current: Incoming) -> None:
        self.stream = current.body = RequestBody(self._wanted, self._taken)
        for data in self._chunks:
            self.stream.feed(data)
        self._chunks = []
        self.ready.append(current)

    def on_message_complete(self) -> None:
        if self.phase is Phase.ENDED:
            return
        current = self._current
        assert current is not None
        self._current = None
        self.phase = Phase.IDLE if current.keeps_alive else Phase.ENDED
        if self._fields and self.stream is None:  # trailers, which a body that is held whole has no place for
            self._open_stream(current)
        if self.stream is not None:
            self.stream.end(self._trailers())
            self.stream = None
            return
        if self._chunks:
            current.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks = []
        self.ready.append(current)

    def _trailers(self) -> Mapping[str, str]:
        found = ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in self._fields)
        return {name: value.strip() for name, value in found if name not in FORBIDDEN_TRAILERS}
