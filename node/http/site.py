"""What the connections of a listener share: limits, who answers, the clock, and who is connected."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from email.utils import formatdate
from typing import TYPE_CHECKING, Protocol

import anyio
from anyio.abc import TaskGroup

from lattice.errors import LatticeError
from lattice.http import HttpRequest, HttpResponse
from lattice.tasks import PromptTasks
from node.http.failures import Refusal
from node.http.limits import HttpLimits

if TYPE_CHECKING:
    from node.http.handshake import Handshake
    from node.http.protocol import Connection

TICK_SECONDS = 0.25
"""How often deadlines are looked at: one pass over all connections instead of a timer for each request."""


class Responder(Protocol):
    """Who answers requests, whatever happens."""

    def answer(self, request: HttpRequest, traceparent: str) -> HttpResponse | Awaitable[HttpResponse]:
        """The response, or what gives it, which is awaited at once, maybe without a task.

        Failures are responses too.
        """

    def failed(self, request: HttpRequest, error: LatticeError) -> HttpResponse:
        """What to send instead of a response that can't be sent; logs it."""

    def broke_off(self, request: HttpRequest, error: LatticeError) -> None:
        """Log that a response ended before its end, when it was too late to say so to the client."""


class Site:
    """The mutable state is the open connections and those to be, the time, and whether the site drains."""

    def __init__(
        self, responder: Responder, limits: HttpLimits, tasks: TaskGroup, *, trusts_forwarded: bool = False
    ) -> None:
        self.responder = responder
        self.limits = limits
        self.tasks = tasks
        self.prompt_tasks = PromptTasks(tasks)
        self.trusts_forwarded = trusts_forwarded
        self.connections: set[Connection] = set()
        self.arriving: set[Handshake] = set()
        """Who has connected and not agreed on TLS yet; nobody waits for them when the site drains."""
        self.is_draining = False
        self._empty = anyio.Event()
        self.clock = 0.0
        """The time at the last tick, by `lattice.clock.now`."""
        self.date_line = b""
        """The end of a response's head."""
        self._tell_time()

    def _tell_time(self) -> None:
        self.clock = time.monotonic()
        self.date_line = b"date: " + formatdate(usegmt=True).encode() + b"\r\n\r\n"

    async def run(self) -> None:
        """Keep the time and end what is overdue, until cancelled."""
        self.tasks.start_soon(self.prompt_tasks.keep)
        while True:
            self._tell_time()
            for connection in [each for each in self.connections if each.deadline < self.clock]:
                connection.expire()
            await anyio.sleep(TICK_SECONDS)

    async def drain(self) -> None:
        """Let each connection finish the request it is in, and return when all are closed."""
        self.is_draining = True
        for connection in list(self.connections):
            connection.drain()
        while self.connections:
            self._empty = anyio.Event()
            await self._empty.wait()

    def abort(self) -> None:
        """Close all connections at once, whatever is in progress."""
        for connection in list(self.connections):
            connection.abort()
        for handshake in list(self.arriving):
            handshake.abort()

    @property
    def has_room(self) -> bool:
        """Whether one more may connect."""
        return len(self.connections) + len(self.arriving) < self.limits.connections

    def opened(self, connection: Connection) -> Refusal | None:
        """Count a new connection, or say why it is not taken."""
        if self.is_draining:  # it was waiting in the kernel when the listener closed
            return Refusal(503, "this node is leaving: another one answers", code="unreachable")
        if not self.has_room:
            return Refusal(503, "this node has all the connections that it takes", code="overloaded")
        self.connections.add(connection)
        return None

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()
