"""Calls as the caller sees them: which node is asked, what is retried, and when to give up.

Nodes, and programs that keep a connection to the lattice, call through a `Caller`. It routes by the
placements that it observes, so it always knows whom it asked: when that node is lost, the calls pending on it
end at once.

Error handling: `unreachable` and `overloaded` were surely not begun and are retried on another replica;
`interrupted` only if the function is idempotent; all else goes to the caller as it is. While a component has
no replica that answers, calls wait for one until their budget ends. Cancelling a call cancels its callee.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup

from lattice import bodies, jobs, router, subjects, wire
from lattice.bodies import Peer
from lattice.bus import Bus, Message
from lattice.call_headers import make_call_headers
from lattice.clock import now
from lattice.context import CallContext
from lattice.errors import Denied, Interrupted, LatticeError, NotFound, Overloaded, TimedOut, Unreachable
from lattice.exchange import Exchange, ExchangeTarget, Replayable
from lattice.explain import unresolved
from lattice.model import unversioned
from lattice.names import did_you_mean
from lattice.open_streams import OpenStreams, ReplyBody, Upload
from lattice.outcome import Done, Outcome, ended
from lattice.plain import maker, plain
from lattice.state import LatticeState
from lattice.streams import ByteReceiver
from lattice.tasks import own_task

RETRY_SECONDS = 0.02
"""Between two rounds over the replicas of a component, unless a change of placements comes first."""

REPLY_SECONDS = 0.05
"""How long after the end of its budget a callee's own `timed-out` may take to arrive."""

DEFAULT_BUDGET_SECONDS = 30.0

PROVIDER_PAYLOAD_BYTES = 8 * 2**20
"""Of a call of what is no component; as the default of components."""

CANCEL_SECONDS = 1.0
"""How long telling a callee that nobody waits any more may take; its own budget ends it otherwise."""

Answer = TypeVar("Answer")


@plain
class CallRequest(CallContext):
    """A call as it was asked for, without its arguments. It is the context in which the callee runs."""

    component: str
    interface: str
    function: str
    call_id: str
    attempt: int = 1
    idempotent: bool = False
    link: str | None = None
    """The name of the link that the call is over; its source is `caller`, its target `component`."""

    @property
    def target(self) -> str:
        """For messages."""
        return f"{self.component} {self.interface}.{self.function}"


make_call_request = maker(CallRequest)


class CallBatch:
    """Calls of one function that wait in numbers. The mutable state is the requests made so far.

    Most calls need none. One call may be left under way while others follow it, if they `may_overlap`.
    """

    __slots__ = (
        "_made",
        "_make",
        "args",
        "component",
        "deadline",
        "function",
        "interface",
        "may_overlap",
        "size",
    )

    def __init__(
        self,
        component: str,
        interface: str,
        function: str,
        *,
        deadline: float,
        size: int,
        args: Callable[[int], Sequence[Any]],
        may_overlap: bool,
        request: Callable[[int], CallRequest],
    ) -> None:
        """`size` calls; `args` gives the values of the nth, `request` makes that of it."""
        self.component = component
        self.interface = interface
        self.function = function
        self.deadline = deadline
        self.size = size
        self.args = args
        self.may_overlap = may_overlap
        self._make = request
        self._made: dict[int, CallRequest] = {}

    def request(self, nth: int) -> CallRequest:
        """That of the nth call; always the same."""
        if nth not in self._made:
            self._made[nth] = self._make(nth)
        return self._made[nth]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A result that is still encoded."""

    data: bytes
    content_type: str = wire.MSGPACK


class LocalReplicas(ExchangeTarget, Protocol):
    """The replicas on the caller's own node. Calls fail with `Unreachable` when there is none."""

    def begin(self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any]) -> Outcome[Any]:
        """Call with values."""

    def begin_batch(self, batch: CallBatch) -> Awaitable[list[Outcome[Any]]] | None:
        """Call one after the other; None if they should be begun one by one.

        Gives what those that have begun, the first ones, have come to: most are over.
        """

    async def call_encoded(self, request: CallRequest, body: bytes, content_type: str) -> Reply:
        """Call with encoded arguments; the reply has the same encoding."""

    def serves(self, component: str) -> bool:
        """Whether a replica takes calls here now: known without the bus, which may be away."""


