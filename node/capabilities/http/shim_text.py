"""What the shim and its host say to each other: texts of lines, pure. The other end is shim/*.c.

The border is made of UTF-8. Bytes that are none are packed into text, which both ends do sixteen and more at
a time: many times faster than the conversions between Latin-1 and UTF-8 on the way.
"""

from __future__ import annotations

from collections.abc import Mapping

from lattice.errors import Failed, Invalid, LatticeError, Trapped
from lattice.http import Headers, HttpRequest, HttpResponse, as_trailers, make_http_response
from node.capabilities.http.errors import HttpError
from node.engine.packing import pack, unpack

CASES = (
    "DNS-timeout", "DNS-error", "destination-not-found", "destination-unavailable",
    "destination-IP-prohibited", "destination-IP-unroutable", "connection-refused", "connection-terminated",
    "connection-timeout", "connection-read-timeout", "connection-write-timeout", "connection-limit-reached",
    "TLS-protocol-error", "TLS-certificate-error", "TLS-alert-received", "HTTP-request-denied",
    "HTTP-request-length-required", "HTTP-request-body-size", "HTTP-request-method-invalid",
    "HTTP-request-URI-invalid", "HTTP-request-URI-too-long", "HTTP-request-header-section-size",
    "HTTP-request-header-size", "HTTP-request-trailer-section-size", "HTTP-request-trailer-size",
    "HTTP-response-incomplete", "HTTP-response-header-section-size", "HTTP-response-header-size",
    "HTTP-response-body-size", "HTTP-response-trailer-section-size", "HTTP-response-trailer-size",
    "HTTP-response-transfer-coding", "HTTP-response-content-coding", "HTTP-response-timeout",
    "HTTP-upgrade-failed", "HTTP-protocol-error", "loop-detected", "configuration-error", "internal-error",
)  # fmt: skip
"""Of `wasi:http/types.error-code`, in their order."""

NO_RESPONSE = "the component ended without setting a response"
UNFINISHED = "the component ended before it had finished the body of its response"


def request_text(request: HttpRequest, body: bytes, *, has_more: bool, seed: str = "") -> bytes:
    """What `begin` takes; raises `Invalid` for a request that is not made of lines."""
    parts = [
        request.method.encode(),
        request.scheme.encode(),
        request.authority.encode(),
        request.path.encode(),
        *[(_known_names.get(name) or _learn(name)) + value for name, value in request.headers],
    ]
    head = b"\n".join(parts)
    if head.count(b"\n") != len(parts) - 1:
        raise Invalid("the request has an end of line where none may be")
    text = b"%b\n\n%b" % (head, body)
    flags = "+" if has_more else ""
    if is_text(text):
        return b"=%b\n%b" % (f"{flags}{seed}".encode(), text)
    return b"x%b\n%b" % (f"{flags}{seed}".encode(), pack(text))


_MAX_KNOWN_NAMES = 1024
_known_names: dict[str, bytes] = {}


def _learn(name: str) -> bytes:
    """`name:` as bytes. Few names are in use, so each is encoded once; bounded, for the others."""
    if len(_known_names) >= _MAX_KNOWN_NAMES:
        _known_names.clear()
    line = _known_names[name] = name.encode() + b":"
    return line


def is_text(data: bytes) -> bool:
    """Whether bytes are UTF-8."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def read_response(text: bytes) -> HttpResponse | None:
    """What `end` gave; None if the response has left already. Raises `HttpError` or `Trapped`."""
    tag = text[0]
    if tag == 0x78:  # x
        text = b"=" + unpack(text[1:])
    elif tag != 0x3D:  # =
        _check(text)
        return None
    head, _, rest = text.partition(b"\n\n")
    status, headers = _known_heads.get(head) or _read_head(head)
    if rest[:1] == b"\n":
        return make_http_response(status=status, headers=headers, body=rest[1:])
    trailers, body = take_fields(rest)
    return make_http_response(status=status, headers=headers, body=body, trailers=trailers)


_MAX_KNOWN_HEADS = 512
_MAX_KNOWN_BYTES = 1024
_known_heads: dict[bytes, tuple[int, Headers]] = {}


def _read_head(head: bytes) -> tuple[int, Headers]:
    """Status and fields, remembered if short: a component answers with the same few again and again."""
    status, *lines = head.split(b"\n")
    read = int(status[1:]), read_fields(lines)
    if len(head) <= _MAX_KNOWN_BYTES:
        if len(_known_heads) >= _MAX_KNOWN_HEADS:
            _known_heads.clear()
        _known_heads[head] = read
    return read


def _check(text: bytes) -> None:
    """Raise why there is no response, unless it has left."""
    match text[:1]:
        case b".":
            return
        case b"!":
            raise read_error(text[1:].decode())
        case b"~":
            raise Trapped(UNFINISHED)
        case b"-":
            raise Trapped(NO_RESPONSE)
    raise Failed("the shim gave an answer that is none")


def read_fields(lines: list[bytes]) -> Headers:
    """Lines `name:value`."""
    return tuple([(name.decode(), value) for name, _, value in [line.partition(b":") for line in lines]])


def take_fields(text: bytes) -> tuple[Headers, bytes]:
    """Fields to an empty line, and what is behind it."""
    if text[:1] == b"\n":
        return (), text[1:]
    lines, _, rest = text.partition(b"\n\n")
    return read_fields(lines.split(b"\n")), rest


def read_head(text: bytes) -> tuple[int, Headers]:
    """Status and fields of a response that begins to leave."""
    lines = text.rstrip(b"\n").split(b"\n")
    return int(lines[0]), read_fields(lines[1:])


def read_trailers(text: str) -> Mapping[str, str]:
    """Trailers as byte streams carry them: one text for each name."""
    fields = (line.partition(":") for line in text.split("\n"))
    return as_trailers((name, value.encode()) for name, colon, value in fields if colon)


def fields_text(headers: Headers) -> bytes:
    """Lines `name:value`, and an empty one."""
    return b"".join([b"%b:%b\n" % (name.encode(), value) for name, value in headers]) + b"\n"


def data_text(data: bytes) -> str:
    """Bytes for a stream of the shim."""
    return "d" + pack(data).decode("ascii")


def message(text: bytes) -> str:
    """A text that may hold any bytes, with the tag that says how."""
    try:
        return "=" + text.decode()
    except UnicodeDecodeError:
        return "x" + pack(text).decode()


def error_text(error: HttpError) -> str:
    """An error code: its number, a text and a number if it carries them."""
    texts, numbers = _payload(error.payload)
    return f"!{CASES.index(error.case)}\n{texts}\n{numbers}"


def _payload(payload: object) -> tuple[str, str]:
    """A payload's text and number, each behind `+`, or nothing."""
    if isinstance(payload, Mapping):
        pairs = [_payload(value) for value in payload.values()]
        return "".join(text for text, _ in pairs), "".join(number for _, number in pairs)
    if isinstance(payload, str):
        return "+" + payload.replace("\n", " "), ""
    return ("", "") if payload is None else ("", f"+{payload}")


def read_error(text: str) -> LatticeError:
    """The error code that a guest gave instead of a response."""
    number, _, said = text.partition("\n")
    case = CASES[int(number)]
    reason = said or "the component answered with this error code instead of a response"
    return HttpError(case, said or None if case == "internal-error" else None, reason=reason)
