"""Requests and responses as the resources of `wasi:http/types`: plain objects that know no wasm."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from lattice.errors import Invalid
from lattice.http import Headers, content_length, is_authority, is_target, is_token
from node.capabilities.http.allowance import Allowance
from node.capabilities.http.fields import Fields
from node.capabilities.http.incoming_body import BodyBuffer, IncomingBody
from node.capabilities.http.outgoing_body import BodyPipe, OutgoingBody

METHODS = ("get", "head", "post", "put", "delete", "connect", "options", "trace", "patch")
"""Those that have a case of their own; in lower case there, in upper case on the wire."""

_METHOD_CASES: Mapping[str, str] = {case.upper(): case for case in METHODS}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+\-.]*")

Method = dict[str, Any]
Scheme = dict[str, Any]


def method_value(method: str) -> Method:
    """The variant `method`."""
    case = _METHOD_CASES.get(method)
    return {"other": method} if case is None else {case: None}


def method_text(method: Method) -> str:
    """The method as in a request line."""
    ((case, other),) = method.items()
    return str(other) if case == "other" else case.upper()


def scheme_value(scheme: str) -> Scheme:
    """The variant `scheme`."""
    if scheme in ("http", "https"):
        return {scheme.upper(): None}
    return {"other": scheme}


def scheme_text(scheme: Scheme) -> str:
    """The scheme as in a URL."""
    ((case, other),) = scheme.items()
    return str(other if case == "other" else case).lower()


class IncomingRequest:
    """The resource `incoming-request`."""

    def __init__(
        self,
        *,
        method: str,
        scheme: str,
        authority: str,
        path: str,
        headers: Headers,
        body: BodyBuffer,
    ) -> None:
        self.method = method_value(method)
        self.scheme = scheme_value(scheme)
        self.authority = authority or None
        self.path = path or None
        self.headers = Fields.received(headers)
        self._body: IncomingBody | None = IncomingBody(body)

    def consume(self) -> IncomingBody | None:
        """The body, once."""
        body, self._body = self._body, None
        return body


class IncomingResponse:
    """The resource `incoming-response`."""

    def __init__(
        self, status: int, headers: Fields, body: BodyBuffer, on_close: Callable[[], None] | None = None
    ) -> None:
        """`on_close` is called when nobody wants the body any more."""
        self.status = status
        self.headers = headers
        self._on_close = on_close
        self._body: IncomingBody | None = IncomingBody(body, on_close)

    def consume(self) -> IncomingBody | None:
        """The body, once."""
        body, self._body = self._body, None
        return body

    def close(self) -> None:
        """The guest dropped it; a body that was taken lives on."""
        if self._body is not None and self._on_close is not None:
            self._on_close()


class _Outgoing:
    """What requests and responses share: headers that can't be changed any more, and one body."""

    _size_error: str

    def __init__(self, headers: Fields, allowance: Allowance | None = None) -> None:
        self.headers = headers.freeze()
        self._allowance = allowance
        self._pipe: BodyPipe | None = None

    def body(self) -> OutgoingBody | None:
        """The body, once; none either if `content-length` is not a number."""
        if self._pipe is not None:
            return None
        try:
            length = content_length(self.headers.headers())
        except Invalid:
            return None
        self._pipe = BodyPipe(self._allowance)
        return OutgoingBody(self._pipe, length, self._size_error)

    @property
    def pipe(self) -> BodyPipe:
        """Where the body comes from; one that was never asked for is empty."""
        if self._pipe is None:
            self._pipe = BodyPipe()
            self._pipe.finish()
        return self._pipe

    def close(self) -> None:
        """The guest dropped it unsent: nobody will read its body."""
        if self._pipe is not None:
            self._pipe.close()


class OutgoingRequest(_Outgoing):
    """The resource `outgoing-request`."""

    _size_error = "HTTP-request-body-size"

    def __init__(self, headers: Fields, allowance: Allowance | None = None) -> None:
        super().__init__(headers, allowance)
        self.method: Method = {"get": None}
        self.scheme: Scheme | None = None
        self.authority: str | None = None
        self.path: str | None = None

    def set_method(self, method: Method) -> bool:
        """False, and no change, if it is not a method."""
        if not is_token(method_text(method)):
            return False
        self.method = method
        return True

    def set_scheme(self, scheme: Scheme | None) -> bool:
        """False, and no change, if it is not a scheme."""
        if scheme is not None and not _SCHEME.fullmatch(scheme_text(scheme)):
            return False
        self.scheme = scheme
        return True

    def set_authority(self, authority: str | None) -> bool:
        """False, and no change, if it is not a host and a port; names of users are refused too."""
        if authority is not None and not is_valid_authority(authority):
            return False
        self.authority = authority
        return True

    def set_path(self, path: str | None) -> bool:
        """False, and no change, if it is not the path and query of a URL."""
        if path and (not is_target(path) or "#" in path):
            return False
        self.path = path
        return True


class OutgoingResponse(_Outgoing):
    """The resource `outgoing-response`."""

    _size_error = "HTTP-response-body-size"

    def __init__(self, headers: Fields, allowance: Allowance | None = None) -> None:
        super().__init__(headers, allowance)
        self.status = 200

    def set_status(self, status: int) -> bool:
        """False, and no change, unless it has three digits."""
        if not 100 <= status <= 999:
            return False
        self.status = status
        return True


class TimeoutOptions:
    """The resource `request-options`; all in nanoseconds, as the interface has them."""

    def __init__(self) -> None:
        self.connect: int | None = None
        self.first_byte: int | None = None
        self.between_bytes: int | None = None


def is_valid_authority(authority: str) -> bool:
    """Whether it is a host, or a host and a port that exists."""
    host, _, port = authority.rpartition(":")
    if not is_authority(authority):
        return False
    has_port = bool(host) and not authority.endswith("]")
    return not has_port or (port.isdigit() and int(port) < 65536)
