"""Handles requests with a component inside the shim: one call with one text for a request, in most cases.

handle --text--> pool.ask --text--> the response is whole: done, without a task
                    |
                    +--paused at the response's head: it streams
                    |     |--> the response, its body a pipe
                    |     +--> a task goes on with the guest, which fills the pipe
                    +--answered, and not over: the response is whole
                          |--> the response
                          +--> a task goes on with the guest, which can change nothing of that any more
"""

from __future__ import annotations

from collections.abc import Awaitable

import anyio
import structlog

from lattice.errors import Failed, Interrupted, LatticeError, Trapped
from lattice.http import HttpRequest, HttpResponse
from lattice.streams import ByteReceiver
from node.capabilities.http import shim_text
from node.capabilities.http.shim_host import EXCHANGE, ShimExchange
from node.capabilities.wasi.cli import Exited
from node.engine.host import CallContext
from node.engine.pool import ComponentPool, PausedCall
from node.engine.shim_compose import DOOR, DOOR_FUNCTION

log = structlog.get_logger()


class ShimHandler:
    """Implements `node.http.handler.HttpHandler`."""

    def __init__(self, pool: ComponentPool) -> None:
        self._pool = pool
        self._door = pool.text_export(DOOR, DOOR_FUNCTION)

    def handle(self, request: HttpRequest, context: CallContext) -> HttpResponse | Awaitable[HttpResponse]:
        """The response, when the guest has ended, or when it waits and the response has begun.

        Raises `HttpError` if the guest answered with an error code, `Trapped` if it ended without a response,
        or what `ComponentPool.call` raises. Cancelling ends the guest, and so does closing the stream early.
        """
        body = request.body
        if not isinstance(body, bytes):
            return self._receive(request, body, context)
        outcome = self._pool.ask(self._door, shim_text.request_text(request, body, has_more=False), context)
        return _whole(outcome) if isinstance(outcome, bytes) else self._finish(outcome)

    async def _receive(self, request: HttpRequest, body: ByteReceiver, context: CallContext) -> HttpResponse:
        """The guest reads the body while it comes."""
        exchange = ShimExchange()
        text = shim_text.request_text(request, b"", has_more=True)
        exchange.read_from(body, self._pool.start_soon)
        try:
            outcome = self._pool.ask(self._door, text, context, {EXCHANGE: exchange})
            answer = outcome if isinstance(outcome, bytes) else await outcome
            response = self._response(answer)
        except BaseException:
            exchange.close()
            raise
        if isinstance(answer, bytes):
            exchange.close()
        return response

    async def _finish(self, outcome: Awaitable[bytes | PausedCall]) -> HttpResponse:
        return self._response(await outcome)

    def _response(self, answer: bytes | PausedCall) -> HttpResponse:
        if isinstance(answer, bytes):
            return _whole(answer)
        if answer.answer is None:
            return self._stream(answer)
        self._pool.start_soon(self._outlast, answer)
        return _whole(answer.answer)

    async def _outlast(self, paused: PausedCall) -> None:
        """Drive a guest that has answered to its end, whatever that is: its client has the response."""
        try:
            await paused.go_on("")
        except Exited:
            pass
        except LatticeError as error:
            log.warning("http.failed-after-response", component=self._pool.name, error=error.message)
        except Exception as failure:
            log.error("http.handler-failed", component=self._pool.name, exc_info=failure)
        finally:
            exchange: ShimExchange | None = paused.state.get(EXCHANGE)
            if exchange is not None:
                exchange.close()

    def _stream(self, paused: PausedCall) -> HttpResponse:
        """The response, while the guest goes on in a task."""
        exchange: ShimExchange = paused.state[EXCHANGE]
        assert exchange.head is not None
        status, headers = exchange.head
        pipe = exchange.outputs[0]
        scope = anyio.CancelScope()
        pipe.on_abandoned = scope.cancel
        self._pool.start_soon(self._go_on, paused, exchange, scope)
        return HttpResponse(status=status, headers=headers, body=pipe)

    async def _go_on(self, paused: PausedCall, exchange: ShimExchange, scope: anyio.CancelScope) -> None:
        """Drive the guest to its end; what goes wrong is told to who receives the body."""
        error: LatticeError = Trapped(shim_text.UNFINISHED)
        try:
            with scope:
                shim_text.read_response(await paused.go_on(""))
            if scope.cancelled_caught:
                error = Interrupted("the request was given up")
        except LatticeError as failure:
            error = failure
        except Exception as failure:
            log.error("http.handler-failed", component=self._pool.name, exc_info=failure)
            error = Failed("the handler failed; the log has more")
        finally:
            exchange.close()
            self._cut(exchange, error)

    def _cut(self, exchange: ShimExchange, error: LatticeError) -> None:
        pipe = exchange.outputs[0]
        if not pipe.is_over:
            log.warning("http.response-cut", component=self._pool.name, error=error.message)
            pipe.fail(error)


def _whole(answer: bytes) -> HttpResponse:
    response = shim_text.read_response(answer)
    if response is None:
        raise Failed("the shim gave no response although none has left")
    return response
