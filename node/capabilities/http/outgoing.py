"""`wasi:http/outgoing-handler`: requests of guests, made by the node's client while the guest goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import structlog

from lattice.errors import LatticeError
from lattice.http import INLINE_BYTES, Body, Headers, HttpRequest, HttpResponse
from node.capabilities.http.allowance import Allowance, allowance_of
from node.capabilities.http.client import HttpClient, RequestOptions
from node.capabilities.http.errors import HttpError, from_lattice
from node.capabilities.http.fields import Fields
from node.capabilities.http.incoming_body import BodyBuffer
from node.capabilities.http.messages import (
    IncomingResponse,
    OutgoingRequest,
    TimeoutOptions,
    method_text,
    scheme_text,
)
from node.capabilities.http.outgoing_body import BodyPipe
from node.capabilities.http.policy import OutgoingPolicy
from node.capabilities.wasi.pollables import Disarm, Signal, Watched
from node.engine.host import GuestCall, HostInterface

log = structlog.get_logger()

MAX_REQUESTS = 128
"""Requests that one call of a guest may have under way."""

_BY_FUTURE = frozenset({"HTTP-request-denied", "connection-limit-reached"})
"""What a native host finds out while it sends, if at all: some guests break when `handle` itself says so."""

_IN_FLIGHT = "wasi:http/in-flight"

PolicyOf = Callable[[GuestCall], OutgoingPolicy]
"""What the component that is being called may reach, as of now."""


class FutureResponse(Watched):
    """The resource `future-incoming-response`; also the source that its pollables wait for."""

    # The mutable state: the outcome, whether it was taken, and the scope that the request runs in.

    def __init__(self, allowance: Allowance) -> None:
        super().__init__()
        self._allowance = allowance
        self._outcome: Any = None
        self._was_taken = False
        self._changed = Signal()
        self._scope = anyio.CancelScope()

    def is_ready(self) -> bool:
        return self._outcome is not None

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return self._changed.arm(wake)

    def get(self) -> Any:
        """The WIT value: nothing yet, the response or an error once, an error of its own ever after."""
        if self._outcome is None:
            return None
        if self._was_taken:
            return {"err": None}
        self._was_taken = True
        return {"ok": self._outcome}

    def close(self) -> None:
        """The guest dropped it; a response that was taken lives on."""
        if not self._was_taken:
            self.cancel()
        self.check_unwatched("a future-incoming-response")

    def cancel(self) -> None:
        """Give the request up, or what is left of the response."""
        self._scope.cancel()

    def refuse(self, error: HttpError) -> None:
        """There will be no response."""
        self._settle({"err": error.error_code})

    async def run(
        self,
        client: HttpClient,
        request: HttpRequest,
        options: RequestOptions,
        policy: OutgoingPolicy,
        component: str,
    ) -> None:
        """Make the request, and pass on the response's body until it ends or nobody wants it."""
        with self._scope:
            try:
                response = await client.send(request, options, policy, component=component)
                await self._pass_on(response)
            except LatticeError as error:
                self.refuse(from_lattice(error))
            except Exception:  # it must not end the requests of others
                log.exception("http.request-failed", component=component)
                self._settle({"err": {"internal-error": "the host failed"}})

    async def _pass_on(self, response: HttpResponse) -> None:
        body, allowance = response.body, self._allowance
        if isinstance(body, bytes):
            trailers = Fields.received(response.trailers, allowance) if response.trailers else None
            buffer = BodyBuffer(body, trailers, allowance=allowance)
            self._respond(response, buffer, None)
            return
        async with body:
            buffer = BodyBuffer(is_complete=False, allowance=allowance)
            self._respond(response, buffer, self.cancel)
            await buffer.pump(body)

    def _respond(
        self, response: HttpResponse, buffer: BodyBuffer, on_close: Callable[[], None] | None
    ) -> None:
        headers = Fields.received(response.headers, self._allowance)
        self._settle({"ok": IncomingResponse(response.status, headers, buffer, on_close)})

    def _settle(self, outcome: Any) -> None:
        if self._outcome is None:
            self._outcome = outcome
        self._changed.notify()


