"""What can go wrong with sockets, as the interface's `error-code`."""

from __future__ import annotations

import errno
import socket

from node.capabilities.wasi.streams import StreamFailed

_CODES = {
    errno.EAGAIN: "would-block",
    errno.EPERM: "access-denied",
    errno.EACCES: "access-denied",
    errno.EADDRINUSE: "address-in-use",
    errno.EADDRNOTAVAIL: "address-not-bindable",
    errno.ETIMEDOUT: "timeout",
    errno.ECONNREFUSED: "connection-refused",
    errno.ECONNRESET: "connection-reset",
    errno.EPIPE: "connection-reset",
    errno.ECONNABORTED: "connection-aborted",
    errno.EINVAL: "invalid-argument",
    errno.EHOSTUNREACH: "remote-unreachable",
    errno.EHOSTDOWN: "remote-unreachable",
    errno.ENETDOWN: "remote-unreachable",
    errno.ENETUNREACH: "remote-unreachable",
    errno.ENONET: "remote-unreachable",
    errno.EISCONN: "invalid-state",
    errno.ENOTCONN: "invalid-state",
    errno.EDESTADDRREQ: "invalid-state",
    errno.EMFILE: "new-socket-limit",
    errno.ENFILE: "new-socket-limit",
    errno.EMSGSIZE: "datagram-too-large",
    errno.ENOMEM: "out-of-memory",
    errno.ENOBUFS: "out-of-memory",
    errno.EOPNOTSUPP: "not-supported",
    errno.ENOPROTOOPT: "not-supported",
    errno.EPFNOSUPPORT: "not-supported",
    errno.EPROTONOSUPPORT: "not-supported",
    errno.EPROTOTYPE: "not-supported",
    errno.ESOCKTNOSUPPORT: "not-supported",
    errno.EAFNOSUPPORT: "not-supported",
}

_LOOKUP_CODES = {
    socket.EAI_NONAME: "name-unresolvable",
    socket.EAI_NODATA: "name-unresolvable",
    socket.EAI_AGAIN: "temporary-resolver-failure",
}


class SocketError(Exception):
    """Raised by operations on sockets; `code` is what the guest sees."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class SocketStreamFailed(StreamFailed):
    """The same for a stream over a connection."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the connection failed: {code}")
        self.code = code


def code_of(error: OSError) -> str:
    """The code for an error of the host."""
    if isinstance(error, socket.gaierror):
        return _LOOKUP_CODES.get(error.errno or 0, "permanent-resolver-failure")
    return _CODES.get(error.errno or 0, "unknown")
