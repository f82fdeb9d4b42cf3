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
from lattice.http import FORBIDDEN_TRAILERS, INLINE_BYTES, as_trailers
from lattice.pouring import Lender
from node.http.body import RequestBody
from node.http.failures import Refusal
from node.http.limits import HttpLimits
from node.http.requests import Fields, Head, Peer

log = structlog.get_logger()

MAX_WAITING = 16
"""Requests of one connection that wait for the one being served."""
DISCARD_BYTES = 1024 * 1024
"""How much of a body that nobody wants is read to keep its connection."""
UNKNOWN = -1
SHORTEST_LINE = len(b"A / HTTP/1.1\r")
NOT_HTTP = "the protocol is not HTTP"


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
    """The mutable state is where the parser is, the request that comes, and those that are ready.

    The parser does not say where in the data it is. `_place` is where the head begins that is coming, in what
    is kept of it or else in the present data. It is `UNKNOWN` behind another request in the same data, whose
    head is `_before`, with a first line that ends at `_line_end`.
    """

    def __init__(
        self,
        limits: HttpLimits,
        peer: Peer,
        *,
        wanted: Callable[[], None],
        taken: Callable[[], None],
        lender: Lender | None = None,
    ) -> None:
        """`wanted`, `taken` and `lender` are for the bodies of requests: `node.http.body`."""
        self._limits = limits
        self._peer = peer
        self._wanted = wanted
        self._taken = taken
        self._lender = lender
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._data: bytes | memoryview = b""
        self._earlier = bytearray()
        self._place = 0
        self._line_end = UNKNOWN
        self._before: Head | None = None
        self._fields: Fields = []
        self._chunks: list[bytes] = []
        self._current: Incoming | None = None
        self._known = b""
        self._known_request: Incoming | None = None
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
        return len(self.ready) >= MAX_WAITING or (stream is not None and stream.is_full)

    def feed(self, data: bytes | memoryview) -> None:
        """Parse what came."""
        if self.phase is Phase.IDLE:
            if self._known_request is not None and data == self._known:
                self.ready.append(self._known_request)
            else:
                before = len(self.ready)
                self._feed(data)
                if len(self.ready) == before + 1:
                    self._remember(data, self.ready[-1])
        elif self.stream is not None and self.body_left:
            self._pass_on(data)
        elif self.phase is not Phase.ENDED:
            self._feed(data)

    @property
    def body_left(self) -> int:
        """How many bytes come next that are the rest of a body of known length."""
        current = self._current
        if self.phase is not Phase.BODY or current is None or current.head is None or current.head.is_chunked:
            return 0
        return current.head.content_length - self._body_bytes

    def _pass_on(self, data: bytes | memoryview) -> None:
        """Take a part of a body without the parser, which would copy it; another one reads what is behind."""
        left = self.body_left
        rest = data[left:]
        self.on_body(bytes(data[:left] if rest else data))
        self._after_part()
        if rest:
            self.feed(rest)

    def pass_by(self, size: int) -> None:
        """So much of the body was read by who has borrowed the socket."""
        if self.body_left:
            self._body_bytes += size
            self._after_part()

    def _after_part(self) -> None:
        """After a part of a body that the parser has not seen."""
        self._silent_bytes = 0
        if self.phase is Phase.BODY and not self.body_left:
            self._parser = httptools.HttpRequestParser(self)
            self.on_message_complete()

    def _remember(self, data: bytes | memoryview, request: Incoming) -> None:
        """Keep a request that was all of the data: clients often send the very same head again and again."""
        if (
            self.phase is Phase.IDLE
            and isinstance(data, bytes)
            and request.head
            and not request.head.has_body
        ):
            self._known, self._known_request = data, request

    def _feed(self, data: bytes | memoryview) -> None:
        before = self._body_bytes
        self._data = data
        if self.phase is Phase.IDLE:
            self._place = 0
        elif self.phase is Phase.BODY:
            self._pass_body()
        rest = self._parse(data)
        while rest:
            rest = self._parse(rest)
        if self.phase is Phase.HEAD:
            self._keep_head()
        self._data = b""
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
            self.refuse(_malformed(error))
        return b""

    def _keep_head(self) -> None:
        """Keep what came of a head that is not complete; what is in front of it is left out."""
        data = self._data
        if not self._earlier:
            if self._place < 0:
                self._place = self._place_behind(bytes(data))
            if self._place > 0:
                data, self._place = data[self._place :], 0
        self._earlier += data  # bounded with the head

    def _pass_body(self) -> None:
        """The next head is behind what is left of the present body; nobody knows where if that is chunked."""
        head = self._current.head if self._current is not None else None
        self._place = self._line_end = UNKNOWN
        if head is not None and not head.is_chunked:
            self._place = head.content_length - self._body_bytes

    def _place_behind(self, data: bytes) -> int:
        """Where the next head begins behind the one that was read last in the same data."""
        if self._before is None or self._line_end < 0:
            return UNKNOWN
        body = data.find(b"\r\n\r\n", self._line_end - 1) + 4
        return _end_of_chunks(data, body) if self._before.is_chunked else body + self._before.content_length

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
            self._check_protocol(version)
            self._check(method, version)
            current.head = head = Head(method, self._url, version, self._fields, self._peer)
            self._before = head
            if parser.should_upgrade() and head.has_body:
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

    def _check(self, method: str, version: str) -> None:
        if method == "CONNECT":
            raise Refusal(501, "`CONNECT` is not offered: this is no proxy")
        if version not in ("1.1", "1.0"):
            raise Refusal(505, "the versions that are understood are HTTP/1.1 and HTTP/1.0")
        if len(self._fields) > self._limits.header_count:
            most = self._limits.header_count
            raise Refusal(431, f"the request has more than {most} header fields")

    def _check_protocol(self, version: str) -> None:
        """Raise `Refusal` for RTSP and ICE: the parser takes them, and does not tell.

        Only the request line says which it is: the same words may stand in a field, in a body, or in another
        request. Nearly always it is the first line of the data, and its end is all that is looked at.
        """
        data = self._data
        if self._earlier or not isinstance(data, bytes):
            self._data = data = bytes(self._earlier) + bytes(data)
            self._earlier = bytearray()
        place = self._place
        if place < 0 and (place := self._place_behind(data)) < 0:
            _refuse_words(data, version)
            self._line_end = UNKNOWN
            return
        self._place = UNKNOWN
        self._line_end = end = data.find(b"\n", place)
        if end < place + SHORTEST_LINE or not data.startswith(b" HTTP/", end - 10):
            self._line_end = _end_of_line(data, place)

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
        self.stream = current.body = RequestBody(self._wanted, self._taken, self._lender)
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
        found = ((name.decode("latin-1").lower(), value.strip()) for name, value in self._fields)
        return as_trailers(item for item in found if item[0] not in FORBIDDEN_TRAILERS)


