"""`/livez` and `/readyz` for whoever watches the node: load balancers, supervisors, orchestrators."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from lattice.errors import LatticeError
from lattice.http import HttpRequest, HttpResponse
from node.http import failures

Reasons = Callable[[], Mapping[str, str]]
"""What keeps the node from being ready, by part; empty when it is."""


class Admin:
    """Implements `node.http.site.Responder`; holds no state.

    `/livez` is answered as long as the event loop turns: a node that has lost its server is alive, and finds
    it again by itself. `/readyz` says whether requests should be sent here.
    """

    def __init__(self, reasons: Reasons) -> None:
        self._reasons = reasons

    async def answer(self, request: HttpRequest, traceparent: str) -> HttpResponse:
        """The state as JSON."""
        path = request.path.partition("?")[0]
        if request.method not in ("GET", "HEAD"):
            return _json(405, {"error": "use GET"})
        if path == "/livez":
            return _json(200, {"live": True})
        if path == "/readyz":
            reasons = dict(self._reasons())
            return _json(503 if reasons else 200, {"ready": not reasons, "reasons": reasons})
        return _json(404, {"error": "there are /livez and /readyz"})

    def failed(self, request: HttpRequest, error: LatticeError) -> HttpResponse:
        """None of the answers can fail."""
        return failures.response(failures.of_component(error, None, ""), request.headers)

    def broke_off(self, request: HttpRequest, error: LatticeError) -> None:
        """A client that left early is no news."""


def _json(status: int, body: Mapping[str, object]) -> HttpResponse:
    headers = (("content-type", b"application/json"), ("cache-control", b"no-store"))
    return HttpResponse(status=status, headers=headers, body=json.dumps(body).encode() + b"\n")
