"""The library by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ctl.artifact import Artifact
from ctl.calling import CallOptions, may_repeat, retry_delay
from ctl.client import ControlClient, connection_settings
from ctl.deployment import Deployment
from ctl.functions import Function
from ctl.listening import QUEUE_LENGTH
from ctl.settings import ClientSettings
from lattice.errors import Conflict, Failed, Interrupted, Invalid, NotFound, Overloaded, TimedOut, Unreachable
from lattice.memory_bus import MemoryBus
from tests.ctl.fake_node import FakeNode, line

EVENT = {"time": 1.0, "event": "replica.running", "component": "greeter", "count": 2}
EVENT_SUBJECT = "lattice.1.default.event.replica.running"


async def test_a_component_is_uploaded_deployed_called_and_deleted(
    client: ControlClient, node: FakeNode
) -> None:
    artifact = Artifact(data=b"wasm", digest="sha256:" + "1" * 64)

    assert await client.upload(artifact)
    assert not await client.upload(artifact)
    assert (await client.prepare(artifact.digest)).size == 4
    change = await client.deploy(Deployment(name="greeter", digest=artifact.digest))
    assert change.generation == 1
    assert await client.call("greeter", "greet", ["World"]) == "Hello, World!"
    assert await client.call("greeter", "greet", {"name": "World"}) == "Hello, World!"
    await client.delete("greeter")
    with pytest.raises(NotFound):
        await client.describe_component("greeter")


async def test_a_deployment_can_be_refused_for_its_generation(client: ControlClient, node: FakeNode) -> None:
    node.deployed("greeter", generation=5)

    with pytest.raises(Conflict):
        await client.deploy(Deployment(name="greeter", digest="sha256:" + "1" * 64, expected_generation=4))


async def test_a_function_found_once_is_called_without_asking_again(
    client: ControlClient, node: FakeNode
) -> None:
    node.deployed("greeter")
    greet = await client.function("greeter", "greet")
    asked = len(node.requests)

    assert [await client.invoke(greet, [name]) for name in "ab"] == ["Hello, a!", "Hello, b!"]
    assert len(node.requests) == asked
    assert greet.text == "demo:greeter/greet@0.1.0 greet: func(name: string) -> string"


async def test_arguments_are_checked_before_they_are_sent(client: ControlClient, node: FakeNode) -> None:
    node.deployed("greeter")

    with pytest.raises(Invalid, match="argument 'value': 300 is out of range for u8"):
        await client.call("greeter", "limit", [300])

    assert node.calls == []


async def test_another_way_of_calling_can_be_plugged_in(bus: MemoryBus, node: FakeNode) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.calls: list[tuple[str, list[Any]]] = []

        async def call(self, function: Function, args: Sequence[Any], options: CallOptions) -> Any:
            self.calls.append((function.name, list(args)))
            return "elsewhere"

    node.deployed("greeter")
    recorder = Recorder()
    client = ControlClient(bus, caller=recorder)

    assert await client.call("greeter", "greet", ["World"]) == "elsewhere"
    assert recorder.calls == [("greet", ["World"])]


async def test_an_operation_that_could_not_begin_is_tried_again(
    client: ControlClient, node: FakeNode
) -> None:
    node.refusals["get.nodes"] = [Unreachable("no controller yet"), Overloaded("too many requests")]

    assert len(await client.nodes()) == 1
    assert node.operations() == ["get.nodes"] * 3


async def test_nobody_there_is_told_at_once(bus: MemoryBus) -> None:
    with pytest.raises(Unreachable):
        await ControlClient(bus, timeout_seconds=60).nodes()


async def test_a_node_that_does_not_answer_is_timed_out_by_operation(bus: MemoryBus) -> None:
    await bus.subscribe("lattice.1.default.control.>", lambda message: None)

    with pytest.raises(TimedOut, match=r"`get\.nodes` was not answered within 0\.1 s"):
        await ControlClient(bus, timeout_seconds=0.1).nodes()


async def test_a_call_that_is_not_answered_is_timed_out_by_function(
    bus: MemoryBus, client: ControlClient, node: FakeNode
) -> None:
    node.deployed("greeter")
    greet = await client.function("greeter", "greet")
    elsewhere = ControlClient(bus, lattice="silent")
    await bus.subscribe("lattice.1.silent.call.>", lambda message: None)

    with pytest.raises(TimedOut, match=r"`greeter` did not answer `greet` within 0\.1 s"):
        await elsewhere.invoke(greet, ["World"], CallOptions(budget_seconds=0.1))


async def test_events_come_with_their_details(client: ControlClient, node: FakeNode) -> None:
    async with client.events() as events:
        await node.publish(EVENT_SUBJECT, EVENT)
        event = await anext(aiter(events))

    assert event.event == "replica.running"
    assert event.component == "greeter"
    assert event.details == {"count": 2}


async def test_a_slow_reader_loses_events_and_knows_how_many(client: ControlClient, node: FakeNode) -> None:
    async with client.events() as events:
        for _ in range(QUEUE_LENGTH + 5):
            await node.publish(EVENT_SUBJECT, EVENT)
        await client.nodes()  # its reply comes after the events

        assert events.dropped == 5


async def test_what_cannot_be_read_is_passed_over(
    bus: MemoryBus, client: ControlClient, node: FakeNode
) -> None:
    async with client.follow_log("greeter") as lines:
        await bus.publish("lattice.1.default.log.greeter", b"\xc1")
        await node.publish("lattice.1.default.log.greeter", line("readable"))

        assert (await anext(aiter(lines))).text == "readable"


@pytest.mark.parametrize(
    ("error", "idempotent", "repeats"),
    [
        (Unreachable("x"), False, True),
        (Overloaded("x"), False, True),
        (Interrupted("x"), False, False),
        (Interrupted("x"), True, True),
        (TimedOut("x"), True, False),
        (Invalid("x"), True, False),
    ],
)
def test_only_what_does_no_harm_is_repeated(error: Unreachable, idempotent: bool, repeats: bool) -> None:
    assert may_repeat(error, CallOptions(idempotent=idempotent)) is repeats


def test_delays_grow_to_a_limit() -> None:
    delays = [retry_delay(attempt, 1.0) for attempt in (1, 2, 3, 10, 1000)]

    assert delays == sorted(delays)
    assert delays[0] == 0.02 and delays[-1] == 0.5
    assert retry_delay(1, 0.0) == 0.01


def test_settings_come_from_the_environment() -> None:
    found = ClientSettings.from_environment(
        {"LATTICE_NATS": "nats://u:p@one:5, two", "LATTICE_LATTICE": "shop", "LATTICE_TIMEOUT": "2s"}
    )

    connection = connection_settings(found)
    assert found.lattice == "shop"
    assert connection.urls == ("nats://one:5", "nats://two:4222")
    assert connection.credentials is not None and connection.credentials.user == "u"
    assert connection.connect_seconds == 2


def test_wrong_settings_name_the_variable() -> None:
    with pytest.raises(Invalid, match="LATTICE_TIMEOUT"):
        ClientSettings.from_environment({"LATTICE_TIMEOUT": "soon"})
    with pytest.raises(Invalid, match="lattice 'a b'"):
        ClientSettings.from_environment({"LATTICE_LATTICE": "a b"})


async def test_a_node_that_cannot_compile_for_itself_leaves_it_to_another(
    client: ControlClient, node: FakeNode
) -> None:
    artifact = Artifact(data=b"wasm", digest="sha256:" + "1" * 64)
    await client.upload(artifact)
    node.refusals["prepare"] = [Failed("the disk is full")]

    assert (await client.prepare(artifact.digest)).size == 4
