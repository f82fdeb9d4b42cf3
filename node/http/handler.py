"""What answers HTTP requests: a component of this node, or the way to one on another node."""

from __future__ import annotations

from typing import Protocol

from lattice.http import HttpRequest, HttpResponse
from node.engine.host import CallContext


class HttpHandler(Protocol):
    """Answers requests."""

    async def handle(self, request: HttpRequest, context: CallContext) -> HttpResponse:
        """The response, as soon as its head is known; raises any `LatticeError`.

        May be begun without a task: what needs one awaits `lattice.tasks.own_task` first. Cancelling it, or
        closing the body of its response before the end, ends the guest's call.
        """
