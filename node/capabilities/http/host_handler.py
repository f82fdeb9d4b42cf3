"""Handles requests with a component that exports `wasi:http/incoming-handler`, all of it by host functions.

This is the reference for every other way of doing so, and what serves components that none of those can.

    handle --start--> guest's task: pool.call(handle, request, outparam)
      |                   | response-outparam.set
      |<------------------+
      | the response, its body streaming     | the guest goes on writing, or does what it still has to do
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import anyio
import structlog

from lattice.errors import Failed, Interrupted, LatticeError, NotFound, Trapped
from lattice.http import (
    HOP_BY_HOP,
    INLINE_BYTES,
    Body,
    Headers,
    HttpRequest,
    HttpResponse,
    content_length,
    has_body,
    without,
)
from lattice.tasks import open_tasks, own_task
from node.capabilities.http.errors import HttpError
from node.capabilities.http.incoming_body import BodyBuffer
from node.capabilities.http.messages import IncomingRequest, OutgoingResponse
from node.capabilities.http.response_outparam import ResponseOutparam
from node.engine.host import CallContext
from node.engine.linker import compatible_name
from node.engine.pool import ComponentPool

log = structlog.get_logger()

INTERFACE = "wasi:http/incoming-handler@0.2.0"


def make_host_handler(pool: ComponentPool) -> HostHandler:
    """A handler over the pool; raises `NotFound` if its component does not export the interface."""
    for name in pool.exports:
        if compatible_name(name) == compatible_name(INTERFACE):
            return HostHandler(pool, name)
    raise NotFound(f"{pool.name} does not export `{INTERFACE}`, so it can't answer HTTP requests")


class HostHandler:
    """Implements `node.http.handler.HttpHandler`."""

    def __init__(self, pool: ComponentPool, interface: str) -> None:
        self._pool = pool
        self._interface = interface

    async def handle(self, request: HttpRequest, context: CallContext) -> HttpResponse:
        """The response as soon as the guest has set it; a body that is not complete by then is a stream.

        Raises `HttpError` if the guest answered with an error code, `Trapped` if it ended without a response,
        or what `ComponentPool.call` raises. Cancelling ends the guest, and so does closing the stream early.
        """
        await own_task()
        exchange = _Exchange(self._pool, self._interface, request, context)
        self._pool.start_soon(exchange.run)
        try:
            return await exchange.response()
        except BaseException:
            exchange.cancel()
            raise


class _Exchange:
    """One request while its guest runs."""

    # The mutable state: the outparam, and the scope that the guest's task runs in.

    def __init__(
        self, pool: ComponentPool, interface: str, request: HttpRequest, context: CallContext
    ) -> None:
        self._pool = pool
        self._interface = interface
        self._request = request
        self._context = context
        self._outparam = ResponseOutparam()
        self._scope = anyio.CancelScope()

    def cancel(self) -> None:
        """End the guest wherever it is."""
        self._scope.cancel()

    async def run(self) -> None:
        """The guest's task; what goes wrong in it is told to who waits for the response or its body."""
        error: LatticeError | None = None
        try:
            with self._scope:
                await self._call()
            if self._scope.cancelled_caught:
                error = Interrupted("the request was given up")
        except LatticeError as failure:
            error = failure
        except Exception as failure:
            error = _unexpected(self._pool.name, failure)
        finally:
            self._end(error)

    async def _call(self) -> None:
        body = self._request.body
        buffer = BodyBuffer(body) if isinstance(body, bytes) else BodyBuffer(is_complete=False)
        arguments = [self._incoming(buffer), self._outparam]
        async with open_tasks() as tasks:
            if not isinstance(body, bytes):
                tasks.start_soon(buffer.pump, body)
            await self._guest(arguments)
            tasks.cancel_scope.cancel()

    async def _guest(self, arguments: Sequence[object]) -> None:
        try:
            await self._pool.call(self._interface, "handle", arguments, self._context, takes_objects=True)
        except LatticeError as error:
            # At once, before whoever receives the body sees only that the guest let go of it.
            if self._outparam.response is not None:
                self._outparam.response.pipe.explain(error)
            raise

    def _incoming(self, body: BodyBuffer) -> IncomingRequest:
        request = self._request
        return IncomingRequest(
            method=request.method,
            scheme=request.scheme,
            authority=request.authority,
            path=request.path,
            headers=request.headers,
            body=body,
        )

    def _end(self, error: LatticeError | None) -> None:
        """The guest has ended: what it has not set or not finished never will be."""
        response = self._outparam.response
        if response is None:
            self._outparam.refuse(error or Trapped("the component ended without setting a response"))
        else:
            reason = "the component ended before it had finished the body of its response"
            response.pipe.fail(error or Trapped(reason))

    async def response(self) -> HttpResponse:
        """Wait for the guest's response."""
        response = await self._outparam.wait()
        pipe = response.pipe
        pipe.on_abandoned = self.cancel
        body: Body = pipe
        trailers: Headers = ()
        if pipe.is_finished and pipe.size <= INLINE_BYTES:
            trailers = tuple((name, value.encode("latin-1")) for name, value in pipe.trailers.items())
            body = pipe.take_all()
            self._check_length(response, len(body))
        headers = without(response.headers.headers(), HOP_BY_HOP)
        return HttpResponse(status=response.status, headers=headers, body=body, trailers=trailers)

    def _check_length(self, response: OutgoingResponse, size: int) -> None:
        """A guest may announce a length and never ask for the body: that fits only where there is none."""
        announced = content_length(response.headers.headers())
        if announced not in (None, size) and has_body(self._request.method, response.status):
            reason = f"the component announced a body of {announced} bytes and wrote {size}"
            raise HttpError("HTTP-response-body-size", size, reason=reason)


def _unexpected(component: str, error: Exception) -> Failed:
    error_id = uuid.uuid4().hex[:12]
    log.error("http.handler-failed", component=component, error_id=error_id, exc_info=error)
    return Failed(f"the handler failed; the log has more under {error_id}", error_id=error_id)
