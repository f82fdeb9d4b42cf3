"""The HTTP client for components: HTTP/1.1, streaming both ways at once, and only to where a policy allows.

What a component sent is sent as it is: no header is added but `host` and what frames the body, nothing is
decompressed, no redirect followed, no cookie kept, no proxy used.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import anyio
import structlog
from anyio.abc import TaskGroup

from lattice.clock import now
from lattice.errors import LatticeError
from lattice.http import INLINE_BYTES, Body, Headers, HttpRequest, HttpResponse
from lattice.streams import ByteReceiver
from lattice.tasks import own_task
from node.capabilities.http.connection import Connection, ResponseBody, read_head
from node.capabilities.http.connector import Connector, HttpClientSettings
from node.capabilities.http.errors import HttpError, from_lattice
from node.capabilities.http.policy import DENY_ALL, OutgoingPolicy
from node.capabilities.http.request_head import Destination, RequestHead, destination_of, trailer_lines
from node.capabilities.http.response_parser import ResponseParser

log = structlog.get_logger()

REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that may be sent again when a kept connection turns out to be closed."""

DENIAL_SECONDS = 60.0
"""The same denial of the same component is logged once in so long."""

DENIALS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """Timeouts of one request in seconds; None for the client's."""

    connect_timeout: float | None = None
    first_byte_timeout: float | None = None
    between_bytes_timeout: float | None = None


NO_OPTIONS = RequestOptions()


class HttpClient:
    """One for a node; a context, whose end cancels what is under way."""

    # The mutable state is the connector's; the task group runs what sends bodies.

    def __init__(self, settings: HttpClientSettings | None = None) -> None:
        self._settings = settings or HttpClientSettings()
        self._connector = Connector(self._settings)
        self._denials = _Denials()
        self._stack = AsyncExitStack()
        self._tasks: TaskGroup

    async def __aenter__(self) -> Self:
        await self._connector.start()
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connector.close()
        self._tasks.cancel_scope.cancel()
        await self._stack.aclose()

    @property
    def tasks(self) -> TaskGroup:
        """Where requests that nobody waits for just now are made."""
        return self._tasks

    async def send(
        self,
        request: HttpRequest,
        options: RequestOptions = NO_OPTIONS,
        policy: OutgoingPolicy = DENY_ALL,
        *,
        component: str = "",
    ) -> HttpResponse:
        """Send a request and give the response once its head came; raises `HttpError`.

        A small body that came with it is bytes, any other a stream whose errors are `HttpError` too: close
        it. A request's stream is sent meanwhile and closed in the end. Cancelling gives both up.
        """
        await own_task()
        try:
            destination = self.check(request, policy, component=component)
            return await self._exchange(destination, policy, options, RequestHead(request, destination))
        except BaseException as error:
            if not isinstance(request.body, bytes):
                await request.body.aclose()
            if isinstance(error, HttpError) and error.case == "destination-IP-prohibited":
                self._denials.note(component, destination, error.reason)
            raise

    def check(self, request: HttpRequest, policy: OutgoingPolicy, *, component: str = "") -> Destination:
        """Where a request goes; raises `HttpError` for what can't be sent, or not to there."""
        destination = destination_of(request)
        if policy.allows_host(destination.host, destination.port):
            return destination
        cure = f"grant it with `--allow-host {destination.authority}`"
        reason = f"the component may not reach {destination.text}: {cure}"
        self._denials.note(component, destination, reason)
        raise HttpError("HTTP-request-denied", reason=reason)

    async def _exchange(
        self, destination: Destination, policy: OutgoingPolicy, options: RequestOptions, head: RequestHead
    ) -> HttpResponse:
        kept = self._connector.take(destination, policy)
        if kept is not None:
            exchange = _Exchange(self, kept, destination, head, options)
            try:
                return await exchange.run()
            except HttpError as error:
                # The server closed it before it saw the request: usual for a connection that was kept.
                if error.case != "connection-terminated" or not exchange.may_be_repeated:
                    raise
        seconds = _or(options.connect_timeout, self._settings.connect_seconds)
        connection = await self._connector.connect(destination, policy, seconds)
        return await _Exchange(self, connection, destination, head, options).run()

    def first_byte_seconds(self, options: RequestOptions) -> float:
        return _or(options.first_byte_timeout, self._settings.first_byte_seconds)

    def between_bytes_seconds(self, options: RequestOptions) -> float:
        return _or(options.between_bytes_timeout, self._settings.between_bytes_seconds)

    def keep(self, destination: Destination, connection: Connection, seconds: float | None) -> None:
        """Take back a connection whose exchange is over, which the server keeps for so long."""
        connection.rest()
        self._connector.keep(destination, connection, seconds)


