"""The error codes of `wasi:http` as one exception, and what becomes of errors that arise elsewhere."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Mapping
from typing import Any

from lattice.errors import Denied, Failed, Interrupted, LatticeError, Overloaded, TimedOut, Unreachable
from node.capabilities.wasi.streams import StreamFailed


class HttpError(Failed):
    """Raised when a request or response came to nothing; `error_code` is the `error-code` as a value."""

    def __init__(self, case: str, payload: Any = None, *, reason: str = "") -> None:
        super().__init__(f"{case}: {reason}" if reason else case)
        self.case = case
        self.payload = payload
        self.reason = reason

    @property
    def error_code(self) -> Mapping[str, Any]:
        """The variant `error-code`: a map of the case to what it carries."""
        return {self.case: self.payload}


class BodyFailed(StreamFailed):
    """What a guest's operation on the stream of a body meets; `http-error-code` finds the code in it."""

    def __init__(self, error: HttpError) -> None:
        super().__init__(error.message)
        self.error = error


_BY_LATTICE_ERROR: tuple[tuple[type[LatticeError], str], ...] = (
    (Interrupted, "connection-terminated"),
    (Unreachable, "destination-unavailable"),
    (TimedOut, "connection-timeout"),
    (Overloaded, "connection-limit-reached"),
    (Denied, "HTTP-request-denied"),
)


def from_lattice(error: LatticeError) -> HttpError:
    """The error of a body that came over the lattice, as a guest may see it."""
    if isinstance(error, HttpError):
        return error
    for kind, case in _BY_LATTICE_ERROR:
        if isinstance(error, kind):
            return HttpError(case, reason=error.message)
    return HttpError("internal-error", error.message, reason=error.message)


def dns_error(rcode: str, reason: str) -> HttpError:
    """A name that could not be resolved; `rcode` is the code's name in DNS."""
    return HttpError("DNS-error", {"rcode": rcode, "info-code": None}, reason=reason)


_RCODES: Mapping[int, str] = {
    socket.EAI_NONAME: "NXDOMAIN",
    socket.EAI_AGAIN: "SERVFAIL",
    socket.EAI_FAIL: "SERVFAIL",
}

_BY_ERRNO: Mapping[int, str] = {
    errno.ECONNREFUSED: "connection-refused",
    errno.ECONNRESET: "connection-terminated",
    errno.ECONNABORTED: "connection-terminated",
    errno.EPIPE: "connection-terminated",
    errno.ETIMEDOUT: "connection-timeout",
    errno.EHOSTUNREACH: "destination-IP-unroutable",
    errno.ENETUNREACH: "destination-IP-unroutable",
    errno.EADDRNOTAVAIL: "destination-IP-unroutable",
    errno.EMFILE: "connection-limit-reached",
    errno.ENFILE: "connection-limit-reached",
}

# What TLS names an alert it received, and its number (RFC 8446, section 6.2).
_ALERTS: Mapping[str, int] = {
    "CLOSE_NOTIFY": 0,
    "UNEXPECTED_MESSAGE": 10,
    "BAD_RECORD_MAC": 20,
    "RECORD_OVERFLOW": 22,
    "HANDSHAKE_FAILURE": 40,
    "BAD_CERTIFICATE": 42,
    "UNSUPPORTED_CERTIFICATE": 43,
    "CERTIFICATE_REVOKED": 44,
    "CERTIFICATE_EXPIRED": 45,
    "CERTIFICATE_UNKNOWN": 46,
    "ILLEGAL_PARAMETER": 47,
    "UNKNOWN_CA": 48,
    "ACCESS_DENIED": 49,
    "DECODE_ERROR": 50,
    "DECRYPT_ERROR": 51,
    "PROTOCOL_VERSION": 70,
    "INSUFFICIENT_SECURITY": 71,
    "INTERNAL_ERROR": 80,
    "UNRECOGNIZED_NAME": 112,
    "CERTIFICATE_REQUIRED": 116,
    "NO_APPLICATION_PROTOCOL": 120,
}
_ALERT = re.compile(r"(?:TLSV1|TLSV13|SSLV3)_ALERT_(\w+)|ALERT_(\w+)")


def from_os(error: OSError, doing: str) -> HttpError:
    """The error code for what the operating system or TLS said; `doing` tells people where."""
    reason = f"{doing}: {error.strerror or error}"
    if isinstance(error, ssl.SSLError):
        return _from_tls(error, reason)
    if isinstance(error, socket.gaierror):
        return dns_error(_RCODES.get(error.errno or 0, "SERVFAIL"), reason)
    if isinstance(error, TimeoutError):
        return HttpError("connection-timeout", reason=reason)
    case = _BY_ERRNO.get(error.errno or 0)
    if case is None:
        case = "connection-terminated" if isinstance(error, ConnectionError) else "destination-unavailable"
    return HttpError(case, reason=reason)


def _from_tls(error: ssl.SSLError, reason: str) -> HttpError:
    if isinstance(error, (ssl.SSLCertVerificationError, ssl.CertificateError)):
        return HttpError("TLS-certificate-error", reason=f"{reason}: {error.verify_message}")
    alert = _ALERT.search(error.reason or "")
    if alert is None:
        return HttpError("TLS-protocol-error", reason=f"{reason}: {error.reason}")
    name = alert[1] or alert[2]
    message = name.lower().replace("_", " ")
    payload = {"alert-id": _ALERTS.get(name), "alert-message": message}
    return HttpError("TLS-alert-received", payload, reason=f"{reason}: {message}")
