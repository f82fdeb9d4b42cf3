"""Call subjects: takes calls from the bus, has them served here or elsewhere, and answers.

Two kinds arrive. Calls that a router sent to this node are served by its own replicas, or answered
`unreachable` so that the router asks another node. Calls that enter the lattice here, because they name no
node or because a client chose this one (they have made no hop yet), are routed like those of any caller.

Error handling: whatever goes wrong with a call is its answer; the loop goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

import anyio
import structlog
from anyio.abc import TaskGroup

from lattice import bodies, subjects, wire
from lattice.bus import Bus, Message
from lattice.caller import Caller, CallRequest, LocalReplicas, Reply, new_call_id
from lattice.clock import now
from lattice.errors import LatticeError, Overloaded, Unreachable
from lattice.failures import FailureLog, internal_failure
from lattice.tasks import start_at_once

log = structlog.get_logger()

QUEUE_GROUP = "nodes"
"""All nodes of a lattice share the calls that name no node."""


class Serving:
    """The mutable state is the number of calls in progress, and whether new ones are taken."""

    def __init__(
        self,
        bus: Bus,
        lattice: str,
        node: str,
        *,
        local: LocalReplicas,
        caller: Caller,
        max_calls: int,
        is_quiet: Callable[[], bool],
    ) -> None:
        """While `is_quiet`, calls are answered `unreachable`: the caller asks another node."""
        self._bus = bus
        self._lattice = lattice
        self._node = node
        self._peer = bodies.Peer(bus=bus, lattice=lattice, owner=node)
        self._local = local
        self._caller = caller
        self._max_calls = max_calls
        self._is_quiet = is_quiet
        self._failures = FailureLog()
        self._in_progress = 0
        self._idle = anyio.Event()
        self._tasks: TaskGroup | None = None
        self._entrance: AsyncExitStack = AsyncExitStack()
        self._direct: AsyncExitStack = AsyncExitStack()

    @property
    def in_progress(self) -> int:
        """Calls taken and not answered yet."""
        return self._in_progress

    async def start(self, tasks: TaskGroup, *, is_entrance: bool = True) -> None:
        """Subscribe; returns when the server has the subscriptions.

        Who is no entrance takes only calls that name it.
        """
        self._tasks = tasks
        # As a group of one: whoever leaves a queue group still gets what is on its way.
        direct = await self._bus.subscribe(
            subjects.node_calls(self._lattice, self._node), self._take, queue=self._node
        )
        self._direct.push_async_callback(direct.unsubscribe)
        if not is_entrance:
            return
        entrance = await self._bus.subscribe(subjects.calls(self._lattice), self._take, queue=QUEUE_GROUP)
        self._entrance.push_async_callback(entrance.unsubscribe)

    async def close_entrance(self) -> None:
        """Take no more calls that name no node; those that name this one still come."""
        await self._entrance.aclose()

    async def drain(self) -> None:
        """Take no more calls at all, and return when the last one is answered."""
        await self.close_entrance()
        await self._direct.aclose()
        while self._in_progress:
            self._idle = anyio.Event()
            await self._idle.wait()

    def _take(self, message: Message) -> None:
        assert self._tasks is not None
        if self._in_progress < self._max_calls:
            self._in_progress += 1
            start_at_once(self._tasks, self._serve(message))
        elif message.reply:
            self._tasks.start_soon(
                self._refuse,
                message,
                Overloaded(f"node {self._node[:8].lower()} has {self._max_calls} calls"),
            )

    async def _serve(self, message: Message) -> None:
        headers = wire.CallHeaders()
        try:
            headers = wire.decode_headers(message.headers)
            reply = await self._answer(message, headers)
            if message.reply:
                await bodies.reply(self._peer, message.reply, reply.data, headers)
        except LatticeError as error:
            self._failures.record(message.subject, headers, error)
            await self._refuse(message, error, headers.content_type)
        except Exception:
            internal = internal_failure("call.failed", message.subject)
            await self._refuse(message, internal, headers.content_type)
        finally:
            self._in_progress -= 1
            if not self._in_progress:
                self._idle.set()

    async def _answer(self, message: Message, headers: wire.CallHeaders) -> Reply:
        if self._is_quiet():
            raise Unreachable(f"node {self._node[:8].lower()} stood still and waits for its orders")
        subject = subjects.parse_call(message.subject)
        if headers.budget_ms is None:
            budget = self._caller.budget_seconds(subject.component)
        else:
            budget = headers.budget_ms / 1000
        request = CallRequest(
            component=subject.component,
            interface=subject.interface,
            function=subject.function,
            deadline=now() + budget,
            call_id=headers.call_id or new_call_id(),
            idempotent=headers.idempotent,
            traceparent=headers.traceparent,
            caller=headers.caller,
            attempt=headers.attempt,
            hops=headers.hops,
        )
        body = message.data
        if headers.request_stream is not None:
            limit = self._caller.payload_limit(request.component)
            body = await bodies.request_body(self._peer, headers, body, max_bytes=limit)
        if subject.node is None or not headers.hops:
            return await self._caller.forward(request, body, headers.content_type)
        return await self._local.call_encoded(request, body, headers.content_type)

    async def _refuse(self, message: Message, error: LatticeError, content_type: str = wire.MSGPACK) -> None:
        headers, body = wire.encode_error(error, content_type)
        if message.reply:
            await self._publish(message.reply, body, headers)

    async def _publish(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        try:
            await self._bus.publish(subject, data, headers=headers)
        except LatticeError as error:
            # The caller is told by its own connection: it sees the loss of ours, or its budget ends.
            log.warning("call.unanswered", reason=error.message)