class _Denials:
    """Says in the log what was denied, and how to grant it; not again for each attempt."""

    # The mutable state: when each was said, the oldest first.

    def __init__(self) -> None:
        self._said: OrderedDict[tuple[str, Destination], float] = OrderedDict()

    def note(self, component: str, destination: Destination, reason: str) -> None:
        key, moment = (component, destination), now()
        if moment - self._said.get(key, -DENIAL_SECONDS) < DENIAL_SECONDS:
            return
        self._said.pop(key, None)
        self._said[key] = moment
        if len(self._said) > DENIALS:
            self._said.popitem(last=False)
        log.warning("http.outgoing-denied", component=component, destination=destination.text, reason=reason)


def _or(seconds: float | None, default: float) -> float:
    return default if seconds is None else seconds


@dataclass(slots=True, eq=False)
class _Exchange:
    """One request and its response over one connection."""

    client: HttpClient
    connection: Connection
    destination: Destination
    head: RequestHead
    options: RequestOptions
    _parser: ResponseParser = field(init=False)
    _upload: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _is_sent: bool = False
    _is_received: bool = False
    _is_released: bool = False

    @property
    def may_be_repeated(self) -> bool:
        """Whether sending it again, after the connection ended without an answer, does no harm."""
        is_whole = isinstance(self.head.body, bytes)
        return is_whole and self.head.method in REPEATABLE and not self._parser.has_begun

    async def run(self) -> HttpResponse:
        """Send, and give the response; if it fails, the connection is closed."""
        self._parser = self.connection.begin(self.head.method, self._received)
        try:
            self._begin()
            found = await read_head(
                self.connection, self._parser, self.client.first_byte_seconds(self.options)
            )
        except BaseException:
            self._close()
            raise
        body, trailers = self._body()
        return HttpResponse(status=found.status, headers=found.headers, body=body, trailers=trailers)

    def _body(self) -> tuple[Body, Headers]:
        parser = self._parser
        if parser.is_complete and parser.size <= INLINE_BYTES:
            data = b"".join(parser.take() for _ in range(len(parser.chunks)))
            return data, parser.trailers
        seconds = self.client.between_bytes_seconds(self.options)
        return ResponseBody(self.connection, parser, seconds, self._close), ()

    # Sending, in a task of its own unless it is little

    def _begin(self) -> None:
        body = self.head.body
        if isinstance(body, bytes) and len(body) <= INLINE_BYTES:
            self.connection.write_now(self.head.data + body)
            self._is_sent = True
        else:
            self.client.tasks.start_soon(self._send)

    async def _send(self) -> None:
        """Send all of the request; what fails here ends the response too."""
        body = self.head.body
        try:
            with self._upload:
                if isinstance(body, bytes):
                    await self.connection.write(self.head.data + body)
                else:
                    await self._send_stream(body)
                self._is_sent = True
        except LatticeError as error:
            self._fail(from_lattice(error))
        except Exception as error:  # it must not end the requests of others
            log.exception("http.request-failed", destination=self.destination.text)
            self._fail(HttpError("internal-error", None, reason=repr(error)))
        finally:
            if not isinstance(body, bytes):
                with anyio.move_on_after(1, shield=True):
                    await body.aclose()
        self._release()

    async def _send_stream(self, body: ByteReceiver) -> None:
        await self.connection.write(self.head.data)
        sent = 0
        async for chunk in body:
            sent += len(chunk)
            if self.head.length is not None and sent > self.head.length:
                raise self._wrong_size(sent)
            data = b"%x\r\n%s\r\n" % (len(chunk), chunk) if self.head.is_chunked else chunk
            await self.connection.write(data)
        if self.head.is_chunked:
            await self.connection.write(b"0\r\n" + trailer_lines(body) + b"\r\n")
        elif sent != self.head.length:
            raise self._wrong_size(sent)

    def _wrong_size(self, sent: int) -> HttpError:
        reason = f"the request announced {self.head.length} bytes and has {sent}"
        return HttpError("HTTP-request-body-size", sent, reason=reason)

    def _fail(self, error: HttpError) -> None:
        if not self._is_released:
            self.connection.fail(error)

    # The end

    def _received(self) -> None:
        """All of the response came, or none will.

        A server that answers early and keeps the connection takes the rest of the request: it goes on.
        """
        self._is_received = True
        if self._is_sent or not self._parser.is_reusable:
            if not self._is_sent:
                self._upload.cancel()
            self._release()

    def _release(self) -> None:
        if not self._is_received or self._is_released:
            return
        self._is_released = True
        if self._is_sent and self._parser.is_reusable:
            self.client.keep(self.destination, self.connection, self._parser.kept_seconds)
        else:
            self.connection.close()

    def _close(self) -> None:
        """Nobody wants the rest of the response, if there is any."""
        if self._is_received and self._parser.is_reusable:
            return  # what is left of the request may go on
        self._upload.cancel()
        if not self._is_released:
            self._is_released = True
            self.connection.close()
