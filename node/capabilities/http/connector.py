"""Makes connections, to addresses that the policy allows only, and keeps those that can be used again."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from lattice.errors import Invalid
from node.capabilities.addresses import Address, parse_address
from node.capabilities.http.connection import Connection
from node.capabilities.http.errors import HttpError, dns_error, from_os
from node.capabilities.http.policy import OutgoingPolicy
from node.capabilities.http.request_head import Destination

ATTEMPT_SECONDS = 2.0
"""How long one of several addresses is tried before the next one is."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses that a name leads to, the best first; raises `OSError`."""


KEPT_MARGIN_SECONDS = 1.0
"""So much sooner than its server a kept connection is closed, lest a request meets that closing."""

CONCURRENT_LOOKUPS = 32
"""Lookups may hang for long; each takes a thread, and these are not those that others wait for."""


class SystemResolver:
    """Resolves names as the operating system does."""

    def __init__(self) -> None:
        self._limiter: anyio.CapacityLimiter | None = None

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The addresses that a name leads to; raises `OSError`."""
        if self._limiter is None:  # it belongs to an event loop
            self._limiter = anyio.CapacityLimiter(CONCURRENT_LOOKUPS)
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await anyio.to_thread.run_sync(look_up, abandon_on_cancel=True, limiter=self._limiter)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpClientSettings:
    """Limits of one client; the three timeouts are for requests that set none."""

    connect_seconds: float = 30.0
    first_byte_seconds: float = 600.0
    between_bytes_seconds: float = 600.0
    idle_seconds: float = 15.0
    """How long a connection without a request is kept."""
    max_connections: int = 512
    ca_bundle: Path | None = None
    """Certificates, in PEM, that are trusted beside those of the system."""
    resolve: Resolve = field(default_factory=SystemResolver)


class Connector:
    """Opens connections, and keeps idle ones by destination."""

    # The mutable state: how many connections there are, and the idle ones with the timers that end them.

    def __init__(self, settings: HttpClientSettings) -> None:
        self._settings = settings
        self._tls: ssl.SSLContext
        self._connections: set[Connection] = set()
        self._connecting = 0
        self._idle: OrderedDict[Connection, tuple[Destination, asyncio.TimerHandle]] = OrderedDict()

    async def start(self) -> None:
        """Load the certificates; raises `Invalid` for a bundle that can't be read."""
        self._tls = await anyio.to_thread.run_sync(_tls_context, self._settings.ca_bundle)

    def close(self) -> None:
        """Cut all connections."""
        for connection in list(self._connections):
            connection.close()

    def take(self, destination: Destination, policy: OutgoingPolicy) -> Connection | None:
        """An idle connection to where the policy allows it."""
        for connection, (kept_for, timer) in reversed(self._idle.items()):
            allowed = policy.allows_address(destination.host, destination.port, connection.address)
            if kept_for == destination and connection.is_idle and allowed:
                timer.cancel()
                del self._idle[connection]
                return connection
        return None

    def keep(self, destination: Destination, connection: Connection, kept_seconds: float | None) -> None:
        """Take a connection back; it must be as it was before its exchange.

        `kept_seconds`: how long the server keeps it, if it has said so.
        """
        seconds = self._settings.idle_seconds
        if kept_seconds is not None:
            seconds = min(seconds, kept_seconds - KEPT_MARGIN_SECONDS)
        if seconds <= 0:
            connection.close()
        elif connection.is_idle:
            timer = asyncio.get_running_loop().call_later(seconds, connection.close)
            self._idle[connection] = (destination, timer)

    async def connect(self, destination: Destination, policy: OutgoingPolicy, seconds: float) -> Connection:
        """A new connection within so long; raises `HttpError`."""
        self._make_room()
        self._connecting += 1
        try:
            return await self._connect(destination, policy, anyio.current_time() + seconds)
        finally:
            self._connecting -= 1

    async def _connect(self, destination: Destination, policy: OutgoingPolicy, deadline: float) -> Connection:
        addresses = await self._addresses(destination, policy, deadline)
        error: HttpError | None = None
        for number, address in enumerate(addresses, 1):
            now = anyio.current_time()
            until = deadline if number == len(addresses) else min(deadline, now + ATTEMPT_SECONDS)
            try:
                return await self._open(destination, address, until)
            except HttpError as failure:
                error = failure
        assert error is not None
        raise error

    def _make_room(self) -> None:
        if len(self._connections) + self._connecting < self._settings.max_connections:
            return
        if not self._idle:
            limit = self._settings.max_connections
            raise HttpError("connection-limit-reached", reason=f"this node has {limit} connections already")
        connection, (_, timer) = self._idle.popitem(last=False)
        timer.cancel()
        connection.close()

    async def _addresses(
        self, destination: Destination, policy: OutgoingPolicy, deadline: float
    ) -> list[Address]:
        literal = parse_address(destination.host)
        if literal is not None:
            return [literal]
        found = await self._resolve(destination, deadline)
        host, port = destination.host, destination.port
        allowed = [address for address in found if policy.allows_address(host, port, address)]
        if not allowed:
            shown = ", ".join(map(str, found))
            reason = (
                f"{host} leads to {shown}, which is not part of the public internet: "
                f"grant it with `--allow-host {found[0]}`"
            )
            raise HttpError("destination-IP-prohibited", reason=reason)
        return allowed

    async def _resolve(self, destination: Destination, deadline: float) -> list[Address]:
        host = destination.host
        try:
            with anyio.CancelScope(deadline=deadline) as scope:
                texts = await self._settings.resolve(host, destination.port)
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError):
                raise from_os(error, f"looking up {host}") from None
            raise dns_error("NXDOMAIN", f"{host} is not a name") from None
        if scope.cancelled_caught:
            raise HttpError("DNS-timeout", reason=f"looking up {host} took too long")
        found = [address for address in map(parse_address, texts) if address is not None]
        if not found:
            raise dns_error("NXDOMAIN", f"{host} leads to no address")
        return found

    async def _open(self, destination: Destination, address: Address, deadline: float) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(address, self._lost)
        is_tls = destination.scheme == "https"
        try:
            with anyio.CancelScope(deadline=deadline) as scope:
                await loop.create_connection(
                    lambda: connection,
                    str(address),
                    destination.port,
                    ssl=self._tls if is_tls else None,
                    server_hostname=destination.host if is_tls else None,
                )
                self._connections.add(connection)
        except OSError as error:
            raise from_os(error, f"connecting to {destination.text} ({address})") from None
        if scope.cancelled_caught:
            reason = f"connecting to {destination.text} ({address}) took too long"
            raise HttpError("connection-timeout", reason=reason)
        return connection

    def _lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if kept := self._idle.pop(connection, None):
            kept[1].cancel()


def _tls_context(ca_bundle: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if ca_bundle is not None:
        try:
            context.load_verify_locations(cafile=ca_bundle)
        except OSError as error:
            raise Invalid(
                f"the CA bundle {ca_bundle} can't be read: {error}; it must be a file of PEM certificates"
            ) from None
    return context