def new_call_id() -> str:
    """Names a call in logs; 64 random bits, which need not be secret."""
    return random.getrandbits(64).to_bytes(8, "big").hex()


class Caller:
    """The mutable state is the bodies under way as streams, by node, and the streams open beside calls."""

    def __init__(
        self,
        bus: Bus,
        lattice: str,
        state: LatticeState,
        *,
        name: str,
        node: str | None = None,
        zone: str | None = None,
        local: LocalReplicas | None = None,
        knows_all: Callable[[], bool],
    ) -> None:
        """`knows_all` tells whether a component that `state` does not have does not exist."""
        self._bus = bus
        self._lattice = lattice
        self._state = state
        self._name = name
        self._node = node
        self._zone = zone
        self._local = local
        self._knows_all = knows_all
        self._peer = Peer(bus=bus, lattice=lattice, owner=node or new_call_id())
        self._streaming: dict[str, set[anyio.CancelScope]] = {}
        self.streams = OpenStreams(self._peer)
        """Those open beside calls of this caller; whoever serves under the same id shares them."""
        self._tasks: TaskGroup | None = None
        self._changed = anyio.Event()

    def start(self, tasks: TaskGroup) -> None:
        """Have the streams beside calls fed by tasks of this group; `exchange` needs it."""
        self._tasks = tasks
        tasks.start_soon(self.streams.run)

    async def call(self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any]) -> Any:
        """The result of a call with values. Raises any `LatticeError`."""
        outcome = self.begin(request, args)
        return outcome.value if isinstance(outcome, Done) else await outcome

    def begin(self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any]) -> Outcome[Any]:
        """As `call`: one that a replica here answers at once is over when this returns."""
        local = self._local
        may_be_job = request.interface.startswith(jobs.INTERFACE)
        if local is None or may_be_job or not local.serves(request.component):
            return self._call(request, args, None)
        outcome = local.begin(request, args)
        return outcome if isinstance(outcome, Done) else self._call(request, args, outcome)

    def begin_batch(self, batch: CallBatch) -> Awaitable[list[Outcome[Any]]] | None:
        """As `LocalReplicas.begin_batch`, by a replica here: at a fraction of the price of `begin`."""
        local = self._local
        if local is None or not local.serves(batch.component):
            return None
        begun = local.begin_batch(batch)
        return None if begun is None else self._rest_of_batch(batch, begun)

    async def _rest_of_batch(
        self, batch: CallBatch, begun: Awaitable[list[Outcome[Any]]]
    ) -> list[Outcome[Any]]:
        return [
            outcome if isinstance(outcome, Done) else self._call(batch.request(nth), batch.args(nth), outcome)
            for nth, outcome in enumerate(await begun)
        ]

    async def _call(
        self,
        request: CallRequest,
        args: Sequence[Any] | Mapping[str, Any],
        begun: Awaitable[Any] | None,
    ) -> Any:
        """`begun`: the first attempt, on this node."""
        body: bytes | None = None

        async def ask(node: str, attempt: int) -> Any:
            nonlocal body
            if node == self._node and self._local is not None:
                return await ended(self._local.begin(request, args))
            if body is None:
                body = wire.encode_arguments(args)
            reply = await self._ask(node, request, body, wire.MSGPACK, attempt)
            limit = self.payload_limit(request.component)
            return await bodies.coded(
                len(reply.data),
                lambda: wire.decode_result(None, reply.data, reply.content_type, max_bytes=limit),
            )

        return await self._route(request, ask, begun=begun)

    def exchange(
        self,
        request: CallRequest,
        args: Sequence[Any] | Mapping[str, Any],
        body: ByteReceiver | None = None,
    ) -> Coroutine[Any, Any, Exchange]:
        """A call with byte streams beside arguments and result. Raises any `LatticeError`.

        It owns `body` from here. The budget covers the time to the result. It is repeated as `call` is, as
        long as the callee that failed has had no more of the body than is kept (a window). Leave what is
        returned, or close its body.
        """
        if body is None:
            return self._route(request, self._exchanger(request, args, None))
        source = Replayable(body)
        ask = self._exchanger(request, args, source)
        return _settled(self._route(request, ask, source), body, source)

    async def exchange_at(
        self,
        nodes: Sequence[str],
        request: CallRequest,
        args: Sequence[Any] | Mapping[str, Any],
        body: ByteReceiver | None = None,
    ) -> Exchange:
        """As `exchange`, with the first of these nodes that takes it. Raises the last one's error."""
        source = None if body is None else Replayable(body)
        ask = self._exchanger(request, args, source)

        async def try_all() -> Exchange:
            failure: LatticeError = Unreachable(f"no node to ask for {request.target}")
            for attempt, node in enumerate(nodes, request.attempt):
                try:
                    return await ask(node, min(attempt, wire.MAX_ATTEMPT))
                except (Unreachable, Overloaded) as error:
                    failure = error
                    if source is not None and not source.is_whole:
                        break
            raise failure

        return await _settled(try_all(), body, source)

    async def forward(self, request: CallRequest, body: bytes, content_type: str) -> Reply:
        """The encoded result of a call with encoded arguments. Raises any `LatticeError`."""

        async def ask(node: str, attempt: int) -> Reply:
            if node == self._node and self._local is not None:
                return await self._local.call_encoded(request, body, content_type)
            return await self._ask(node, request, body, content_type, attempt)

        return await self._route(request, ask)

    def node_lost(self, node: str) -> None:
        """End all calls that are pending on the node with `interrupted`."""
        self._bus.interrupt(subjects.node_calls_prefix(self._lattice, node), _lost(node))
        for scope in self._streaming.pop(node, set()):
            scope.cancel()
        self.streams.node_lost(node)

    def payload_limit(self, component: str) -> int:
        """Bytes that the arguments of a call, and its result, may have."""
        desired = self._state.desired.components.get(component)
        return desired.spec.limits.payload_bytes if desired else PROVIDER_PAYLOAD_BYTES

    def budget_seconds(self, component: str) -> float:
        """Of a call that brings none."""
        desired = self._state.desired.components.get(component)
        return desired.spec.limits.budget_seconds if desired else DEFAULT_BUDGET_SECONDS

    def placements_changed(self) -> None:
        """Wake the calls that wait for a replica."""
        self._changed.set()
        self._changed = anyio.Event()

    # Routing

    async def _route(
        self,
        request: CallRequest,
        ask: Callable[[str, int], Awaitable[Answer]],
        body: Replayable | None = None,
        begun: Awaitable[Answer] | None = None,
    ) -> Answer:
        """`begun`: what `ask` would give for the first attempt, which is on this node."""
        interface = request.interface
        if interface.startswith(jobs.INTERFACE) and unversioned(interface) == jobs.INTERFACE:
            raise Denied("a job is begun by a call to the node that shall run it: `latticectl run` makes one")
        excluded: set[str] = set()
        failure: LatticeError | None = None
        attempt = request.attempt
        while True:
            node = self._choose(request.component, excluded) if begun is None else self._node
            if node is None:
                failure = self._give_up(request, failure)
                await self._wait(request, failure)
                excluded.clear()
                continue
            asked, begun = begun or ask(node, attempt), None
            try:
                return await asked
            except (Unreachable, Overloaded) as error:
                if body is not None and not body.is_whole:
                    raise
                if not isinstance(failure, Interrupted):  # which says more: an attempt may have begun
                    failure = error
            except Interrupted as error:
                if not self._is_idempotent(request) or (body is not None and not body.is_whole):
                    raise
                failure = error
            excluded.add(node)
            attempt = min(attempt + 1, wire.MAX_ATTEMPT)

    def _choose(self, component: str, excluded: set[str]) -> str | None:
        if self._local is not None and self._node not in excluded and self._local.serves(component):
            return self._node
        return router.choose(
            self._state.placements(component),
            own_node=None,  # what runs here was looked for where it runs
            own_zone=self._zone,
            excluded=excluded,
            pick=_pick,
        )

    def _is_idempotent(self, request: CallRequest) -> bool:
        desired = self._state.desired.components.get(request.component)
        return request.idempotent or (desired is not None and desired.spec.idempotent)

    def _give_up(self, request: CallRequest, failure: LatticeError | None) -> LatticeError:
        """Called when no replica is left to ask: raises if there is no hope, else returns why to wait."""
        components = self._state.desired.components
        wanted = components.get(request.component)
        is_linked = request.link is not None and self._knows_all()
        if wanted is None and (is_linked or request.component in self._state.observed.offers):
            raise failure or self._not_offered(request.component)
        if wanted is None and self._knows_all():
            hint = did_you_mean(request.component, [*components, *self._state.observed.offers])
            raise NotFound(f"there is no component {request.component!r} in lattice {self._lattice!r}{hint}")
        if isinstance(failure, Overloaded):
            raise failure
        if wanted is not None and not wanted.spec.replicas:
            raise failure or Unreachable(
                f"{request.component!r} is scaled to 0 replicas; "
                f"`latticectl scale {request.component} --replicas 1` starts one"
            )
        return failure or Unreachable(f"no replica of {request.component!r} is {self._nowhere(request)}")

    def _nowhere(self, request: CallRequest) -> str:
        if not self._bus.is_connected:
            return "here, and others can't be asked: the connection to NATS is lost, and is being made anew"
        return f"running; `latticectl describe {request.component}` says why"

    def _not_offered(self, provider: str) -> Unreachable:
        """Nobody waits for a provider: what stands behind it may be away for long."""
        reason = unresolved(provider, self._state.desired, self._state.observed)
        return Unreachable(f"provider {provider!r} can't be called now: {reason}")

    async def _wait(self, request: CallRequest, failure: LatticeError) -> None:
        left = request.deadline - now()
        if left <= 0:
            raise failure
        await own_task()
        with anyio.move_on_after(min(RETRY_SECONDS, left)):
            await self._changed.wait()

    # One attempt

    async def _ask(
        self, node: str, request: CallRequest, body: bytes, content_type: str, attempt: int
    ) -> Reply:
        headers = self._headers(request, content_type, attempt)
        message = await self._answer(node, request, body, headers)
        return Reply(data=message.data, content_type=wire.content_type_of(message.headers))

    def _headers(
        self, request: CallRequest, content_type: str, attempt: int, *, accepts_body: bool = False
    ) -> wire.CallHeaders:
        left = request.deadline - now()
        if left <= 0:
            raise TimedOut(f"the budget of the call to {request.target} ended")
        return make_call_headers(
            content_type=content_type,
            budget_ms=max(1, int(left * 1000)),
            idempotent=request.idempotent,
            traceparent=request.traceparent,
            call_id=request.call_id,
            caller=request.caller or self._name,
            attempt=attempt,
            hops=request.hops + 1,
            accepts_stream=True,
            origin=self._peer.owner,
            link=request.link,
            accepts_body=accepts_body,
        )

    async def _answer(
        self, node: str, request: CallRequest, body: bytes, headers: wire.CallHeaders
    ) -> Message:
        """The reply of one node; raises the error that it carries. Whoever stops waiting tells the callee."""
        subject = subjects.node_call(
            self._lattice, node, request.component, request.interface, request.function
        )
        began = now()
        seconds = max(0.0, request.deadline - began) + REPLY_SECONDS
        try:
            if self._peer.fits(body):
                message = await self._bus.request(
                    subject, body, headers=wire.header_block(headers), timeout_seconds=seconds
                )
                if not message.headers:
                    return message
                if wire.reply_stream_of(message.headers) is not None:
                    limit = self.payload_limit(request.component)
                    whole = partial(bodies.whole_reply, self._peer, message, limit)
                    message = await self._streamed(node, whole, max(0.0, began + seconds - now()))
            else:
                limit = self.payload_limit(request.component)
                send = partial(bodies.request, timeout_seconds=seconds, max_reply_bytes=limit)
                send = partial(send, self._peer, subject, body, headers)
                message = await self._streamed(node, send, seconds)
        except anyio.get_cancelled_exc_class():
            await self._cancel(node, request)
            raise
        except TimedOut:
            await self._cancel(node, request)
            name = node[:8].lower()
            raise TimedOut(f"node {name} did not answer {request.target} within {seconds:.1f} s") from None
        except Interrupted as error:  # people know the call, not its subject
            raise Interrupted(error.message.replace(subject, request.target)) from None
        if message.headers and (lost := wire.decode_error(message.headers, message.data)) is not None:
            raise lost
        return message

    async def _cancel(self, node: str, request: CallRequest) -> None:
        await own_task()
        body = wire.encode_message({"call_id": request.call_id, "origin": self._peer.owner})
        with anyio.move_on_after(CANCEL_SECONDS, shield=True), contextlib.suppress(LatticeError):
            await self._bus.publish(subjects.node_cancel(self._lattice, node), body)

    # One attempt with streams beside it

    def _exchanger(
        self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any], source: Replayable | None
    ) -> Callable[[str, int], Awaitable[Exchange]]:
        encoded: bytes | None = None

        def ask(node: str, attempt: int) -> Awaitable[Exchange]:
            nonlocal encoded
            if source is not None:
                source.rewind()
            if node == self._node and self._local is not None:
                return self._local.exchange(request, args, source)
            if encoded is None:
                encoded = wire.encode_arguments(args)
            if source is None:
                return self._exchanged(node, request, encoded, attempt, None)
            return self._exchange(node, request, encoded, source, attempt)

        return ask

    async def _exchange(
        self, node: str, request: CallRequest, body: bytes, source: ByteReceiver, attempt: int
    ) -> Exchange:
        """With a body beside the arguments."""
        upload = await self._upload(node, source)
        try:
            exchange = await self._exchanged(node, request, body, attempt, upload)
        except BaseException:
            await upload.stop()
            raise
        if exchange.body is None:
            await upload.stop()
        return exchange

    async def _upload(self, node: str, source: ByteReceiver) -> Upload:
        if self._tasks is None:
            raise RuntimeError("`Caller.start` was not called: nothing feeds the body of an exchange")
        await own_task()
        upload = Upload(self.streams, source, await self.streams.sender(node))
        upload.start(self._tasks)
        return upload

    async def _exchanged(
        self, node: str, request: CallRequest, body: bytes, attempt: int, upload: Upload | None
    ) -> Exchange:
        headers = self._headers(request, wire.MSGPACK, attempt, accepts_body=True)
        if upload is not None:
            headers = replace(headers, body_stream=upload.stream)
        message = await self._answer(node, request, body, headers)
        try:
            data, limit = message.data, self.payload_limit(request.component)
            if len(data) <= bodies.HEAVY_BYTES:
                value = wire.decode(data, max_bytes=limit) if data else None
            else:
                value = await bodies.coded(len(data), partial(wire.decode, data, max_bytes=limit))
            stream = wire.body_stream_of(message.headers) if message.headers else None
            if stream is None:
                return Exchange(value)
            await own_task()
            return Exchange(value, ReplyBody(self.streams, await self.streams.receiver(stream), upload))
        except BaseException:
            await self._cancel(node, request)  # it would wait for credit
            raise

    async def _streamed(
        self, node: str, exchange: Callable[[], Awaitable[Message]], seconds: float
    ) -> Message:
        """Streams of a lost node would end by their idle limit only; a scope ends them at once."""
        await own_task()
        scope = anyio.CancelScope()
        streaming = self._streaming.setdefault(node, set())
        streaming.add(scope)
        try:
            with scope, anyio.fail_after(seconds):
                return await exchange()
        except TimeoutError:
            raise TimedOut(f"the result did not arrive within {seconds:.1f} s") from None
        finally:
            streaming.discard(scope)
            if not streaming and self._streaming.get(node) is streaming:
                del self._streaming[node]
        raise Interrupted(_lost(node))


async def _settled(
    exchanging: Awaitable[Exchange], body: ByteReceiver | None, source: Replayable | None
) -> Exchange:
    """The exchange, with nothing kept for another attempt; if there is none, the body is closed."""
    try:
        exchange = await exchanging
    except BaseException:
        if body is not None:
            await own_task()
            with anyio.CancelScope(shield=True):
                await body.aclose()
        raise
    if source is not None:
        await source.settle(is_over=exchange.body is None)
    return exchange


def _pick(count: int) -> int:
    return int(random.random() * count)  # `randrange` takes five times as long


def _lost(node: str) -> str:
    return f"node {node[:8].lower()} was lost while it ran the call"
