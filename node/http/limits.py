"""What clients of a listener may use; whatever they do, a node's memory and time stay bounded."""

from __future__ import annotations

from dataclasses import dataclass

from lattice.model import GIB, KIB
from node.settings import NodeSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Limits of a listener; each connection and request has its own count."""

    header_bytes: int = 64 * KIB
    """Of a request's head, and of its trailers; kept to a few KiB."""
    header_count: int = 128
    body_bytes: int = 16 * GIB
    header_seconds: float = 10.0
    """From the first byte of a head to its last; also for the whole of a body that is held whole."""
    body_seconds: float = 30.0
    """How long a client may send nothing of a body that is awaited, or take nothing of a response."""
    idle_seconds: float = 75.0
    """Between two requests of a connection."""
    request_seconds: float = 3600.0
    """The most that a request may take, whatever its component's budget is."""
    connections: int = 10_000
    requests: int = 4096
    """In progress at a time, over all connections."""


def limits_of(settings: NodeSettings) -> HttpLimits:
    """The limits that the operator set."""
    return HttpLimits(
        header_bytes=settings.http_max_header,
        body_bytes=settings.http_max_body,
        header_seconds=settings.http_header_timeout,
        body_seconds=settings.http_body_timeout,
        idle_seconds=settings.http_idle_timeout,
        request_seconds=settings.http_request_timeout,
        connections=settings.http_max_connections,
        requests=settings.http_max_requests,
    )
