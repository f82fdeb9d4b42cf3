"""The options that both kinds of sockets have, and those of TCP alone: pairs of reading and setting."""

from __future__ import annotations

import socket

from node.capabilities.wasi.sockets.socket_errors import SocketError

SECOND_NS = 1_000_000_000
MAX_BUFFER_BYTES = 4 * 1024 * 1024
"""More is cut: a guest's buffers are the host's memory."""

MAX_KEEP_ALIVE_SECONDS = 32767
MAX_KEEP_ALIVE_COUNT = 127

Option = tuple[int, int]

_BUFFERS = {"receive": socket.SO_RCVBUF, "send": socket.SO_SNDBUF}
_TIMES = {"idle": socket.TCP_KEEPIDLE, "interval": socket.TCP_KEEPINTVL}


def buffer_size(found: socket.socket, which: str) -> int:
    """In bytes; Linux keeps and tells twice what was asked for."""
    return found.getsockopt(socket.SOL_SOCKET, _BUFFERS[which]) // 2


def set_buffer_size(found: socket.socket, which: str, size: int) -> None:
    """A hint to the host."""
    _check(size)
    found.setsockopt(socket.SOL_SOCKET, _BUFFERS[which], min(size, MAX_BUFFER_BYTES))


def hop_limit(found: socket.socket) -> int:
    """How many routers packets may pass."""
    return found.getsockopt(*_hops(found))


def set_hop_limit(found: socket.socket, hops: int) -> None:
    """At least one."""
    _check(hops)
    found.setsockopt(*_hops(found), hops)


def is_kept_alive(found: socket.socket) -> bool:
    """Whether an idle connection is probed."""
    return bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


def keep_alive(found: socket.socket, is_wanted: bool) -> None:
    """Probe an idle connection, or don't."""
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, is_wanted)


def keep_alive_time(found: socket.socket, which: str) -> int:
    """In nanoseconds."""
    return found.getsockopt(socket.IPPROTO_TCP, _TIMES[which]) * SECOND_NS


def set_keep_alive_time(found: socket.socket, which: str, nanoseconds: int) -> None:
    """Rounded up to what the host has: whole seconds, and not too many."""
    _check(nanoseconds)
    seconds = min(-(-nanoseconds // SECOND_NS), MAX_KEEP_ALIVE_SECONDS)
    found.setsockopt(socket.IPPROTO_TCP, _TIMES[which], seconds)


def keep_alive_count(found: socket.socket) -> int:
    """How many probes fail before the connection does."""
    return found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)


def set_keep_alive_count(found: socket.socket, count: int) -> None:
    """At least one."""
    _check(count)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, min(count, MAX_KEEP_ALIVE_COUNT))


def _hops(found: socket.socket) -> Option:
    if found.family == socket.AF_INET:
        return socket.IPPROTO_IP, socket.IP_TTL
    return socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS


def _check(value: int) -> None:
    if not value:
        raise SocketError("invalid-argument")
