"""Control subjects: takes requests from the bus, has the operation done, and answers.

Requests that name no node reach any one node; those that name one reach that one. Error handling: whatever
goes wrong is the answer; the loop goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import structlog
from anyio.abc import TaskGroup

from lattice import bodies, subjects, wire
from lattice.bus import Bus, Message
from lattice.errors import LatticeError, NotFound, Overloaded, Unreachable
from lattice.failures import internal_failure
from lattice.names import did_you_mean
from lattice.patterns import takes_replies
from lattice.serving import QUEUE_GROUP

log = structlog.get_logger()

MAX_OPERATIONS = 64
"""In progress at a time on one node; some compile for seconds."""

Operation = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


class Control:
    """The mutable state is the number of operations in progress."""

    def __init__(
        self,
        bus: Bus,
        lattice: str,
        node: str,
        table: Mapping[str, Operation],
        own: Mapping[str, Operation],
        *,
        is_quiet: Callable[[], bool],
    ) -> None:
        """`table` is served for the lattice and for this node, `own` for this node only.

        While `is_quiet`, what comes in is old, and whoever asked has turned to another node: nothing of
        `table` is done.
        """
        self._bus = bus
        self._peer = bodies.Peer(bus=bus, lattice=lattice, owner=node)
        self._lattice = lattice
        self._node = node
        self._table = table
        self._own = {**table, **own}
        self._is_quiet = is_quiet
        self._in_progress = 0

    async def start(self, tasks: TaskGroup, stack: AsyncExitStack) -> None:
        """Subscribe until `stack` is closed; operations run in `tasks`."""

        def take(message: Message, table: Mapping[str, Operation]) -> None:
            if message.reply and takes_replies(message.reply):
                tasks.start_soon(self._serve, message, message.reply, table)

        shared = await self._bus.subscribe(
            subjects.controls(self._lattice), lambda message: take(message, self._table), queue=QUEUE_GROUP
        )
        stack.push_async_callback(shared.unsubscribe)
        own = await self._bus.subscribe(
            subjects.node_controls(self._lattice, self._node), lambda message: take(message, self._own)
        )
        stack.push_async_callback(own.unsubscribe)

    async def _serve(self, message: Message, reply: str, table: Mapping[str, Operation]) -> None:
        headers = wire.CallHeaders()
        self._in_progress += 1
        try:
            headers = wire.decode_headers(message.headers)
            answer = await self._perform(message, headers.content_type, table)
        except LatticeError as error:
            await self._answer_error(message, reply, error, headers)
        except Exception:
            failure = internal_failure("operation.failed", message.subject)
            await self._answer_error(message, reply, failure, headers)
        else:
            await self._answer(message, reply, answer, headers)
        finally:
            self._in_progress -= 1

    async def _answer(
        self, message: Message, reply: str, answer: dict[str, Any], headers: wire.CallHeaders
    ) -> None:
        try:
            body = wire.encode_message(answer, headers.content_type)
            await bodies.reply(self._peer, reply, body, headers)
        except LatticeError as error:
            log.warning("operation.unanswered", subject=message.subject, reason=error.message)

    async def _answer_error(
        self, message: Message, reply: str, error: LatticeError, headers: wire.CallHeaders
    ) -> None:
        try:
            await bodies.reply_error(self._peer, reply, error, headers.content_type)
        except LatticeError as failure:
            log.warning("operation.unanswered", subject=message.subject, reason=failure.message)

    async def _perform(
        self, message: Message, content_type: str, table: Mapping[str, Operation]
    ) -> dict[str, Any]:
        if self._in_progress > MAX_OPERATIONS:
            raise Overloaded(f"{MAX_OPERATIONS} control operations are in progress on this node; try again")
        subject = subjects.parse(message.subject)
        assert isinstance(subject, subjects.Control)
        operation = table.get(subject.operation)
        if operation is None:
            hint = did_you_mean(subject.operation, table)
            raise NotFound(f"there is no control operation {subject.operation!r}{hint}")
        if self._is_quiet() and subject.operation in self._table:
            raise Unreachable("this node stood still and waits for its orders")
        return await operation(wire.decode_message(message.data, content_type))
