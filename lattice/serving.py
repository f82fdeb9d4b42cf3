"""Call subjects: takes calls from the bus, has them served here or elsewhere, and answers.

Two kinds arrive. Calls that a router sent to this node are served by its own replicas, or answered
`unreachable` so that the router asks another node. Calls that enter the lattice here, because they name no
node or because a client chose this one (they have made no hop yet), are routed like those of any caller.

Error handling: whatever goes wrong with a call is its answer; the loop goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup

from lattice import bodies, subjects, wire
from lattice.bus import Bus, Message
from lattice.caller import Caller, CallRequest, LocalReplicas, make_call_request, new_call_id
from lattice.clock import now
from lattice.errors import Interrupted, Invalid, LatticeError, Overloaded, Unreachable
from lattice.exchange import ExchangeTarget
from lattice.failures import FailureLog, internal_failure
from lattice.open_streams import OpenStreams, pump
from lattice.patterns import takes_replies
from lattice.streams import ByteReceiver
from lattice.tasks import PromptTask, PromptTasks, own_task

log = structlog.get_logger()

QUEUE_GROUP = "nodes"
"""All nodes of a lattice share the calls that name no node."""


CallKey = tuple[str | None, str | None]
"""Who waits for the result of a call, and what that one calls it."""


END_SECONDS = 1.0
"""How long telling a caller that this node leaves may take."""


class _Call:
    """A call taken: who waits for it, and the rest of it if it waits itself."""

    __slots__ = ("key", "rest")

    def __init__(self) -> None:
        self.key: CallKey = (None, None)
        self.rest: PromptTask | None = None

    def cancel(self) -> None:
        """End it where it waits; nobody is answered."""
        if self.rest is not None:
            self.rest.cancel()


class Serving:
    """The mutable state is the calls in progress, their streams, and whether new ones are taken."""

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
        self._streams = caller.streams if caller.streams.peer.owner == node else OpenStreams(self._peer)
        self._calls: dict[CallKey, _Call] = {}
        self._in_progress = 0
        self._idle: anyio.Event | None = None
        self._tasks: TaskGroup | None = None
        self._prompt_tasks: PromptTasks | None = None
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
        self._prompt_tasks = PromptTasks(tasks)
        tasks.start_soon(self._prompt_tasks.keep)
        if self._streams is not self._caller.streams:
            tasks.start_soon(self._streams.run)
        await self._bus.subscribe(subjects.node_cancel(self._lattice, self._node), self._cancel)
        await self._bus.subscribe(subjects.cancel(self._lattice), self._cancel)
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

    def node_lost(self, node: str) -> None:
        """Cancel the calls whose results that node waited for, and end its streams."""
        self._streams.node_lost(node)
        for call in list(self._calls.values()):
            if call.key[0] == node:
                call.cancel()

    # One call

    def _take(self, message: Message) -> None:
        assert self._tasks is not None
        assert self._prompt_tasks is not None
        if message.reply and not takes_replies(message.reply):
            log.debug("call.reply-refused", subject=message.subject, reply=message.reply)
        elif self._in_progress < self._max_calls:
            self._in_progress += 1
            call = _Call()
            call.rest = self._prompt_tasks.start(self._serve(message, call))
        elif message.reply:
            self._tasks.start_soon(
                self._refuse,
                message,
                Overloaded(f"node {self._node[:8].lower()} has {self._max_calls} calls"),
            )

    async def _serve(self, message: Message, call: _Call) -> None:
        headers = wire.NO_CALL_HEADERS
        try:
            headers = wire.decode_headers(message.headers)
            if headers.origin is not None:
                call.key = (headers.origin, headers.call_id)
                self._calls[call.key] = call
            await self._answer(message, headers)
        except LatticeError as error:
            self._failures.record(message.subject, headers, error)
            await self._refuse(message, error, headers.content_type)
        except Exception:
            internal = internal_failure("call.failed", message.subject)
            await self._refuse(message, internal, headers.content_type)
        finally:
            if self._calls.get(call.key) is call:
                del self._calls[call.key]
            self._in_progress -= 1
            if self._idle is not None and not self._in_progress:
                self._idle.set()

    def _answer(self, message: Message, headers: wire.CallHeaders) -> Coroutine[Any, Any, None]:
        if self._is_quiet():
            raise Unreachable(f"node {self._node[:8].lower()} stood still and waits for its orders")
        subject = subjects.parse_call(message.subject)
        request = self._request(subject, headers)
        is_routed = subject.node is None or not headers.hops
        if headers.accepts_body:
            return self._exchange(message, headers, request, self._caller if is_routed else self._local)
        return self._forward(message, headers, request, is_routed=is_routed)

    async def _forward(
        self, message: Message, headers: wire.CallHeaders, request: CallRequest, *, is_routed: bool
    ) -> None:
        """Serve and answer a call whose arguments and result are all of it."""
        body = await self._body(message, headers, request)
        if is_routed:
            reply = await self._caller.forward(request, body, headers.content_type)
        else:
            reply = await self._local.call_encoded(request, body, headers.content_type)
        if message.reply:
            await bodies.reply(self._peer, message.reply, reply.data, headers)

    def _request(self, subject: subjects.Call, headers: wire.CallHeaders) -> CallRequest:
        if headers.budget_ms is None:
            budget = self._caller.budget_seconds(subject.component)
        else:
            budget = headers.budget_ms / 1000
        return make_call_request(
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
            link=headers.link,
        )

    async def _body(self, message: Message, headers: wire.CallHeaders, request: CallRequest) -> bytes:
        if headers.request_stream is None:
            return message.data
        limit = self._caller.payload_limit(request.component)
        return await bodies.request_body(self._peer, headers, message.data, max_bytes=limit)

    # One call with streams beside it

    async def _exchange(
        self, message: Message, headers: wire.CallHeaders, request: CallRequest, target: ExchangeTarget
    ) -> None:
        """Serve and answer; returns when the bytes of both directions are over."""
        if headers.content_type != wire.MSGPACK:
            raise Invalid(f"a call with byte streams beside it is written as {wire.MSGPACK}")
        encoded = message.data
        if headers.request_stream is not None:
            encoded = await self._body(message, headers, request)
        limit = self._caller.payload_limit(request.component)
        args: Any = ()
        if len(encoded) > bodies.HEAVY_BYTES:
            args = await bodies.coded(len(encoded), lambda: wire.decode(encoded, max_bytes=limit))
        elif encoded:
            args = wire.decode(encoded, max_bytes=limit)
        body = None
        if headers.body_stream is not None:
            await own_task()
            body = await self._streams.receiver(headers.body_stream)
        try:
            exchange = await target.exchange(request, args, body)
            if exchange.body is None and message.reply:
                await bodies.reply(self._peer, message.reply, wire.encode(exchange.value), headers)
            elif exchange.body is not None:
                async with exchange:
                    await self._stream_exchange(message.reply, headers, exchange.value, exchange.body)
        finally:
            if body is not None:
                await self._streams.close(body)

    async def _stream_exchange(
        self, subject: str | None, headers: wire.CallHeaders, value: Any, body: ByteReceiver
    ) -> None:
        if not subject:
            return
        data = wire.encode(value)
        await own_task()
        sender = await self._streams.sender(headers.origin)
        try:
            await bodies.reply(self._peer, subject, data, headers, body_stream=sender.stream)
            await pump(body, sender)
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(END_SECONDS, shield=True), suppress(LatticeError):
                await sender.fail(
                    Interrupted(f"node {self._node[:8].lower()} left before the call had ended")
                )
            raise
        finally:
            await self._streams.close(sender)

    # Calls for which nobody waits any more

    def _cancel(self, message: Message) -> None:
        """Cancel the call that the message names; one that is over, or that nobody knows, is ignored."""
        try:
            fields = wire.decode_message(message.data)
        except Invalid:
            return
        origin, call_id = fields.get("origin"), fields.get("call_id")
        if not (isinstance(origin, str) and isinstance(call_id, str)):
            return
        call = self._calls.get((origin, call_id))
        if call is not None:
            log.debug("call.cancelled", call=call.key[1])
            call.cancel()

    # Errors

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