def _malformed(error: Exception) -> Refusal:
    if "PRI/Upgrade" in str(error):  # how a client begins that speaks HTTP/2 without asking
        return Refusal(505, "HTTP/2 is not spoken: use HTTP/1.1, or put a proxy in front that does")
    return Refusal(400, f"the request is malformed: {error}")


def _end_of_chunks(data: bytes, place: int) -> int:
    """Where a chunked body ends that begins there; the parser has found nothing wrong with it."""
    while True:
        end = data.find(b"\r\n", place)
        size = int(data[place:end].partition(b";")[0], 16)
        if not size:
            return data.find(b"\r\n\r\n", end) + 4  # behind its trailers
        place = end + 2 + size + 2


def _end_of_line(data: bytes, place: int) -> int:
    """Where a request line ends that is none of HTTP/1, or has empty lines in front of it."""
    end = data.find(b"\n", place)
    while 0 <= end <= place + 1:
        place, end = end + 1, data.find(b"\n", end + 1)
    if data.find(b" RTSP/", place, end) >= 0 or data.find(b" ICE/", place, end) >= 0:
        raise Refusal(400, NOT_HTTP)
    return end


def _refuse_words(data: bytes, version: str) -> None:
    """Raise `Refusal` if the data have a line that ends as one of RTSP or ICE does.

    For requests behind a chunked body that began in earlier data: which line is their own can't be told, and
    refusing one too many does no harm.
    """
    if any(b" %b/%b\r\n" % (name, version.encode()) in data for name in (b"RTSP", b"ICE")):
        raise Refusal(400, NOT_HTTP)
