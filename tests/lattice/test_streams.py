"""Byte streams and large bodies, within the process, over the memory bus and over a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest

from lattice import bodies, streams, subjects, wire
from lattice.bodies import Peer
from lattice.bus import Bus, Message
from lattice.errors import Interrupted, Invalid, LatticeError, NotFound, TimedOut, Unreachable
from lattice.frames import Credit, encode_frame
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.nats_bus import NatsBus
from lattice.streams import ByteReceiver, ByteSender, StreamSettings
from lattice.wire import CallHeaders

PATIENT = StreamSettings(window_bytes=1000)
QUICK = StreamSettings(window_bytes=1000, idle_seconds=0.05)
"""For ends that are to stand still: on a busy machine all do for so long."""
SUBJECT = subjects.call("l", "echo", "-", "echo")
BODY = bytes(range(256)) * 20_000


class LossyBus(MemoryBus):
    """Drops the data frames whose numbers it was given."""

    def __init__(self, broker: MemoryBroker, drop: set[int], **options: Any) -> None:
        super().__init__(broker, **options)
        self._drop = drop
        self._frames = 0

    async def publish(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        reply: str | None = None,
    ) -> None:
        if subject.endswith(".data"):
            self._frames += 1
            if self._frames - 1 in self._drop:
                return
        await super().publish(subject, data, headers=headers, reply=reply)


@asynccontextmanager
async def _ends(
    kind: str, settings: StreamSettings = PATIENT
) -> AsyncIterator[tuple[ByteSender, ByteReceiver]]:
    async with AsyncExitStack() as stack:
        if kind == "pipe":
            sender, receiver = streams.pair(settings)
        else:
            broker = MemoryBroker()
            first, second = MemoryBus(broker), MemoryBus(broker)
            stream = streams.new_stream_id("NA")
            sender = await streams.open_sender(first, "l", stream, settings)
            receiver = await streams.open_receiver(second, "l", "NB", stream, settings)
        await stack.enter_async_context(sender)
        await stack.enter_async_context(receiver)
        yield sender, receiver


both = pytest.mark.parametrize("kind", ["pipe", "bus"])


# Both kinds keep the same rules


@both
async def test_all_bytes_arrive_and_then_the_trailers(kind: str) -> None:
    async with _ends(kind) as (sender, receiver), anyio.create_task_group() as group:

        async def send() -> None:
            await sender.send(BODY[:50_000])
            await sender.end({"checksum": "7"})

        group.start_soon(send)
        received = [chunk async for chunk in receiver]

        assert b"".join(received) == BODY[:50_000]
        assert receiver.trailers == {"checksum": "7"}
        with pytest.raises(anyio.EndOfStream):
            await receiver.receive()


@both
async def test_an_empty_stream_ends(kind: str) -> None:
    async with _ends(kind) as (sender, receiver):
        await sender.end()

        assert [chunk async for chunk in receiver] == []


@both
async def test_the_sender_waits_for_the_reader(kind: str) -> None:
    async with _ends(kind) as (sender, receiver):
        await sender.send(b"x" * 1000)

        with anyio.move_on_after(0.02) as scope:
            await sender.send(b"y")

        assert scope.cancelled_caught
        assert b"y" not in await receiver.receive()


@both
async def test_a_reader_that_stands_still_interrupts_the_sender(kind: str) -> None:
    async with _ends(kind, QUICK) as (sender, _):
        with pytest.raises(Interrupted, match="stood still"):
            await sender.send(b"x" * 1001)


@both
async def test_a_sender_that_stands_still_interrupts_the_reader(kind: str) -> None:
    async with _ends(kind, QUICK) as (sender, receiver):
        await sender.send(b"x")

        assert await receiver.receive() == b"x"
        with pytest.raises(Interrupted, match="stood still"):
            await receiver.receive()


@both
async def test_the_reader_learns_why_the_sender_gave_up_after_what_came(kind: str) -> None:
    async with _ends(kind) as (sender, receiver):
        await sender.send(b"x")
        await sender.fail(NotFound("no more"))

        assert await receiver.receive() == b"x"
        with pytest.raises(NotFound, match="no more"):
            await receiver.receive()


@both
async def test_a_sender_that_leaves_without_an_end_interrupts(kind: str) -> None:
    async with _ends(kind) as (sender, receiver):
        await sender.send(b"x")
        await sender.aclose()

        await receiver.receive()
        with pytest.raises(Interrupted):
            await receiver.receive()


@both
async def test_a_reader_that_leaves_stops_the_sender(kind: str) -> None:
    async with _ends(kind) as (sender, receiver):
        await sender.send(b"x")
        await receiver.aclose()

        with pytest.raises(Interrupted, match="no more"):
            await sender.send(b"y" * 5000)


@both
async def test_the_news_that_the_peer_is_gone_wakes_whoever_waits(kind: str) -> None:
    async with _ends(kind) as (sender, receiver):
        async with anyio.create_task_group() as group:
            group.start_soon(_fails_with_unreachable, receiver.receive)
            await anyio.wait_all_tasks_blocked()
            receiver.abort(Unreachable("the node is gone"))
        sender.abort(Unreachable("the node is gone"))
        await _fails_with_unreachable(sender.send, b"x")


async def _fails_with_unreachable(function: Any, *args: Any) -> None:
    with pytest.raises(Unreachable):
        await function(*args)


@both
async def test_the_news_that_the_peer_is_gone_comes_too_late_after_the_end(kind: str) -> None:
    async with _ends(kind) as (sender, receiver):
        await sender.send(b"x")
        await sender.end()
        await anyio.wait_all_tasks_blocked()
        receiver.abort(Interrupted("the node is gone"))

        assert [chunk async for chunk in receiver] == [b"x"]


@both
async def test_single_bytes_are_joined_while_they_wait(kind: str) -> None:
    async with _ends(kind) as (sender, receiver):
        for _ in range(500):
            await sender.send(b"x")
        await anyio.wait_all_tasks_blocked()

        assert await receiver.receive() == b"x" * 500


# Over the bus


async def test_a_lost_frame_interrupts_both_ends() -> None:
    broker = MemoryBroker()
    stream = streams.new_stream_id("NA")
    settings = StreamSettings(window_bytes=1000)
    async with (
        await streams.open_sender(LossyBus(broker, {1}), "l", stream, settings) as sender,
        await streams.open_receiver(MemoryBus(broker), "l", "NB", stream, settings) as receiver,
    ):
        for _ in range(3):
            await sender.send(b"x" * 10)
        assert await receiver.receive() == b"x" * 10
        with pytest.raises(Interrupted, match="frames 1 to 1 of a byte stream were lost"):
            await receiver.receive()
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(Interrupted):
            await sender.send(b"x")


@pytest.mark.parametrize(
    "reply", [None, "lattice.1.l.node.N.order", "other", subjects.stream_data("m", "NB", "0" * 32)]
)
async def test_a_sender_publishes_to_subjects_of_its_own_stream_only(reply: str | None) -> None:
    bus = MemoryBus(MemoryBroker())
    stream = streams.new_stream_id("NA")
    async with await streams.open_sender(bus, "l", stream, QUICK) as sender:
        credit = subjects.stream_credit("l", "NA", stream.stream)
        await bus.publish(credit, encode_frame(Credit(1000)), reply=reply)

        with pytest.raises(Interrupted):
            await sender.send(b"x")


async def test_a_lost_connection_interrupts() -> None:
    bus = MemoryBus(MemoryBroker())
    stream = streams.new_stream_id("NA")
    async with (
        await streams.open_sender(bus, "l", stream, QUICK) as sender,
        await streams.open_receiver(bus, "l", "NB", stream, QUICK) as receiver,
    ):
        await sender.send(b"x")
        await bus.aclose()

        with pytest.raises(LatticeError):
            await sender.send(b"x")
        with pytest.raises(LatticeError):
            await streams.receive_body(receiver, max_bytes=10)


async def test_a_body_above_the_limit_is_refused_as_soon_as_it_is_seen() -> None:
    async with _ends("pipe") as (sender, receiver):
        await sender.send(b"x" * 500)

        with pytest.raises(Invalid, match="more than 400 bytes"):
            await streams.receive_body(receiver, max_bytes=400)


# Requests and replies of any size


@asynccontextmanager
async def _echo(peer: Peer, max_bytes: int = len(BODY)) -> AsyncIterator[None]:
    async def serve(message: Message) -> None:
        call = wire.decode_headers(message.headers)
        assert message.reply is not None
        try:
            body = await bodies.request_body(peer, call, message.data, max_bytes=max_bytes)
            await bodies.reply(peer, message.reply, body, call)
        except Invalid as error:
            await bodies.reply_error(peer, message.reply, error)

    async with anyio.create_task_group() as group:

        def begin(message: Message) -> None:
            group.start_soon(serve, message)

        subscription = await peer.bus.subscribe(SUBJECT, begin)
        yield
        await subscription.unsubscribe()


def _peers(caller: Bus, callee: Bus) -> tuple[Peer, Peer]:
    return Peer(bus=caller, lattice="l", owner="client-1"), Peer(bus=callee, lattice="l", owner="NB")


@pytest.mark.parametrize("size", [0, 10, 60_000, 70_000, len(BODY)])
async def test_bodies_of_any_size_come_back(size: int) -> None:
    broker = MemoryBroker()
    caller, callee = _peers(MemoryBus(broker, max_payload=70_000), MemoryBus(broker, max_payload=70_000))
    async with _echo(callee):
        reply = await bodies.request(
            caller, SUBJECT, BODY[:size], CallHeaders(), timeout_seconds=5, max_reply_bytes=len(BODY)
        )

    assert reply.data == BODY[:size]


async def test_bodies_pass_a_real_server(nats_bus: NatsBus) -> None:
    caller, callee = _peers(nats_bus, nats_bus)
    async with _echo(callee):
        reply = await bodies.request(
            caller, SUBJECT, BODY, CallHeaders(), timeout_seconds=10, max_reply_bytes=len(BODY)
        )

    assert reply.data == BODY


async def test_a_callee_that_wants_less_says_so_at_once() -> None:
    broker = MemoryBroker()
    caller, callee = _peers(MemoryBus(broker), MemoryBus(broker))
    async with _echo(callee, max_bytes=1000):
        reply = await bodies.request(caller, SUBJECT, BODY, CallHeaders(), timeout_seconds=5)

    error = wire.decode_error(reply.headers, reply.data)
    assert isinstance(error, Invalid) and "more than 1000 bytes" in error.message


async def test_a_caller_that_takes_no_streams_is_told_how_to_get_a_large_result() -> None:
    bus = MemoryBus(MemoryBroker())
    peer = Peer(bus=bus, lattice="l", owner="NB")
    received: list[Message] = []
    await bus.subscribe("inbox", received.append)

    await bodies.reply(peer, "inbox", BODY, CallHeaders())
    await anyio.wait_all_tasks_blocked()

    error = wire.decode_error(received[0].headers, received[0].data)
    assert isinstance(error, Invalid) and "lattice-accept-stream: true" in error.message


async def test_nobody_there_is_unreachable_for_large_bodies_too() -> None:
    caller, _ = _peers(MemoryBus(MemoryBroker()), MemoryBus(MemoryBroker()))

    with pytest.raises(Unreachable):
        await bodies.request(caller, SUBJECT, BODY, CallHeaders(), timeout_seconds=5)


async def test_a_callee_that_is_silent_times_out() -> None:
    broker = MemoryBroker()
    caller, callee = _peers(MemoryBus(broker), MemoryBus(broker))
    await callee.bus.subscribe(SUBJECT, lambda _: None)

    for body in (b"", BODY):
        with pytest.raises(TimedOut):
            await bodies.request(caller, SUBJECT, body, CallHeaders(), timeout_seconds=0.05)
