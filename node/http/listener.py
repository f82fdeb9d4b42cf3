"""The HTTP listener of a node: its sockets, the sites behind them, and the processes that share its port."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskGroup

from lattice.caller import Caller
from lattice.errors import Invalid
from lattice.state import Effect, LatticeState
from node.http.address import Address
from node.http.admin import Admin, Reasons
from node.http.dispatcher import Dispatcher, LocalHandlers
from node.http.handshake import Handshake
from node.http.limits import HttpLimits, limits_of
from node.http.protocol import Connection
from node.http.site import Responder, Site
from node.http.tls import server_context
from node.http.workers import Workers
from node.settings import NodeSettings

log = structlog.get_logger()

BACKLOG = 1024
ADMIN_LIMITS = HttpLimits(connections=64, requests=64, body_bytes=0, idle_seconds=10.0)


@dataclass(slots=True)
class _Door:
    """A site with the servers that bring it connections."""

    site: Site
    servers: list[asyncio.Server] = field(default_factory=list)

    def close(self) -> None:
        for server in self.servers:
            server.close()


class Listener:
    """The mutable state is what it listens at; nothing if the settings name no address."""

    def __init__(
        self,
        settings: NodeSettings,
        *,
        state: LatticeState,
        local: LocalHandlers,
        caller: Caller,
        name: str,
        reasons: Reasons,
        workers: Workers | None = None,
    ) -> None:
        """`reasons` say what keeps the node from being ready; empty when it is."""
        self._settings = settings
        self._workers = workers
        self._reasons = reasons
        self.dispatcher = Dispatcher(state, local, caller, limits_of(settings), name=name)
        self._doors: list[_Door] = []
        self._is_draining = False
        self.addresses: list[Address] = []
        """Where it listens for HTTP, with the port that was chosen for 0."""
        self.admin_addresses: list[Address] = []

    def __repr__(self) -> str:
        return f"<Listener at {', '.join(map(str, self.addresses)) or 'nothing'}>"

    def effect(self, effect: Effect) -> None:
        """Follow what the lattice is asked for; an observer's listener."""
        self.dispatcher.effect(effect)

    async def start(self, tasks: TaskGroup) -> None:
        """Listen, and serve in `tasks`; raises `Invalid` if that can't be done. Ready when it returns."""
        settings = self._settings
        self.dispatcher.learn_routes()
        if settings.http_admin is not None:
            admin = await self._open(tasks, settings.http_admin, Admin(self.not_ready), ADMIN_LIMITS)
            self.admin_addresses = _addresses(admin)
        if settings.http is None:
            return
        context = await self._context()
        door = await self._open(
            tasks,
            settings.http,
            self.dispatcher,
            limits_of(settings),
            context,
            is_shared=settings.http_workers > 1,
        )
        self.addresses = _addresses(door)
        scheme = "https" if context else "http"
        log.info("http.listening", at=[f"{scheme}://{address}" for address in self.addresses])
        if self._workers is not None:
            self._workers.start(tasks, Address(settings.http.host, self.addresses[0].port))

    async def _context(self) -> ssl.SSLContext | None:
        certificate, key = self._settings.http_tls_cert, self._settings.http_tls_key
        if certificate is None or key is None:
            return None
        return await to_thread.run_sync(server_context, certificate, key)

    async def _open(
        self,
        tasks: TaskGroup,
        address: Address,
        responder: Responder,
        limits: HttpLimits,
        context: ssl.SSLContext | None = None,
        *,
        is_shared: bool = False,
    ) -> _Door:
        site = Site(responder, limits, tasks, trusts_forwarded=self._settings.http_trust_forwarded)
        door = _Door(site)
        self._doors.append(door)
        tasks.start_soon(site.run)
        make = partial(Connection, site) if context is None else partial(Handshake, site, context)
        door.servers.append(await _server(make, address, is_shared=is_shared))
        return door

    def not_ready(self) -> dict[str, str]:
        """What keeps this node from taking requests."""
        found = dict(self._reasons())
        if self._is_draining:
            found["node"] = "it is draining"
        return found

    async def drain(self) -> None:
        """Take no more connections, finish the requests that have begun, and return when all are gone."""
        self._is_draining = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._drain_doors)
            if self._workers is not None:
                tasks.start_soon(self._workers.drain)

    async def _drain_doors(self) -> None:
        for door in self._doors:
            if not isinstance(door.site.responder, Admin):
                door.close()
                await door.site.drain()

    def close(self) -> None:
        """Close all connections at once."""
        for door in self._doors:
            door.close()
            door.site.abort()


async def _server(
    protocol: Callable[[], asyncio.Protocol], address: Address, *, is_shared: bool
) -> asyncio.Server:
    """A server on one address; the kernel divides a shared port's connections among the processes."""
    try:
        return await asyncio.get_running_loop().create_server(
            protocol,
            address.host or None,
            address.port,
            backlog=BACKLOG,
            reuse_address=True,
            reuse_port=is_shared,
        )
    except (OSError, socket.gaierror) as error:
        raise Invalid(
            f"can't listen for HTTP at {address}: {error.strerror or error}; choose another"
        ) from error


def _addresses(door: _Door) -> list[Address]:
    found = [each.getsockname() for server in door.servers for each in server.sockets]
    return [Address(name[0], name[1]) for name in found]
