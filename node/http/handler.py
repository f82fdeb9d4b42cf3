"""What answers HTTP requests: a component of this node, or the way to one on another node."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from lattice.http import HttpRequest, HttpResponse
from node.engine.host import CallContext


class HttpHandler(Protocol):
    """Answers requests."""

    def handle(self, request: HttpRequest, context: CallContext) -> HttpResponse | Awaitable[HttpResponse]:
        """The response, as soon as its head is known, or what is awaited for it at once.

        Raises `LatticeError`.

        May be begun without a task: what needs one awaits `lattice.tasks.own_task` first. Cancelling it, or
        closing the body of its response before the end, ends the guest's call.
        """


async def response_of(handler: HttpHandler, request: HttpRequest, context: CallContext) -> HttpResponse:
    """The response, for callers that may wait."""
    outcome = handler.handle(request, context)
    return outcome if isinstance(outcome, HttpResponse) else await outcome
