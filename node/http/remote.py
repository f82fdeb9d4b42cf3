"""HTTP over the lattice: both ends of a request that goes to a replica on another node.

A request is a call of `handle` with `[method, scheme, authority, path, headers, body]`, its result
`[status, headers, body, trailers]`. Bodies that are all here travel in these values, others as the byte
streams beside the call: `lattice.exchange`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lattice.caller import Caller, CallRequest
from lattice.errors import Failed, Invalid
from lattice.exchange import Exchange
from lattice.http import Headers, HttpRequest, HttpResponse, make_http_request, make_http_response
from lattice.streams import ByteReceiver
from node.http.handler import HttpHandler

INTERFACE = "wasi:http/incoming-handler"
FUNCTION = "handle"


async def send(caller: Caller, call: CallRequest, request: HttpRequest) -> HttpResponse:
    """Ask a replica that runs anywhere; raises any `LatticeError`.

    The body of the request is the caller's from here. What nobody has begun is asked of another replica.
    """
    inline, body = (request.body, None) if isinstance(request.body, bytes) else (b"", request.body)
    args = [request.method, request.scheme, request.authority, request.path, request.headers, inline]
    exchange = await caller.exchange(call, args, body)
    try:
        status, headers, whole, trailers = _response(exchange.value)
    except Invalid as error:
        await exchange.aclose()
        raise Failed(f"{call.component!r} answered with no HTTP response: {error.message}") from error
    answer = whole if exchange.body is None else exchange.body
    return make_http_response(status=status, headers=headers, body=answer, trailers=trailers)


async def serve(
    handler: HttpHandler,
    request: CallRequest,
    args: Sequence[Any] | Mapping[str, Any],
    body: ByteReceiver | None,
) -> Exchange:
    """Answer a request that came over the lattice by a handler of this node; an `ExchangeTarget.exchange`."""
    try:
        outcome = handler.handle(_request(args, body), request)
        response = outcome if isinstance(outcome, HttpResponse) else await outcome
    except BaseException:
        if body is not None:
            await body.aclose()
        raise
    if isinstance(response.body, bytes):
        if body is not None:
            await body.aclose()
        return Exchange([response.status, response.headers, response.body, response.trailers])
    return Exchange([response.status, response.headers, b"", ()], response.body)


def _request(args: Sequence[Any] | Mapping[str, Any], body: ByteReceiver | None) -> HttpRequest:
    """Of another node's making, but by the same rules as a client's."""
    if args.__class__ not in (list, tuple) or len(args) < 6:
        raise Invalid("arguments must be method, scheme, authority, path, headers and body")
    method, scheme, authority, path, headers, inline = args[:6]
    if not (
        method.__class__ is str
        and scheme.__class__ is str
        and authority.__class__ is str
        and path.__class__ is str
    ):
        raise Invalid("method, scheme, authority and path must be strings")
    return make_http_request(
        method=method,
        scheme=scheme,
        authority=authority,
        path=path,
        headers=_headers(headers),
        body=_bytes(inline) if body is None else body,
    )


def _response(value: Any) -> tuple[int, Headers, bytes, Headers]:
    if not isinstance(value, (list, tuple)) or len(value) < 3 or not isinstance(value[0], int):
        raise Invalid("the result must be status, headers and body")
    return value[0], _headers(value[1]), _bytes(value[2]), _headers(value[3]) if len(value) > 3 else ()


def _headers(value: Any) -> Headers:
    found = []
    try:
        for name, content in value:
            if name.__class__ is not str or content.__class__ is not bytes:
                raise TypeError
            found.append((name, content))
    except (TypeError, ValueError):
        raise Invalid("headers must be pairs of name and value") from None
    return tuple(found)


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise Invalid("a body must be bytes")
    return value
