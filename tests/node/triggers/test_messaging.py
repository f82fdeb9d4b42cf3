"""Messaging triggers: who is given which message, how often, and what becomes of those that fail."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from lattice import jetstream
from lattice.bus import Bus
from lattice.errors import Failed, Invalid
from lattice.headers import HeaderBlock
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.model import Trigger, TriggerKind
from lattice.nats_bus import NatsBus
from node.triggers.message_settings import parse_messages
from node.triggers.messaging import check_trigger
from tests.node.triggers.messaging_world import PROBE, World, listened
from tests.servers import NatsServer

MEASUREMENTS = 5
"""Of what holds unless the machine stands still meanwhile."""

MakeServer = Callable[..., NatsServer]


@pytest.fixture(params=["at once", "in time", "in batches"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with anyio.create_task_group() as tasks:
        how = request.param
        yield World(tasks, answers_at_once=how == "at once", takes_batches=how == "in batches")
        tasks.cancel_scope.cancel()


@pytest.fixture(params=["memory", "nats"])
async def buses(request: pytest.FixtureRequest, nats_server: NatsServer) -> AsyncIterator[list[Bus]]:
    """Three connections to one broker."""
    if request.param == "memory":
        broker = MemoryBroker()
        async with MemoryBus(broker) as a, MemoryBus(broker) as b, MemoryBus(broker) as c:
            yield [a, b, c]
        return
    settings = nats_server.settings()
    async with NatsBus(settings) as a, NatsBus(settings) as b, NatsBus(settings) as c:
        yield [a, b, c]


async def send(bus: Bus, subject: str, count: int, *, stored: bool = True) -> None:
    for number in range(count):
        if stored:
            await bus.publish_stored(subject, str(number).encode(), timeout_seconds=5)
        else:
            await bus.publish(subject, str(number).encode())


async def subscribed(world: World, bus: Bus, subject: str, *nodes: str) -> None:
    """Return when messages of the subject reach the handlers of these nodes, by default of the first."""
    reached = {(node, subject) for node in nodes or ("one",)}

    with anyio.fail_after(10):
        while not reached <= world.probed:
            await bus.publish(subject, PROBE)
            await anyio.sleep(0.02)


async def unsettled(bus: Bus, stream: str) -> int:
    """Messages of the trigger that were given out, and of which nobody has said yet that they are handled."""
    if isinstance(bus, MemoryBus):
        [queue] = bus.broker.streams[stream].queues()
        return len(queue.given)
    assert isinstance(bus, NatsBus)
    queue_info = await jetstream.call(bus, f"CONSUMER.INFO.{stream}.orders-default")
    return int(queue_info["num_ack_pending"])


# Plain messages


async def test_each_message_is_handled_once_among_the_nodes(
    world: World, buses: list[Bus], lattice_name: str
) -> None:
    one, two, outside = buses
    await world.start("one", one)
    await world.start("two", two)
    world.put(subject=f"{lattice_name}.orders.*")
    await subscribed(world, outside, f"{lattice_name}.orders.new", "one", "two")

    await send(outside, f"{lattice_name}.orders.new", 200, stored=False)
    await world.until(lambda: len(world.handled) >= 200)
    await outside.flush()

    assert Counter(world.texts()) == Counter(str(number) for number in range(200))
    assert {item.node for item in world.handled} == {"one", "two"}
    assert {item.message["subject"] for item in world.handled} == {f"{lattice_name}.orders.new"}


async def test_no_more_are_handled_at_a_time_than_allowed(
    world: World, buses: list[Bus], lattice_name: str
) -> None:
    release = anyio.Event()

    async def slow(message: dict[str, Any], count: int) -> Any:
        await release.wait()
        return {"ok": None}

    world.behave = slow
    await world.start("one", buses[0])
    world.put(subject=f"{lattice_name}.x", concurrency="3")
    await subscribed(world, buses[2], f"{lattice_name}.x")

    await send(buses[2], f"{lattice_name}.x", 20, stored=False)
    await world.until(lambda: world.running == 3)
    release.set()
    await world.until(lambda: len(world.handled) == 20)

    assert world.most_running == 3


async def test_a_handler_that_fails_or_breaks_ends_nothing(
    world: World, buses: list[Bus], lattice_name: str
) -> None:
    async def behave(message: dict[str, Any], count: int) -> Any:
        match message["body"]:
            case b"0":
                return {"err": "no"}
            case b"1":
                raise Failed("broken")
            case b"2":
                raise ZeroDivisionError
        return {"ok": None}

    world.behave = behave
    node = await world.start("one", buses[0])
    world.put(subject=f"{lattice_name}.x", concurrency="1")
    await subscribed(world, buses[2], f"{lattice_name}.x")

    await send(buses[2], f"{lattice_name}.x", 5, stored=False)
    await world.until(lambda: len(world.handled) == 5)
    counts = node.triggers.counts()["orders.default"]

    assert counts.failed == 3


TRACE = "00-11111111111111111111111111111111-2222222222222222-01"


@pytest.mark.parametrize(
    ("sent", "taken"), [(TRACE, TRACE), ("x-admin: 1", None), (f"{TRACE}\nx-admin: 1", None)]
)
async def test_a_trace_that_is_none_is_dropped(
    world: World, nats_server: NatsServer, lattice_name: str, sent: str, taken: str | None
) -> None:
    async with NatsBus(nats_server.settings()) as bus:
        await world.start("one", bus)
        world.put(subject=f"{lattice_name}.x")
        await subscribed(world, bus, f"{lattice_name}.x")
        block = HeaderBlock(f"NATS/1.0\r\ntraceparent: {sent}\r\n\r\n".encode())

        await bus.publish(f"{lattice_name}.x", b"traced", headers=block)
        await world.until(lambda: world.texts()[-1:] == ["traced"])

    assert world.handled[-1].request.traceparent == taken


async def test_a_handler_may_reply_where_it_was_asked_to_and_only_meanwhile(
    world: World, buses: list[Bus], lattice_name: str
) -> None:
    node = await world.start("one", buses[0])
    granted: list[list[str]] = []

    async def reply(message: dict[str, Any], count: int) -> Any:
        call = type("Call", (), {"call_id": world.handled[-1].request.call_id})
        granted.append(node.replies.of(call))  # type: ignore[arg-type]
        if message["reply-to"] is not None:
            await buses[0].publish(message["reply-to"], b"hello " + message["body"])
        return {"ok": None}

    world.behave = reply
    world.put(subject=f"{lattice_name}.x")
    await subscribed(world, buses[2], f"{lattice_name}.x")

    answer = await buses[2].request(f"{lattice_name}.x", b"Ada", timeout_seconds=5)
    last = type("Call", (), {"call_id": world.handled[-1].request.call_id})

    assert answer.data == b"hello Ada"
    assert granted == [[world.handled[-1].message["reply-to"]]]
    assert node.replies.of(last) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("reply", ["lattice.1.default.control.deploy", "$JS.API.STREAM.DELETE.KV_x"])
async def test_nobody_sends_by_way_of_a_component_where_it_may_not_itself(
    world: World, buses: list[Bus], lattice_name: str, reply: str
) -> None:
    await world.start("one", buses[0])
    world.put(subject=f"{lattice_name}.x")
    await subscribed(world, buses[2], f"{lattice_name}.x")

    await buses[2].publish(f"{lattice_name}.x", b"", reply=reply)
    await world.until(lambda: world.handled)

    assert world.handled[0].message["reply-to"] is None


async def test_a_thousand_messages_at_once_leave_others_their_turn(
    world: World, buses: list[Bus], lattice_name: str
) -> None:
    others: list[int] = []

    async def compute(message: dict[str, Any], count: int) -> Any:
        began = time.perf_counter()
        while time.perf_counter() - began < 0.0001:
            pass
        return {"ok": None}

    async def other() -> None:
        while True:
            others.append(len(world.handled))
            await anyio.lowlevel.checkpoint()

    world.behave = compute
    await world.start("one", buses[0])
    world.put(subject=f"{lattice_name}.x")
    await subscribed(world, buses[2], f"{lattice_name}.x")

    world.tasks.start_soon(other)
    outside = buses[2]
    assert isinstance(outside, MemoryBus | NatsBus)
    for number in range(1000):
        outside.publish_nowait(f"{lattice_name}.x", str(number).encode())
    await world.until(lambda: len(world.handled) == 1000)

    assert world.texts() == [str(number) for number in range(1000)]
    assert max(later - earlier for earlier, later in itertools.pairwise(others)) <= 100


async def test_messages_that_wait_in_numbers_may_reply_and_those_behind_keep_their_order(
    world: World, buses: list[Bus], lattice_name: str
) -> None:
    node = await world.start("one", buses[0])

    async def reply(message: dict[str, Any], count: int) -> Any:
        if message["reply-to"] is not None:
            await anyio.lowlevel.checkpoint()
            call = type("Call", (), {"call_id": world.handled[-1].request.call_id})
            assert node.replies.of(call) == [message["reply-to"]]  # type: ignore[arg-type]
            await buses[0].publish(message["reply-to"], message["body"])
        return {"ok": None}

    world.behave = reply
    world.put(subject=f"{lattice_name}.x", concurrency="1")
    answers = await listened(buses[2], f"{lattice_name}.answers")
    await subscribed(world, buses[2], f"{lattice_name}.x")
    outside = buses[2]
    assert isinstance(outside, MemoryBus | NatsBus)
    for number in range(300):
        reply_to = f"{lattice_name}.answers" if number % 50 == 7 else None
        outside.publish_nowait(f"{lattice_name}.x", str(number).encode(), reply=reply_to)
    await world.until(lambda: len(world.handled) == 300 and len(answers) == 6)

    assert world.texts() == [str(number) for number in range(300)]
    assert [answer.data for answer in answers] == [str(number).encode() for number in range(7, 300, 50)]
    assert not node.replies._subjects


async def test_a_node_without_a_replica_takes_no_messages(
    world: World, buses: list[Bus], lattice_name: str
) -> None:
    one = await world.start("one", buses[0])
    await world.start("two", buses[1])
    world.put(subject=f"{lattice_name}.x")
    await world.until(lambda: all(node.triggers.counts() for node in world.nodes.values()))
    one.serves = False
    await world.until(lambda: not one.triggers.counts())
    await subscribed(world, buses[2], f"{lattice_name}.x", "two")

    await send(buses[2], f"{lattice_name}.x", 50, stored=False)
    await world.until(lambda: len(world.handled) >= 50)

    assert {item.node for item in world.handled} == {"two"}


async def test_a_changed_trigger_takes_effect_at_once(
    world: World, buses: list[Bus], lattice_name: str
) -> None:
    await world.start("one", buses[0])
    world.put(subject=f"{lattice_name}.old")
    await subscribed(world, buses[2], f"{lattice_name}.old")

    world.put(subject=f"{lattice_name}.new")
    await subscribed(world, buses[2], f"{lattice_name}.new")
    await buses[2].publish(f"{lattice_name}.old", b"old")
    await buses[2].publish(f"{lattice_name}.new", b"new")
    await world.until(lambda: world.handled)

    assert set(world.texts()) == {"new"}


# Messages of a stream


async def test_messages_of_a_stream_are_handled_and_settled(
    world: World, buses: list[Bus], lattice_name: str
) -> None:
    one, two, outside = buses
    await outside.make_stream(lattice_name, f"{lattice_name}.>")
    await send(outside, f"{lattice_name}.early", 10)
    await world.start("one", one)
    await world.start("two", two)
    world.put(stream=lattice_name, subject=f"{lattice_name}.>", concurrency="2")
    await send(outside, f"{lattice_name}.late", 50)
    await world.until(lambda: len(world.handled) >= 60)
    with anyio.fail_after(10):
        while await unsettled(outside, lattice_name):  # noqa: ASYNC110 - the server tells nobody
            await anyio.sleep(0.02)

    counts = Counter((item.message["subject"], item.text) for item in world.handled)
    assert set(counts.values()) == {1}
    assert len(counts) == 60
    assert all(item.message["reply-to"] is None for item in world.handled)


async def test_what_fails_is_given_again_later(world: World, buses: list[Bus], lattice_name: str) -> None:
    async def third_time(message: dict[str, Any], count: int) -> Any:
        return {"ok": None} if count == 3 else {"err": f"attempt {count}"}

    world.behave = third_time
    await world.start("one", buses[0])
    world.put(stream=lattice_name, subject=f"{lattice_name}.x", backoff="20ms")
    await buses[2].make_stream(lattice_name, f"{lattice_name}.x")
    await send(buses[2], f"{lattice_name}.x", 3)
    await world.until(lambda: len(world.handled) >= 9)
    await anyio.sleep(0.1)

    assert Counter(world.texts()) == {"0": 3, "1": 3, "2": 3}


async def test_a_message_that_is_given_up_becomes_a_dead_letter_that_says_why(
    world: World, buses: list[Bus], lattice_name: str
) -> None:
    async def never(message: dict[str, Any], count: int) -> Any:
        return {"err": "cannot\nread this"} if message["body"] == b"1" else {"ok": None}

    world.behave = never
    dead = await listened(buses[2], f"{lattice_name}.dead")
    await world.start("one", buses[0])
    world.put(
        stream=lattice_name,
        subject=f"{lattice_name}.in",
        backoff="10ms",
        max_deliver="3",
        dead_letter=f"{lattice_name}.dead",
    )
    await buses[2].make_stream(lattice_name, f"{lattice_name}.in")
    await send(buses[2], f"{lattice_name}.in", 3)
    await world.until(lambda: dead and "2" in world.texts())

    assert Counter(world.texts()) == {"0": 1, "1": 3, "2": 1}
    assert [message.data for message in dead] == [b"1"]
    why = dead[0].headers
    assert why["lattice-dead-letter-reason"] == "cannot read this"
    assert why["lattice-dead-letter-attempts"] == "3"
    assert why["lattice-dead-letter-component"] == "orders"
    assert why["lattice-dead-letter-subject"] == f"{lattice_name}.in"
    assert why["lattice-dead-letter-sequence"] == "2"


async def test_no_header_of_a_message_keeps_it_from_becoming_a_dead_letter(
    world: World, nats_server: NatsServer, lattice_name: str
) -> None:
    async def never(message: dict[str, Any], count: int) -> Any:
        return {"err": "no"}

    world.behave = never
    lines = f"Nats-Expected-Stream: {lattice_name}\r\na(b: 1\r\nkind: order"
    async with NatsBus(nats_server.settings()) as bus:
        dead = await listened(bus, f"{lattice_name}.dead")
        await world.start("one", bus)
        world.put(
            stream=lattice_name,
            subject=f"{lattice_name}.in",
            backoff="10ms",
            max_deliver="1",
            dead_letter=f"{lattice_name}.dead",
        )
        await bus.make_stream(lattice_name, f"{lattice_name}.in")
        block = HeaderBlock(f"NATS/1.0\r\n{lines}\r\n\r\n".encode())
        await bus.publish_stored(f"{lattice_name}.in", b"1", headers=block, timeout_seconds=5)
        await world.until(lambda: dead)

    assert dead[0].headers["kind"] == "order"
    assert not {"Nats-Expected-Stream", "a(b"} & dead[0].headers.keys()


async def test_a_long_handler_keeps_its_message(world: World, buses: list[Bus], lattice_name: str) -> None:
    async def slow(message: dict[str, Any], count: int) -> Any:
        await anyio.sleep(1.0)
        return {"ok": None}

    world.behave = slow
    await world.start("one", buses[0])
    world.put(stream=lattice_name, subject=f"{lattice_name}.x", ack_wait="300ms")
    await buses[2].make_stream(lattice_name, f"{lattice_name}.x")

    for _ in range(MEASUREMENTS):
        world.handled.clear()
        await send(buses[2], f"{lattice_name}.x", 1)
        await world.until(lambda: world.handled and not world.running)
        await anyio.sleep(0.5)
        if world.texts() == ["0"]:
            break

    assert world.texts() == ["0"]


async def test_what_a_lost_node_had_is_given_to_another(
    world: World, buses: list[Bus], lattice_name: str
) -> None:
    async def behave(message: dict[str, Any], count: int) -> Any:
        if world.handled[-1].node == "one":
            await anyio.sleep_forever()
        return {"ok": None}

    world.behave = behave
    one = await world.start("one", buses[0])
    world.put(stream=lattice_name, subject=f"{lattice_name}.x", ack_wait="500ms", concurrency="4")
    await buses[2].make_stream(lattice_name, f"{lattice_name}.x")
    await send(buses[2], f"{lattice_name}.x", 4)
    await world.until(lambda: world.running == 4)
    one.kill()
    await world.start("two", buses[1])

    def given_to_two() -> set[str]:
        return {item.text for item in world.handled if item.node == "two"}

    await world.until(lambda: given_to_two() == {"0", "1", "2", "3"})


async def test_who_leaves_finishes_what_it_has_begun(
    world: World, buses: list[Bus], lattice_name: str
) -> None:
    release = anyio.Event()

    async def slow(message: dict[str, Any], count: int) -> Any:
        await release.wait()
        return {"ok": None}

    world.behave = slow
    one = await world.start("one", buses[0])
    world.put(stream=lattice_name, subject=f"{lattice_name}.x", concurrency="2")
    await buses[2].make_stream(lattice_name, f"{lattice_name}.x")
    await send(buses[2], f"{lattice_name}.x", 6)
    await world.until(lambda: world.running == 2)
    one.triggers.stop_taking()
    await world.start("two", buses[1])
    await world.until(lambda: world.running == 4)
    release.set()
    await world.until(lambda: len(world.handled) >= 6)

    assert Counter(world.texts()) == Counter(str(number) for number in range(6))
    assert sum(item.node == "one" for item in world.handled) == 2


@pytest.mark.fault
async def test_nothing_is_lost_when_the_server_is_killed_while_messages_are_handled(
    world: World, make_nats_server: MakeServer, lattice_name: str, tmp_path: Path
) -> None:
    server = make_nats_server(jetstream={"sync_interval": "always", "store_dir": str(tmp_path / "streams")})
    done: Counter[str] = Counter()

    async def behave(message: dict[str, Any], count: int) -> Any:
        await anyio.sleep(0.002)
        done[message["body"].decode()] += 1
        return {"ok": None}

    world.behave = behave
    async with NatsBus(server.settings()) as one, NatsBus(server.settings()) as outside:
        await outside.make_stream(lattice_name, f"{lattice_name}.x")
        await send(outside, f"{lattice_name}.x", 300)
        node = await world.start("one", one)
        world.put(stream=lattice_name, subject=f"{lattice_name}.x", concurrency="4", ack_wait="2s")
        await world.until(lambda: len(done) >= 50)
        await anyio.to_thread.run_sync(server.kill)
        await anyio.to_thread.run_sync(server.start)
        await world.until(lambda: len(done) == 300, 30)
        await world.until(lambda: outside.is_connected)
        await outside.publish_stored(f"{lattice_name}.x", b"after", timeout_seconds=5)
        await world.until(lambda: done["after"] == 1, 10)
        node.kill()

    assert set(done) == {str(number) for number in range(300)} | {"after"}


# Settings


@pytest.mark.parametrize(
    ("configuration", "named"),
    [
        ({}, "needs `subject`"),
        ({"subject": "lattice.>"}, "`subject`"),
        ({"subject": "$JS.>"}, "`subject`"),
        ({"subject": ">"}, "`subject`"),
        ({"subject": "a b"}, "`subject`"),
        ({"subject": "a", "subjects": "b"}, "did you mean `subject`"),
        ({"subject": "a", "ack_wait": "1s"}, "`stream=NAME`"),
        ({"subject": "a", "stream": "KV_x"}, "`stream`"),
        ({"subject": "a", "stream": "a.b"}, "`stream`"),
        ({"subject": "a", "stream": "s", "queue": "q"}, "`durable`"),
        ({"subject": "a", "stream": "s", "ack_wait": "0s"}, "`ack_wait`"),
        ({"subject": "a", "stream": "s", "dead_letter": "a.*"}, "`dead_letter`"),
        ({"subject": "a", "stream": "s", "start": "middle"}, "`start`"),
        ({"subject": "a", "concurrency": "0"}, "`concurrency`"),
    ],
)
def test_a_bad_configuration_is_invalid_and_named(configuration: dict[str, str], named: str) -> None:
    with pytest.raises(Invalid, match=named):
        check_trigger(Trigger(component="orders", kind=TriggerKind.MESSAGING, configuration=configuration))


def test_defaults_come_from_component_and_trigger() -> None:
    plain = parse_messages("orders", "default", {"subject": "orders.*"})
    stored = parse_messages("orders", "slow", {"subject": "orders.>", "stream": "ORDERS"})

    assert (plain.queue, plain.concurrency, plain.stream) == ("orders", 32, None)
    assert stored.stream is not None
    assert (stored.stream.durable, stored.stream.max_deliver) == ("orders-slow", 5)