def outgoing_interface(client: HttpClient, policy_of: PolicyOf, version: str) -> HostInterface:
    """The interface, made for one node's client."""

    def handle(call: GuestCall, request: OutgoingRequest, options: TimeoutOptions | None) -> Any:
        try:
            return {"ok": _start(client, policy_of(call), call, request, options)}
        except HttpError as error:
            request.close()
            return {"err": error.error_code}

    return HostInterface(name=f"wasi:http/outgoing-handler@{version}", functions={"handle": handle})


def _start(
    client: HttpClient,
    policy: OutgoingPolicy,
    call: GuestCall,
    request: OutgoingRequest,
    options: TimeoutOptions | None,
) -> FutureResponse:
    sent = _request(call, request)
    in_flight = _in_flight(call)
    future = FutureResponse(allowance_of(call.instance))
    try:
        client.check(sent, policy, component=call.component)
        _check_limit(in_flight)
    except HttpError as error:
        if error.case not in _BY_FUTURE:
            raise
        request.close()
        future.refuse(error)
        return future
    in_flight.add(future)

    async def run() -> None:
        try:
            await future.run(client, _as_it_stands(sent), _options(options), policy, call.component)
        finally:
            in_flight.discard(future)

    client.tasks.start_soon(run)
    return future


def _check_limit(in_flight: set[FutureResponse]) -> None:
    if len(in_flight) >= MAX_REQUESTS:
        reason = f"the component has {MAX_REQUESTS} requests under way"
        raise HttpError("connection-limit-reached", reason=reason)


def _in_flight(call: GuestCall) -> set[FutureResponse]:
    """The requests of this call, none of which outlives it."""
    known: tuple[GuestCall, set[FutureResponse]] | None = call.instance.state.get(_IN_FLIGHT)
    if known is not None and known[0] is call:
        return known[1]
    in_flight: set[FutureResponse] = set()

    def cancel() -> None:
        for future in tuple(in_flight):
            future.cancel()

    call.at_end(cancel)
    call.instance.state[_IN_FLIGHT] = (call, in_flight)
    return in_flight


def _request(call: GuestCall, request: OutgoingRequest) -> HttpRequest:
    if request.path is None:
        raise HttpError("HTTP-request-URI-invalid", reason="the component set no path-with-query")
    return HttpRequest(
        method=method_text(request.method),
        scheme=scheme_text(request.scheme) if request.scheme else "https",
        authority=request.authority or "",
        path=request.path or "/",
        headers=_traced(request.headers.headers(), call.context.traceparent),
        body=_body(request),
    )


def _traced(headers: Headers, traceparent: str | None) -> Headers:
    """With the trace of the call that the guest is in, unless the guest traces by itself."""
    if traceparent is None or any(name == "traceparent" for name, _ in headers):
        return headers
    return (*headers, ("traceparent", traceparent.encode()))


def _as_it_stands(request: HttpRequest) -> HttpRequest:
    """The request, whole if its guest finished it before it waited: an empty body shall not look like one."""
    if not isinstance(request.body, BodyPipe):
        return request
    return replace(request, body=_whole(request.body))


def _body(request: OutgoingRequest) -> Body:
    return _whole(request.pipe)


def _whole(pipe: BodyPipe) -> Body:
    if pipe.is_finished and not pipe.trailers and pipe.size <= INLINE_BYTES:
        return pipe.take_all()
    return pipe


def _options(options: TimeoutOptions | None) -> RequestOptions:
    if options is None:
        return RequestOptions()
    return RequestOptions(
        connect_timeout=_seconds(options.connect),
        first_byte_timeout=_seconds(options.first_byte),
        between_bytes_timeout=_seconds(options.between_bytes),
    )


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9
