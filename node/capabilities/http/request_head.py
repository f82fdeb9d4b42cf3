"""What of a request is decided before a connection is made: where it goes, and its first bytes."""

from __future__ import annotations

from dataclasses import dataclass

from lattice.errors import Invalid
from lattice.http import (
    FORBIDDEN_TRAILERS,
    Headers,
    HttpRequest,
    content_length,
    is_field_value,
    is_target,
    is_token,
    without,
)
from lattice.streams import ByteReceiver
from node.capabilities.http.errors import HttpError
from node.capabilities.http.fields import FORBIDDEN
from node.capabilities.http.policy import split_authority

PORTS = {"http": 80, "https": 443}

WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
"""Methods whose requests say `content-length: 0` where they have no body."""


_LENGTH = "content-length"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a request goes."""

    scheme: str
    host: str
    port: int

    @property
    def text(self) -> str:
        """Host and port, as in a URL."""
        return f"{self.host_text}:{self.port}"

    @property
    def host_text(self) -> str:
        """The host as in a URL: IPv6 addresses in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def authority(self) -> str:
        """The port only where it is not that of the scheme: the header `host`, and what to grant."""
        return self.host_text if self.port == PORTS[self.scheme] else self.text


def destination_of(request: HttpRequest) -> Destination:
    """Where the request goes; raises `HttpError` if it can't be sent anywhere."""
    if not is_token(request.method):
        raise HttpError("HTTP-request-method-invalid", reason=f"the method {request.method!r} can't be sent")
    if request.method == "CONNECT":  # a native host sends it and finds that the answer is no response
        raise HttpError("HTTP-protocol-error", reason="tunnels (`CONNECT`) are not supported")
    if request.scheme not in PORTS:
        raise HttpError("HTTP-protocol-error", reason=f"the scheme {request.scheme!r} is not supported")
    try:
        host, port = split_authority(request.authority, PORTS[request.scheme])
    except Invalid as error:
        raise HttpError("HTTP-request-URI-invalid", reason=error.message) from None
    return Destination(request.scheme, host, port)


class RequestHead:
    """The request as it goes over the wire: its first bytes, and how its body is framed."""

    def __init__(self, request: HttpRequest, destination: Destination) -> None:
        self.method = request.method
        self.body = request.body
        headers = without(request.headers, FORBIDDEN)
        self._check_fields(headers)
        self.length = _length(request, headers)
        self.is_chunked = not isinstance(request.body, bytes) and self.length is None
        self.data = self._encode(request, destination, headers)

    def _check_fields(self, headers: Headers) -> None:
        for name, value in headers:
            if not is_token(name) or not is_field_value(value):
                raise HttpError("HTTP-protocol-error", reason=f"the header field {name!r} is not valid")

    def _encode(self, request: HttpRequest, destination: Destination, headers: Headers) -> bytes:
        first = f"{request.method} {_target(request)} HTTP/1.1\r\nhost: {destination.authority}\r\n"
        lines = [first.encode()]
        lines += [
            b"%s: %s\r\n" % (name.encode(), value) for name, value in headers if name != "content-length"
        ]
        if self.is_chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        elif self.length or request.method in WITH_BODY or any(name == _LENGTH for name, _ in headers):
            lines.append(b"content-length: %d\r\n" % (self.length or 0))
        lines.append(b"\r\n")
        return b"".join(lines)


def _length(request: HttpRequest, headers: Headers) -> int | None:
    """The size of the body, None if it is not known; raises `HttpError` if it was announced wrongly."""
    try:
        announced = content_length(headers)
    except Invalid as error:
        raise HttpError("HTTP-protocol-error", reason=error.message) from None
    if not isinstance(request.body, bytes):
        return announced
    size = len(request.body)
    if announced not in (None, size):
        reason = f"the request announces {announced} bytes and has {size}"
        raise HttpError("HTTP-request-body-size", size, reason=reason)
    return size


def _target(request: HttpRequest) -> str:
    path = request.path or "/"
    if path.startswith("?"):
        path = f"/{path}"
    is_asterisk = path == "*" and request.method == "OPTIONS"
    if not (is_asterisk or path.startswith("/")) or not is_target(path) or "#" in path:
        raise HttpError("HTTP-request-URI-invalid", reason=f"{path[:100]!r} is not a path")
    return path


def trailer_lines(body: ByteReceiver) -> bytes:
    """What ends a chunked body: its trailers, without those that are not valid."""
    lines = []
    for name, value in body.trailers.items():
        data = value.encode("latin-1", "replace")
        if is_token(name) and name not in FORBIDDEN_TRAILERS and is_field_value(data):
            lines.append(b"%s: %s\r\n" % (name.encode(), data))
    return b"".join(lines)
