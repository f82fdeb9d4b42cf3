"""Failures as HTTP sees them: which status, and what the body says. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from lattice.errors import (
    Denied,
    Failed,
    Interrupted,
    Invalid,
    LatticeError,
    NotFound,
    Overloaded,
    TimedOut,
    Trapped,
    Unreachable,
)
from lattice.http import Headers, HttpResponse, first

STATUS: Mapping[type[LatticeError], int] = {
    Unreachable: 503,
    Overloaded: 503,
    TimedOut: 504,
    Interrupted: 502,
    Trapped: 502,
    Invalid: 502,
    Denied: 502,
    NotFound: 502,
    Failed: 502,
}
"""Of a component's failure. Only what surely was not begun is 503: a client may repeat it at once."""


class Refusal(Exception):
    """Raised for a request that the listener itself answers, with a status and a reason for its client.

    Whatever follows on the connection can't be trusted to be a request, so it is closed.
    """

    def __init__(self, status: int, reason: str, *, code: str = "invalid") -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What a client is told of a request that had no response of its own."""

    status: int
    code: str
    message: str
    component: str | None = None
    error_id: str | None = None


def of_component(error: LatticeError, component: str | None, error_id: str) -> Failure:
    """What to say of an error that came instead of the component's response."""
    return Failure(
        status=STATUS.get(type(error), 502),
        code=error.code,
        message=error.message,
        component=component,
        error_id=error_id,
    )


def of_refusal(refusal: Refusal) -> Failure:
    """What to say of a request that went no further than the listener."""
    return Failure(status=refusal.status, code=refusal.code, message=refusal.reason)


def response(failure: Failure, request_headers: Headers = ()) -> HttpResponse:
    """As JSON where the client accepts it by name, else as text."""
    is_json = b"json" in (first(request_headers, "accept") or b"")
    body = _json(failure) if is_json else _text(failure)
    kind = b"application/json" if is_json else b"text/plain; charset=utf-8"
    headers: Headers = (("content-type", kind), ("cache-control", b"no-store"))
    if failure.status == 503:
        headers += (("retry-after", b"1"),)
    return HttpResponse(status=failure.status, headers=headers, body=body)


def _json(failure: Failure) -> bytes:
    fields = {
        "status": failure.status,
        "code": failure.code,
        "message": failure.message,
        "component": failure.component,
        "error_id": failure.error_id,
    }
    return json.dumps({"error": {key: value for key, value in fields.items() if value is not None}}).encode()


def _text(failure: Failure) -> bytes:
    lines = [
        f"{failure.status} {HTTPStatus(failure.status).phrase}",
        "",
        f"{failure.code}: {failure.message}",
    ]
    if failure.component:
        lines.append(f"component: {failure.component}")
    if failure.error_id:
        lines.append(f"error id: {failure.error_id}")
    return "\n".join(lines).encode(errors="replace") + b"\n"
