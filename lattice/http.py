"""Requests and responses of HTTP as values, and which header fields are valid.

The same values travel from a listener to a component, over the lattice to another node, and from a component
to the network. Everything here is pure; who receives bytes from outside checks them before it makes values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from lattice.errors import Invalid
from lattice.plain import maker, plain

if TYPE_CHECKING:
    from lattice.streams import ByteReceiver

Headers: TypeAlias = tuple[tuple[str, bytes], ...]
"""Header fields in their order; names in lower case, one entry for each line."""

Body: TypeAlias = "bytes | ByteReceiver"
"""A body that is all here, or its stream; trailers are those of the stream."""

INLINE_BYTES = 64 * 1024
"""Bodies up to this size are held whole; larger ones, and those of unknown length, are streams."""

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    }
)
"""Fields that belong to a connection: they neither reach a component nor leave one."""

FORBIDDEN_TRAILERS = HOP_BY_HOP | {
    "content-length",
    "host",
    "authorization",
    "content-encoding",
    "content-type",
    "content-range",
    "cookie",
    "set-cookie",
}
"""Fields that would change how a message is read, so they must not come behind its body."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(r"[\x21-\x7e\x80-\U0010ffff]+")
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9\-._~%!$&'()*+,;=]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


@plain
class HttpRequest:
    """A request as a component sees it."""

    method: str
    scheme: str
    authority: str
    path: str
    """With the query."""
    headers: Headers = ()
    """Without `host`, which is the authority, and without those of the connection."""
    body: Body = b""


@plain
class HttpResponse:
    """A response as a component gave it. Whoever holds one whose body is a stream closes that stream."""

    status: int
    headers: Headers = ()
    body: Body = b""
    trailers: Headers = ()
    """Behind a body that is all here; a stream has its own."""


make_http_request = maker(HttpRequest)
make_http_response = maker(HttpResponse)


def is_token(text: str) -> bool:
    """Whether the text may be a method or the name of a header field."""
    return _TOKEN.fullmatch(text) is not None


def is_field_value(value: bytes) -> bool:
    """Whether the bytes may be a header field's value: no control characters, so no end of a line."""
    return _VALUE.fullmatch(value) is not None


def is_target(text: str) -> bool:
    """Whether the text may stand in a request line: not empty, no blanks, no control characters."""
    return _TARGET.fullmatch(text) is not None


def is_authority(text: str) -> bool:
    """Whether the text is a host, or a host and a port."""
    return _AUTHORITY.fullmatch(text) is not None


def first(headers: Headers, name: str) -> bytes | None:
    """The value of the first field of that (lower case) name."""
    for key, value in headers:
        if key == name:
            return value
    return None


def without(headers: Headers, names: frozenset[str]) -> Headers:
    """The fields whose names are not among `names`."""
    return tuple(item for item in headers if item[0] not in names)


def as_trailers(fields: Iterable[tuple[str, bytes]]) -> Mapping[str, str]:
    """Trailers as byte streams carry them: one text for each name, with all of its values."""
    found: dict[str, str] = {}
    for name, value in fields:
        text = value.decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def content_length(headers: Headers) -> int | None:
    """What the headers say of the body's size; raises `Invalid` unless they say one thing in plain digits."""
    values = {value for name, value in headers if name == "content-length"}
    if not values:
        return None
    value = values.pop()
    if values or not value.isdigit() or len(value) > 18:
        raise Invalid("`content-length` must be one number in digits")
    return int(value)


def has_body(method: str, status: int) -> bool:
    """Whether a response of this status to this method may carry a body."""
    return method != "HEAD" and status >= 200 and status not in (204, 304)
