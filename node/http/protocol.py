"""One connection of a client: its requests are answered one after the other, in their order.

The receiving half (`incoming`) makes requests of bytes, the sending half (`sending`) makes bytes of
responses; here is what joins them: one coroutine serves while requests are ready, deadlines are kept, and a
client that leaves takes its call with it. A request whose answer needs no waiting is served within
`data_received`, without a task.

Error handling: whatever bytes come, the client gets an answer or the connection closes.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Awaitable, Callable
from random import getrandbits

import structlog

from lattice.errors import Interrupted, Invalid, LatticeError
from lattice.failures import internal_failure
from lattice.http import HttpRequest, HttpResponse, make_http_request
from lattice.pouring import Loan
from lattice.tasks import PromptTask
from node.http import failures
from node.http.body import RequestBody
from node.http.failures import Refusal
from node.http.incoming import Incoming, Inlet, Phase
from node.http.requests import Peer
from node.http.responses import CONTINUE, Framing, ResponseHead
from node.http.sending import Outlet
from node.http.site import Site

log = structlog.get_logger()

HEAD_SLICE_BYTES = 4 * 1024
"""What is parsed at a time of heads: so few requests are made before their number is looked at."""
BODY_SLICE_BYTES = 64 * 1024
LEAST_LOAN_BYTES = 256 * 1024
"""Of a body of which less is left the socket is not lent."""
LINGER_SECONDS = 2.0
"""How long a client may go on sending after its last answer, which would else be lost with the connection."""
NEVER = float("inf")


class _Waiting(enum.Enum):
    """What the connection waits for, which says how long it may take."""

    REQUEST = enum.auto()
    HEAD = enum.auto()
    WHOLE_BODY = enum.auto()
    BODY = enum.auto()
    RESPONSE = enum.auto()
    CLIENT = enum.auto()
    """To take what was sent."""
    CLOSE = enum.auto()


class Connection(asyncio.Protocol):
    """The mutable state is the two halves, what was read and not parsed, and what is waited for."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._inlet: Inlet
        self._outlet: Outlet
        self._backlog: deque[memoryview] = deque()
        self._is_reading = True
        self._is_lent = False
        self._serving: Incoming | None = None
        self._owes_continue = False
        self._rest: PromptTask | None = None
        self._waiting = _Waiting.REQUEST
        self._unsent = 0
        self._body_deadline = NEVER
        self.deadline = NEVER
        """When `expire` is due, by `lattice.clock.now`."""

    @property
    def waiting_requests(self) -> int:
        """Requests that are read and not yet served."""
        return len(self._inlet.ready)

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._outlet = Outlet(transport)  # type: ignore[arg-type]  # a stream's, as this is its protocol
        peer = _peer(transport, self._site.trusts_forwarded)
        self._inlet = Inlet(
            self._site.limits, peer, wanted=self._body_wanted, taken=self._read_on, lender=self
        )
        if (refusal := self._site.opened(self)) is not None:
            self._inlet.refuse(refusal)
            self._serve_ready()
            self._outlet.transport.close()
        self._watch(_Waiting.REQUEST)

    def data_received(self, data: bytes) -> None:
        if not self._backlog and len(data) <= max(HEAD_SLICE_BYTES, self._inlet.body_left):
            self._inlet.feed(data)
        else:
            self._backlog.append(memoryview(data))
            self._feed_backlog()
        self._go_on()

    def eof_received(self) -> None:
        """A client that stops sending is taken to have left, as by most servers: its call is cancelled."""

    def connection_lost(self, error: Exception | None) -> None:
        self._site.closed(self)
        self.deadline = NEVER
        self._backlog.clear()
        if self._rest is not None:
            self._rest.cancel()  # first: what waits for the client is cancelled, it does not fail
        self._inlet.end()
        self._outlet.lose()

    def pause_writing(self) -> None:
        self._outlet.pause()
        self._unsent = self._outlet.transport.get_write_buffer_size()
        self._watch(_Waiting.CLIENT)

    def resume_writing(self) -> None:
        self._outlet.resume()
        self._watch_next()

    # Receiving

    def _feed_backlog(self) -> None:
        """Parse what was read, as long as there is room for what comes of it."""
        inlet, backlog = self._inlet, self._backlog
        while backlog and not inlet.is_full:
            data = backlog.popleft()
            size = inlet.body_left or (BODY_SLICE_BYTES if inlet.phase is Phase.BODY else HEAD_SLICE_BYTES)
            if len(data) > size:
                backlog.appendleft(data[size:])
                data = data[:size]
            inlet.feed(data)

    def _go_on(self) -> None:
        """After bytes were parsed: serve what is ready, stop reading if there is too much."""
        inlet = self._inlet
        if self._serving is None:
            if inlet.ready:
                self._serve_ready()
            elif inlet.phase is Phase.ENDED:
                self._finish()
                return
        if self._is_reading and (self._backlog or inlet.is_full):
            self._is_reading = False
            self._outlet.transport.pause_reading()
        self._watch_next()

    def _read_on(self) -> None:
        """Take up reading when there is room again."""
        if self._outlet.is_lost or self._is_lent:
            return
        if self._backlog:
            self._feed_backlog()
        if not self._is_reading and not self._backlog and not self._inlet.is_full:
            self._is_reading = True
            self._outlet.transport.resume_reading()
        if self._inlet.stream is not None:
            self._watch_next()  # now it is the client who keeps others waiting

    # As the lender of its socket to the body of a request

    @property
    def left(self) -> int:
        return 0 if self._outlet.descriptor is None else self._inlet.body_left

    def lend(self, recall: Callable[[], None]) -> Loan | None:
        """The rest of a body of known length; meanwhile it is the guest who keeps others waiting."""
        descriptor, left = self._outlet.descriptor, self._inlet.body_left
        if descriptor is None or self._backlog or left < LEAST_LOAN_BYTES:
            return None
        if self._is_reading:
            self._is_reading = False
            self._outlet.transport.pause_reading()
        self._is_lent = True
        self._body_deadline = NEVER
        if self._waiting is _Waiting.BODY:
            self._body_deadline = self.deadline
            self._watch(_Waiting.RESPONSE)
        return Loan(descriptor, left)

    def give_back(self, moved: int, rest: bytes) -> None:
        self._is_lent = False
        self._inlet.pass_by(moved)
        if not self._outlet.is_closed:
            self._read_on()
            self._watch_next()
        if not moved and self._waiting is _Waiting.BODY:  # guests that look again are no clients that send
            self.deadline = min(self.deadline, self._body_deadline)

    def _body_wanted(self) -> None:
        if self._owes_continue:
            self._owes_continue = False
            self._outlet.transport.write(CONTINUE)
        self._watch(_Waiting.BODY)

    # Serving

    def _serve_ready(self) -> None:
        """Answer what is ready; as soon as something has to wait, the rest is a task's."""
        inlet = self._inlet
        while inlet.ready and not self._outlet.is_lost:
            incoming = inlet.ready.popleft()
            can_go_on = self._answer(incoming)
            if not isinstance(can_go_on, bool):
                self._serving = incoming
                rest = self._site.prompt_tasks.start(self._serve(can_go_on))
                self._rest = rest if self._serving is not None else None
                return
            if not self._goes_on(can_go_on):
                return
        if inlet.phase is Phase.ENDED:
            self._finish()

    async def _serve(self, answered: Awaitable[bool]) -> None:
        """Wait for an answer and give the next ones; returns when no request is ready, and after the last."""
        inlet = self._inlet
        try:
            while self._goes_on(await answered):
                if not inlet.ready or self._outlet.is_lost:
                    if inlet.phase is Phase.ENDED:
                        self._finish()
                    break
                self._serving = incoming = inlet.ready.popleft()
                answered = _awaitable(self._answer(incoming))
            else:
                return
        finally:
            self._serving = None
            self._rest = None
        self._watch_next()

    def _goes_on(self, can_go_on: bool) -> bool:
        """After an answer: read on, or close."""
        if can_go_on and (self._inlet.ready or not self._site.is_draining):
            self._read_on()
            return True
        self._finish()
        return False

    def _answer(self, incoming: Incoming) -> bool | Awaitable[bool]:
        """Whether the connection can go on; what gives that is awaited at once."""
        if incoming.refusal is not None:
            return self._refuse(incoming, incoming.refusal)
        request, traceparent = self._request(incoming)
        try:
            response = self._site.responder.answer(request, traceparent)
            if (
                isinstance(response, HttpResponse)
                and isinstance(response.body, bytes)
                and isinstance(request.body, bytes)
            ):
                return self._send(incoming, request, response)
        except LatticeError as error:
            self._break_off(request, error)
            return False
        except Exception:
            self._break_off(request, internal_failure("http.failed", request.path))
            return False
        return self._wait_and_respond(incoming, request, response)

    def _request(self, incoming: Incoming) -> tuple[HttpRequest, str]:
        """A request as components get it, and its trace."""
        head = incoming.head
        assert head is not None
        body = incoming.body
        self._owes_continue = head.expects_continue and body.__class__ is not bytes
        traceparent, headers = head.traceparent, head.headers
        if traceparent is None:
            ids = getrandbits(192).to_bytes(24, "big").hex()  # in one go: half the time of two numbers
            traceparent = f"00-{ids[:32]}-{ids[32:]}-01"
            headers += (("traceparent", traceparent.encode("ascii")),)
        request = make_http_request(
            method=head.method,
            scheme=head.scheme,
            authority=head.authority,
            path=head.path,
            headers=headers,
            body=body,
        )
        return request, traceparent

    async def _wait_and_respond(
        self, incoming: Incoming, request: HttpRequest, outcome: HttpResponse | Awaitable[HttpResponse]
    ) -> bool:
        body = request.body
        try:
            response = outcome if isinstance(outcome, HttpResponse) else await outcome
            if isinstance(body, RequestBody) and body.refusal is not None:
                await _discard(response)
                return await _awaitable(self._refuse(incoming, body.refusal))
            return await self._respond(incoming, request, response)
        except LatticeError as error:
            self._break_off(request, error)
        except Exception:
            self._break_off(request, internal_failure("http.failed", request.path))
        finally:
            if isinstance(body, RequestBody):
                await body.aclose()
        return False

    async def _respond(self, incoming: Incoming, request: HttpRequest, response: HttpResponse) -> bool:
        body = response.body
        if isinstance(body, bytes):
            sent = self._send(incoming, request, response)
            return sent if isinstance(sent, bool) else await sent
        try:
            head = ResponseHead(response, incoming.method, incoming.version)
        except Invalid as error:
            await body.aclose()
            return await _awaitable(
                self._send(incoming, request, self._site.responder.failed(request, error))
            )
        if self._owes_continue:
            self._body_wanted()  # it will be read while the response goes out, when it is too late to ask
        keeps_alive = self._complete(head, incoming)
        await self._outlet.send_stream(head, body)
        return keeps_alive

    def _send(
        self, incoming: Incoming, request: HttpRequest, response: HttpResponse
    ) -> bool | Awaitable[bool]:
        """A response that is all here."""
        try:
            head = ResponseHead(response, incoming.method, incoming.version)
        except Invalid as error:
            response = self._site.responder.failed(request, error)
            head = ResponseHead(response, incoming.method, incoming.version)
        keeps_alive = self._complete(head, incoming)
        return self._write(head, response, keeps_alive=keeps_alive)

    def _write(
        self, head: ResponseHead, response: HttpResponse, *, keeps_alive: bool
    ) -> bool | Awaitable[bool]:
        self._outlet.send_whole(head, response)
        return self._when_taken(keeps_alive) if self._outlet.is_paused else keeps_alive

    async def _when_taken(self, keeps_alive: bool) -> bool:
        try:
            await self._outlet.drained()
        except Interrupted:  # the client has left, which `connection_lost` sees to
            return False
        return keeps_alive

    def _complete(self, head: ResponseHead, incoming: Incoming) -> bool:
        """Add what the connection has to say; whether it stays open."""
        keeps_alive = self._keeps_alive(incoming, head)
        if not keeps_alive:
            head.lines.append(b"connection: close\r\n")
        elif incoming.version == "1.0":
            head.lines.append(b"connection: keep-alive\r\n")
        head.lines.append(self._site.date_line)
        self._owes_continue = False
        return keeps_alive

    def _keeps_alive(self, incoming: Incoming, head: ResponseHead) -> bool:
        if not incoming.keeps_alive or head.framing is Framing.CLOSE or self._site.is_draining:
            return False
        # A client that was not told to continue may send its body or its next request: nobody can tell.
        return not self._owes_continue

    def _refuse(self, incoming: Incoming, refusal: Refusal) -> bool | Awaitable[bool]:
        headers = incoming.head.headers if incoming.head is not None else ()
        response = failures.response(failures.of_refusal(refusal), headers)
        head = ResponseHead(response, incoming.method, incoming.version)
        head.lines += (b"connection: close\r\n", self._site.date_line)
        if self._outlet.is_closed:  # the client has left
            return False
        return self._write(head, response, keeps_alive=False)

    def _break_off(self, request: HttpRequest, error: LatticeError) -> None:
        """The response can't be completed: the client must not take it for whole."""
        if not self._outlet.is_lost and not self._outlet.transport.is_closing():
            self._site.responder.broke_off(request, error)
            self._outlet.transport.abort()

    # Ending

    def _finish(self) -> None:
        """Close after the last answer; what the client still sends is read for a while and forgotten."""
        self._inlet.end()
        self._backlog.clear()
        transport = self._outlet.transport
        if transport.is_closing() or self._waiting is _Waiting.CLOSE:
            return
        if self._inlet.was_cut and transport.can_write_eof():
            transport.write_eof()
            self._read_on()
            self._watch(_Waiting.CLOSE)
        else:
            transport.close()
            self._unsent = transport.get_write_buffer_size()
            self._watch(_Waiting.CLIENT)  # who reads nothing of the last answer is not waited for forever

    def drain(self) -> None:
        """Close now if no request has begun, else after the answer."""
        if self._serving is None and not self._inlet.ready and self._inlet.phase is not Phase.BODY:
            self._outlet.transport.close()

    def abort(self) -> None:
        """Close at once, whatever is in progress."""
        self._outlet.transport.abort()

    def expire(self) -> None:
        """The time for what is waited for is over."""
        transport = self._outlet.transport
        match self._waiting:
            case _Waiting.REQUEST:
                transport.close()
            case _Waiting.HEAD | _Waiting.WHOLE_BODY:
                self._inlet.refuse(Refusal(408, "the request did not come in time", code="timed-out"))
                self._go_on()
            case _Waiting.BODY if self._inlet.stream is not None:
                self._inlet.refuse(Refusal(408, "the body stopped coming", code="timed-out"))
                self._go_on()
            case _Waiting.CLIENT if transport.get_write_buffer_size() < self._unsent:
                self._unsent = transport.get_write_buffer_size()
                self._watch(_Waiting.CLIENT)
            case _:
                transport.abort()

    def _watch_next(self) -> None:
        """Find out what is waited for now."""
        outlet = self._outlet
        if self._waiting is _Waiting.CLOSE or outlet.is_paused or outlet.transport.is_closing():
            return
        inlet = self._inlet
        if self._serving is not None:
            if inlet.stream is not None and inlet.stream.is_awaited:
                self._watch(_Waiting.BODY)
            else:
                self._waiting, self.deadline = _Waiting.RESPONSE, NEVER
        elif inlet.phase is Phase.IDLE:
            self._watch(_Waiting.REQUEST)
        elif inlet.phase is Phase.HEAD:
            if self._waiting is not _Waiting.HEAD:
                self._watch(_Waiting.HEAD)
        elif inlet.stream is not None:
            self._watch(_Waiting.BODY)
        elif self._waiting is not _Waiting.WHOLE_BODY:
            self._watch(_Waiting.WHOLE_BODY)

    def _watch(self, waiting: _Waiting) -> None:
        self._waiting = waiting
        limits, clock = self._site.limits, self._site.clock
        match waiting:
            case _Waiting.REQUEST:
                self.deadline = clock + limits.idle_seconds
            case _Waiting.HEAD | _Waiting.WHOLE_BODY:
                self.deadline = clock + limits.header_seconds
            case _Waiting.BODY | _Waiting.CLIENT:
                self.deadline = clock + limits.body_seconds
            case _Waiting.RESPONSE:
                self.deadline = NEVER
            case _Waiting.CLOSE:
                self.deadline = clock + LINGER_SECONDS


async def _awaitable(outcome: bool | Awaitable[bool]) -> bool:
    return outcome if isinstance(outcome, bool) else await outcome


async def _discard(response: HttpResponse) -> None:
    if not isinstance(response.body, bytes):
        await response.body.aclose()


def _peer(transport: asyncio.BaseTransport, trusts_forwarded: bool) -> Peer:
    """Both addresses; those of a Unix socket have no host."""
    remote, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    return Peer(
        address=remote[0] if isinstance(remote, tuple) else "unknown",
        local=f"{local[0]}:{local[1]}" if isinstance(local, tuple) else "localhost",
        scheme="https" if transport.get_extra_info("sslcontext") else "http",
        trusts_forwarded=trusts_forwarded,
    )
