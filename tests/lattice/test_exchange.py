"""Calls with byte streams beside them, between two peers on a bus and within one process."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from lattice import jobs, streams, subjects, wire
from lattice.bus import Bus
from lattice.caller import CallBatch, Caller, CallRequest, LocalReplicas, Reply
from lattice.clock import now
from lattice.errors import Denied, Interrupted, LatticeError, Overloaded, TimedOut, Unreachable
from lattice.exchange import Exchange
from lattice.faulty_bus import Faults, FaultyBus
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.model import ComponentSpec, new_application
from lattice.serving import Serving
from lattice.state import LatticeState
from lattice.streams import ByteReceiver
from lattice.tasks import open_tasks
from tests.lattice.places import Place

DIGEST = "sha256:" + "0" * 64
Handle = Callable[[CallRequest, Sequence[Any], ByteReceiver | None], Any]


@dataclass
class Target:
    """Serves exchanges as the test says, and notes what became of them."""

    handle: Handle
    begun: anyio.Event = field(default_factory=anyio.Event)
    cancelled: anyio.Event = field(default_factory=anyio.Event)
    is_serving: bool = True

    async def exchange(
        self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any], body: ByteReceiver | None
    ) -> Exchange:
        self.begun.set()
        try:
            found = await self.handle(request, list(args), body)
        except anyio.get_cancelled_exc_class():
            self.cancelled.set()
            raise
        return found if isinstance(found, Exchange) else Exchange(found)

    async def begin(self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any]) -> Any:
        return (await self.exchange(request, args, None)).value

    def begin_batch(self, batch: CallBatch) -> None: ...

    async def call_encoded(self, request: CallRequest, body: bytes, content_type: str) -> Reply:
        exchange = await self.exchange(request, wire.decode(body), None)
        return Reply(data=wire.encode(exchange.value))

    def serves(self, component: str) -> bool:
        return self.is_serving


class World:
    """Nodes that serve, and callers, on one broker or server."""

    def __init__(self, stack: AsyncExitStack, tasks: Any, connect: Callable[[], Any], lattice: str) -> None:
        self.stack = stack
        self.tasks = tasks
        self.connect = connect
        self.lattice = lattice
        self.places: list[Place] = []
        self.state = LatticeState()
        self.state.placements = lambda component: self.places  # type: ignore[method-assign, assignment, return-value]
        self.deploy(1)

    def deploy(self, version: int, **fields: Any) -> None:
        spec = ComponentSpec.from_dict({"name": "files", "digest": DIGEST, **fields})
        self.state.apply(new_application("files", None, version, components=[spec]), 0.0)

    async def bus(self) -> Bus:
        bus: Bus = await self.stack.enter_async_context(self.connect())
        return bus

    async def serve(self, node: str, target: Target, bus: Bus | None = None) -> Serving:
        bus = bus or await self.bus()
        serving = Serving(
            bus,
            self.lattice,
            node,
            local=target,
            caller=await self.caller(),
            max_calls=10,
            is_quiet=lambda: False,
        )
        await serving.start(self.tasks)
        self.places.append(Place(node, load=float(len(self.places))))
        return serving

    async def caller(
        self, node: str | None = None, local: LocalReplicas | None = None, bus: Bus | None = None
    ) -> Caller:
        bus = bus or await self.bus()
        caller = Caller(
            bus, self.lattice, self.state, name="test", node=node, local=local, knows_all=lambda: True
        )
        caller.start(self.tasks)
        return caller


@pytest.fixture
async def world(connect: Callable[[], Any], lattice_name: str) -> AsyncIterator[World]:
    async with open_tasks() as tasks, AsyncExitStack() as stack:
        yield World(stack, tasks, connect, lattice_name)
        tasks.cancel_scope.cancel()


def call(seconds: float = 5.0, **changes: Any) -> CallRequest:
    fields: dict[str, Any] = {
        "component": "files",
        "interface": "demo:files/store",
        "function": "copy",
        "deadline": now() + seconds,
        "call_id": secrets.token_hex(8),
    }
    return CallRequest(**{**fields, **changes})


def body_of(tasks: Any, *chunks: bytes, trailers: Mapping[str, str] | None = None) -> ByteReceiver:
    sender, receiver = streams.pair()

    async def send() -> None:
        for chunk in chunks:
            await sender.send(chunk)
        await sender.end(trailers)

    tasks.start_soon(send)
    return receiver


async def all_of(receiver: ByteReceiver | None) -> bytes:
    assert receiver is not None
    return await streams.receive_body(receiver, max_bytes=1 << 30)


async def fails(error: LatticeError) -> Any:
    raise error


async def echo(request: CallRequest, args: Sequence[Any], body: ByteReceiver | None) -> Exchange:
    return Exchange(args, body)


async def test_value_and_bytes_travel_in_both_directions_with_trailers(world: World) -> None:
    await world.serve("N1", Target(echo))
    caller = await world.caller()
    data = secrets.token_bytes(700_000)

    body = body_of(world.tasks, data, b"!", trailers={"sum": "1"})
    async with await caller.exchange(call(), ["a", b"\x00"], body) as exchange:
        received = await all_of(exchange.body)

    assert exchange.value == ["a", b"\x00"]
    assert received == data + b"!"
    assert exchange.body is not None and exchange.body.trailers == {"sum": "1"}


async def test_an_exchange_without_streams_is_a_call(world: World) -> None:
    seen: list[CallRequest] = []

    async def answer(request: CallRequest, args: Sequence[Any], body: ByteReceiver | None) -> Any:
        seen.append(request)
        return [args, body]

    await world.serve("N1", Target(answer))
    caller = await world.caller()

    async with await caller.exchange(call(link="second", caller="shop"), [1]) as exchange:
        assert exchange.value == [[1], None] and exchange.body is None
    assert [(request.link, request.caller) for request in seen] == [("second", "shop")]


async def test_arguments_and_results_too_large_for_a_message_travel_too(world: World) -> None:
    await world.serve("N1", Target(echo))
    caller = await world.caller()
    large = bytes(1_100_000)
    world.deploy(2, limits={"payload": "8M"})

    async with await caller.exchange(call(), [large], body_of(world.tasks, b"beside")) as exchange:
        assert exchange.value == [large]
        assert await all_of(exchange.body) == b"beside"


async def test_a_call_that_enters_anywhere_is_passed_on_with_its_streams(world: World) -> None:
    await world.serve("N1", Target(echo))
    bus, places = await world.bus(), list(world.places)
    await world.serve("N2", Target(echo, is_serving=False))
    entry, world.places[:] = world.places[1], places
    outside = LatticeState()
    outside.placements = lambda component: [entry]  # type: ignore[method-assign, list-item]  # as routers see it
    client = Caller(bus, world.lattice, outside, name="client", knows_all=lambda: False)
    client.start(world.tasks)

    body = body_of(world.tasks, b"through", trailers={"a": "b"})
    async with await client.exchange(call(hops=-1), ["x"], body) as exchange:
        assert await all_of(exchange.body) == b"through"
    assert exchange.body is not None and exchange.body.trailers == {"a": "b"}


async def test_what_did_not_begin_is_asked_elsewhere_with_the_same_body(world: World) -> None:
    async def read_and_refuse(request: CallRequest, args: Sequence[Any], body: ByteReceiver | None) -> Any:
        assert body is not None
        await body.receive()
        await body.aclose()
        raise Overloaded("no room after all")

    await world.serve("N1", Target(read_and_refuse))
    await world.serve("N2", Target(echo))
    caller = await world.caller()

    async with await caller.exchange(call(), [], body_of(world.tasks, b"first", b"second")) as exchange:
        assert await all_of(exchange.body) == b"firstsecond"


async def test_a_body_that_was_taken_beyond_what_is_kept_is_not_sent_again(world: World) -> None:
    async def swallow(request: CallRequest, args: Sequence[Any], body: ByteReceiver | None) -> Any:
        await all_of(body)
        raise Unreachable("gone")

    await world.serve("N1", Target(swallow))
    await world.serve("N2", Target(echo))
    caller = await world.caller()

    with pytest.raises(Unreachable, match="gone"):
        await caller.exchange(call(), [], body_of(world.tasks, bytes(600_000)))


async def test_the_callees_error_is_raised_and_ends_the_body(world: World) -> None:
    await world.serve("N1", Target(lambda *_: fails(Denied("not you"))))
    caller = await world.caller()
    sender, receiver = streams.pair()

    with pytest.raises(Denied, match="not you"):
        await caller.exchange(call(), [], receiver)
    with pytest.raises(Interrupted):
        await sender.send(b"more")


async def test_an_error_after_the_result_is_raised_by_the_body(world: World) -> None:
    async def answer(request: CallRequest, args: Sequence[Any], body: ByteReceiver | None) -> Any:
        sender, receiver = streams.pair()
        await sender.send(b"half")
        await sender.fail(Denied("the disk says no"))
        return Exchange(1, receiver)

    await world.serve("N1", Target(answer))
    caller = await world.caller()

    async with await caller.exchange(call(), []) as exchange:
        with pytest.raises(Denied, match="disk"):
            await all_of(exchange.body)


async def test_what_breaks_the_body_is_told_to_the_callee(world: World) -> None:
    seen: list[LatticeError] = []

    async def answer(request: CallRequest, args: Sequence[Any], body: ByteReceiver | None) -> Any:
        try:
            await all_of(body)
        except LatticeError as error:
            seen.append(error)
        return "over"

    await world.serve("N1", Target(answer))
    caller = await world.caller()
    sender, receiver = streams.pair()
    await sender.send(b"some")
    await sender.fail(Denied("the client left"))

    assert (await caller.exchange(call(), [], receiver)).value == "over"
    assert [error.message for error in seen] == ["the client left"]


async def test_the_time_to_the_result_is_bounded_and_the_callee_cancelled(world: World) -> None:
    target = Target(lambda *_: anyio.sleep_forever())
    await world.serve("N1", target)
    caller = await world.caller()

    with pytest.raises(TimedOut):
        await caller.exchange(call(0.1), [])
    with anyio.fail_after(5):
        await target.cancelled.wait()


@pytest.mark.parametrize("way", ["call", "forward", "exchange"])
async def test_cancelling_a_call_cancels_its_callee(world: World, way: str) -> None:
    target = Target(lambda *_: anyio.sleep_forever())
    await world.serve("N1", target)
    caller = await world.caller()

    async def ask() -> None:
        if way == "call":
            await caller.call(call(), [])
        elif way == "forward":
            await caller.forward(call(), b"\x90", "application/msgpack")
        else:
            await caller.exchange(call(), [], streams.pair()[1])

    async with open_tasks() as tasks:
        tasks.start_soon(ask)
        with anyio.fail_after(5):
            await target.begun.wait()
        tasks.cancel_scope.cancel()
    with anyio.fail_after(5):
        await target.cancelled.wait()


async def test_leaving_an_exchange_early_ends_the_callees_body_at_once(world: World) -> None:
    closed = anyio.Event()
    source: list[streams.ByteSender] = []

    async def answer(request: CallRequest, args: Sequence[Any], body: ByteReceiver | None) -> Any:
        sender, receiver = streams.pair()
        source.append(sender)
        return Exchange(1, receiver)

    async def watch() -> None:
        try:
            while True:
                await source[0].send(bytes(100_000))
        except LatticeError:
            closed.set()

    await world.serve("N1", Target(answer))
    caller = await world.caller()

    async with await caller.exchange(call(), []) as exchange:
        world.tasks.start_soon(watch)
        assert exchange.body is not None
        await exchange.body.receive()
    with anyio.fail_after(5):
        await closed.wait()


async def test_a_silent_callee_ends_at_once_when_nobody_reads(world: World) -> None:
    sender, receiver = streams.pair()

    async def answer(request: CallRequest, args: Sequence[Any], body: ByteReceiver | None) -> Any:
        return Exchange(1, receiver)

    serving = await world.serve("N1", Target(answer))
    caller = await world.caller()

    async with await caller.exchange(call(), []):
        assert serving.in_progress == 1

    with anyio.fail_after(5):
        await serving.drain()
    with pytest.raises(Interrupted):
        await sender.send(b"x")


async def test_a_lost_callee_ends_the_callers_streams_at_once(world: World) -> None:
    async def answer(request: CallRequest, args: Sequence[Any], body: ByteReceiver | None) -> Any:
        return Exchange(1, streams.pair()[1])

    await world.serve("N1", Target(answer))
    caller = await world.caller()
    sender, receiver = streams.pair()

    async with await caller.exchange(call(), [], receiver) as exchange:
        caller.node_lost("N1")
        assert exchange.body is not None
        with anyio.fail_after(5), pytest.raises(Interrupted, match="was lost"):
            await exchange.body.receive()
    with anyio.fail_after(5), pytest.raises(Interrupted):
        await sender.send(bytes(1 << 20))


async def test_a_lost_caller_cancels_what_runs_for_it(world: World) -> None:
    target = Target(lambda *_: anyio.sleep_forever())
    serving = await world.serve("N1", target)
    caller = await world.caller(node="ORIGIN", local=Target(echo, is_serving=False))

    async with open_tasks() as tasks:
        tasks.start_soon(caller.call, call(60), [])
        with anyio.fail_after(5):
            await target.begun.wait()
        serving.node_lost("OTHER")
        assert not target.cancelled.is_set()
        serving.node_lost("ORIGIN")
        with anyio.fail_after(5):
            await target.cancelled.wait()
        tasks.cancel_scope.cancel()


async def test_a_cancel_for_a_call_that_is_over_is_ignored(world: World) -> None:
    serving = await world.serve("N1", Target(echo))
    bus = await world.bus()
    caller = await world.caller()

    unknown, unheard_of = {"call_id": "x", "origin": "y"}, {"call_id": ["x"], "origin": {}}
    for body in (b"", b"\x01", wire.encode_message(unknown), wire.encode_message(unheard_of)):
        await bus.publish(subjects.node_cancel(world.lattice, "N1"), body)
    await bus.flush()

    assert await caller.call(call(), [7]) == [7]
    assert not serving._bus.statistics().handler_errors


@pytest.mark.parametrize("version", ["", "@1.0.0"])
@pytest.mark.parametrize("hops", [0, -1])
async def test_nobody_begins_a_job_without_naming_its_node(world: World, hops: int, version: str) -> None:
    await world.serve("N1", Target(echo))
    caller = await world.caller()
    job = call(interface=jobs.INTERFACE + version, hops=hops)

    with pytest.raises(Denied, match="`latticectl run`"):
        await caller.exchange(job, [])
    if hops:  # enters the lattice at the node, as calls of clients do
        with pytest.raises(Denied, match="`latticectl run`"):
            await caller.exchange_at(["N1"], job, [])
    else:
        assert (await caller.exchange_at(["N1"], job, [1])).value == [1]


@pytest.mark.parametrize("reply", ["lattice.1.{}.node.N1.order", "$KV.LATTICE_{}_state.files"])
async def test_a_caller_gets_no_answer_sent_to_the_lattice_or_the_server(world: World, reply: str) -> None:
    target = Target(echo)
    await world.serve("N1", target)
    bus, closed = await world.bus(), reply.format(world.lattice)
    heard: list[str] = []
    await bus.subscribe(closed, lambda message: heard.append(message.subject))
    subject = subjects.node_call(world.lattice, "N1", "files", "demo:files/store", "put")

    await bus.publish(subject, wire.encode([1]), headers={"lattice-hops": "1"}, reply=closed)
    answer = await bus.request(subject, wire.encode([2]), headers={"lattice-hops": "1"}, timeout_seconds=5)

    assert wire.decode(answer.data) == [2] and heard == []


async def test_a_local_target_gets_the_body_itself_and_no_bus(world: World) -> None:
    bus = await world.bus()
    caller = await world.caller(node="ME", local=Target(echo), bus=bus)
    before = bus.statistics().sent

    async with await caller.exchange(call(), [1], body_of(world.tasks, b"near")) as exchange:
        assert await all_of(exchange.body) == b"near"
    assert bus.statistics().sent == before


async def test_silence_is_not_loss_while_both_ends_live(world: World) -> None:
    sender, receiver = streams.pair()

    async def answer(request: CallRequest, args: Sequence[Any], body: ByteReceiver | None) -> Any:
        return Exchange(1, receiver)

    serving = await world.serve("N1", Target(answer))
    caller = await world.caller()
    async with await caller.exchange(call(), []) as exchange:
        (mine,) = caller.streams._ends
        (theirs,) = serving._streams._ends
        for _ in range(3):
            await mine.keep_alive()
            await theirs.keep_alive()
        await sender.send(b"late")
        await sender.end()
        assert await all_of(exchange.body) == b"late"


@pytest.fixture
async def faulty(lattice_name: str) -> AsyncIterator[tuple[World, Callable[..., Any]]]:
    """A world in memory, and what makes a caller on a bus with faults of its own."""
    broker = MemoryBroker()
    async with open_tasks() as tasks, AsyncExitStack() as stack:
        world = World(stack, tasks, lambda: MemoryBus(broker), lattice_name)

        async def make(**faults: float) -> tuple[Caller, FaultyBus]:
            bus = FaultyBus(await world.bus(), Faults(**faults), seed=7)
            return await world.caller(bus=bus), bus

        yield world, make
        tasks.cancel_scope.cancel()


async def test_doubled_messages_do_no_harm(faulty: tuple[World, Callable[..., Any]]) -> None:
    world, make = faulty
    await world.serve("N1", Target(echo))
    caller, _ = await make(duplicate=0.5)
    data = secrets.token_bytes(900_000)

    async with await caller.exchange(call(), [], body_of(world.tasks, data)) as exchange:
        assert await all_of(exchange.body) == data


async def test_a_connection_that_is_lost_ends_both_directions_at_once(
    faulty: tuple[World, Callable[..., Any]],
) -> None:
    world, make = faulty
    await world.serve("N1", Target(echo))
    caller, bus = await make()
    sender, receiver = streams.pair()

    async with await caller.exchange(call(), [], receiver) as exchange:
        await sender.send(b"before")
        assert exchange.body is not None
        assert await exchange.body.receive() == b"before"
        bus.disconnect()
        with anyio.fail_after(5), pytest.raises(Interrupted, match="connection was lost"):
            await exchange.body.receive()
    with anyio.fail_after(5), pytest.raises(Interrupted):
        await sender.send(bytes(1 << 20))


async def test_frames_that_overtake_each_other_never_give_wrong_bytes(
    faulty: tuple[World, Callable[..., Any]],
) -> None:
    world, make = faulty
    await world.serve("N1", Target(echo))
    caller, _ = await make(delay=0.02, longest_delay_seconds=0.01)
    outcomes = set()

    for _ in range(20):
        data = secrets.token_bytes(300_000)
        try:
            async with await caller.exchange(call(), [], body_of(world.tasks, data)) as exchange:
                outcomes.add("same" if await all_of(exchange.body) == data else "wrong")
        except Interrupted:
            outcomes.add("interrupted")

    assert outcomes <= {"same", "interrupted"} and "same" in outcomes
