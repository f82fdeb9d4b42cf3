"""Calls over the bus: routing, retries, and the end of calls to a node that is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from lattice import jobs, subjects, wire
from lattice.bus import Message
from lattice.caller import Caller, CallRequest, Reply
from lattice.errors import (
    Denied,
    Interrupted,
    LatticeError,
    NotFound,
    Overloaded,
    TimedOut,
    Trapped,
    Unreachable,
)
from lattice.exchange import Exchange
from lattice.inventory import Offer
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.model import ComponentSpec, new_application
from lattice.outcome import Done, Outcome, ended, failed
from lattice.state import LatticeState
from lattice.streams import ByteReceiver
from tests.lattice.places import Place

LATTICE = "test"
DIGEST = "sha256:" + "0" * 64


@dataclass
class World:
    """Replicas on scripted nodes, observed by a state whose placements the test writes."""

    bus: MemoryBus
    places: list[Place] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    known: bool = True

    def __post_init__(self) -> None:
        self.state = LatticeState()
        self.state.placements = lambda component: self.places  # type: ignore[method-assign, assignment, return-value]
        spec = ComponentSpec(name="greeter", digest=DIGEST)
        self.state.apply(new_application("greeter", None, 1, components=[spec]), 0.0)

    async def serve(self, node: str, answer: Callable[[Message], Any]) -> None:
        def take(message: Message) -> None:
            self.asked.append(node)
            assert message.reply is not None
            try:
                headers, data = None, wire.encode(answer(message))
            except LatticeError as error:
                headers, data = wire.encode_error(error)
            self.bus.publish_nowait(message.reply, data, headers=headers)

        await self.bus.subscribe(subjects.node_calls(LATTICE, node), take)
        self.places.append(Place(node))

    def caller(self, **options: Any) -> Caller:
        return Caller(self.bus, LATTICE, self.state, name="test", knows_all=lambda: self.known, **options)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with MemoryBus(MemoryBroker()) as bus:
        yield World(bus)


def request(seconds: float = 5.0, **changes: Any) -> CallRequest:
    fields: dict[str, Any] = {
        "component": "greeter",
        "interface": "demo:greeter/greet",
        "function": "hello",
        "deadline": anyio.current_time() + seconds,
        "call_id": "c1",
    }
    return CallRequest(**{**fields, **changes})


def failing(error: LatticeError) -> Callable[[Message], Any]:
    def answer(message: Message) -> Any:
        raise error

    return answer


async def test_a_call_returns_the_value_of_the_node_that_was_asked(world: World) -> None:
    await world.serve("N1", lambda message: wire.decode(message.data)[0].upper())

    assert await world.caller().call(request(), ["ada"]) == "ADA"


async def test_what_surely_did_not_begin_is_asked_of_another_node(world: World) -> None:
    await world.serve("N1", failing(Unreachable("no replica")))
    await world.serve("N2", lambda message: "two")
    world.places[1].load = 9.0

    assert await world.caller().call(request(), []) == "two"


async def test_a_node_that_nobody_serves_is_passed_over_at_once(world: World) -> None:
    world.places.append(Place("N0"))
    await world.serve("N1", lambda message: "one")

    assert await world.caller().call(request(), []) == "one"


async def test_overload_of_all_replicas_is_the_answer(world: World) -> None:
    await world.serve("N1", failing(Overloaded("full")))
    await world.serve("N2", failing(Overloaded("full")))

    with pytest.raises(Overloaded):
        await world.caller().call(request(), [])
    assert sorted(world.asked) == ["N1", "N2"]


async def test_an_error_of_the_guest_is_not_retried(world: World) -> None:
    await world.serve("N1", failing(Trapped("unreachable executed")))

    with pytest.raises(Trapped, match="unreachable executed"):
        await world.caller().call(request(), [])
    assert world.asked == ["N1"]


async def test_an_interrupted_call_is_repeated_only_if_it_is_idempotent(world: World) -> None:
    await world.serve("N1", failing(Interrupted("lost")))
    await world.serve("N2", lambda message: "two")
    world.places[1].load = 9.0

    with pytest.raises(Interrupted):
        await world.caller().call(request(), [])
    assert await world.caller().call(request(idempotent=True), []) == "two"


async def test_calls_pending_on_a_lost_node_end_at_once(world: World) -> None:
    taken = anyio.Event()
    await world.bus.subscribe(subjects.node_calls(LATTICE, "N1"), lambda message: taken.set())
    world.places.append(Place("N1"))
    caller = world.caller()

    async with anyio.create_task_group() as tasks:

        async def lose() -> None:
            await taken.wait()
            world.places.clear()
            caller.node_lost("N1")

        tasks.start_soon(lose)
        with pytest.raises(Interrupted, match="was lost while it ran the call"):
            await caller.call(request(), [])


async def test_bodies_begun_while_those_of_a_lost_node_still_end_are_known_when_it_is_lost_again(
    world: World,
) -> None:
    caller, interrupted = world.caller(), list[int]()

    async def wait_for_ever() -> Message:
        await anyio.sleep_forever()
        raise AssertionError("nothing ended the wait")

    async def stream(number: int) -> None:
        with pytest.raises(Interrupted):
            await caller._streamed("N1", wait_for_ever, 30.0)
        interrupted.append(number)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream, 1)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(stream, 2)
        caller.node_lost("N1")
        await anyio.wait_all_tasks_blocked()
        caller.node_lost("N1")
        with anyio.move_on_after(1):
            await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()

    assert interrupted == [1, 2]


async def test_a_call_waits_for_a_replica_until_one_appears(world: World) -> None:
    caller = world.caller()

    async with anyio.create_task_group() as tasks:

        async def appear() -> None:
            await world.serve("N1", lambda message: "late")
            caller.placements_changed()

        tasks.start_soon(appear)
        assert await caller.call(request(), []) == "late"


async def test_a_call_without_a_replica_ends_with_its_budget(world: World) -> None:
    with pytest.raises(Unreachable, match="no replica of 'greeter' is running"):
        await world.caller().call(request(0.05), [])


async def test_a_call_without_a_replica_says_that_others_can_not_be_asked_without_a_connection(
    world: World,
) -> None:
    world.bus.disconnect()

    with pytest.raises(Unreachable, match=r"no replica of .greeter. is here.* NATS is lost"):
        await world.caller().call(request(0.05), [])


async def test_an_unknown_component_is_not_waited_for(world: World) -> None:
    with pytest.raises(NotFound, match="did you mean `greeter`"):
        await world.caller().call(request(component="greter"), [])


async def test_a_provider_that_nobody_can_serve_is_not_waited_for(world: World) -> None:
    view = SimpleNamespace(id="A")
    offer = Offer(name="cache", kind="keyvalue-redis", is_healthy=False, reason="no server")
    world.state.observed.offers["cache"] = {"A": (view, offer)}  # type: ignore[dict-item]

    with pytest.raises(Unreachable, match="no server"):
        await world.caller().call(request(component="cache"), [])
    with pytest.raises(Unreachable, match="no node offers it"):
        await world.caller().call(request(component="gone", link="default"), [])
    world.known = False
    with pytest.raises(Unreachable, match="no replica"):  # it may be a component not heard of yet
        await world.caller().call(request(0.05, component="new", link="default"), [])


async def test_a_silent_node_ends_the_call_with_its_budget(world: World) -> None:
    await world.bus.subscribe(subjects.node_calls(LATTICE, "N1"), lambda message: None)
    world.places.append(Place("N1"))

    with pytest.raises(TimedOut):
        await world.caller().call(request(0.05), [])


async def test_a_local_replica_is_called_without_the_bus(world: World) -> None:
    class Local:
        async def begin(self, request: CallRequest, args: Any) -> Any:
            return ["local", *args]

        def serves(self, component: str) -> bool:
            return component == "greeter"

        async def call_encoded(self, request: CallRequest, body: bytes, content_type: str) -> Reply:
            return Reply(data=b"encoded")

    world.places.append(Place("N1"))
    caller = world.caller(node="ME", local=Local())

    assert await caller.call(request(), [1]) == ["local", 1]
    assert (await caller.forward(request(), b"", wire.MSGPACK)).data == b"encoded"


async def test_what_a_local_replica_answers_at_once_is_over_at_once(world: World) -> None:
    caller = world.caller(node="ME", local=AtOnce(lambda args: Done(args[0] + 1)))

    outcome = caller.begin(request(), [1])

    assert isinstance(outcome, Done)
    assert outcome.value == 2
    assert await caller.call(request(), [2]) == 3


@pytest.mark.parametrize("error", [Unreachable("being moved"), Overloaded("full")])
async def test_what_a_local_replica_could_not_begin_goes_elsewhere(world: World, error: LatticeError) -> None:
    await world.serve("N1", lambda message: wire.decode_headers(message.headers).attempt)
    caller = world.caller(node="ME", local=AtOnce(lambda args: failed(error)))

    outcome = caller.begin(request(), [])

    assert not isinstance(outcome, Done)
    assert await outcome == 2


async def test_a_job_is_begun_by_no_call(world: World) -> None:
    caller = world.caller(node="ME", local=AtOnce(lambda args: Done("begun")))

    with pytest.raises(Denied):
        await ended(caller.begin(request(interface=jobs.INTERFACE), []))


@dataclass
class AtOnce:
    """Replicas on the caller's node that answer as the test says."""

    answer: Callable[[Any], Outcome[Any]]

    def begin(self, request: CallRequest, args: Any) -> Outcome[Any]:
        return self.answer(args)

    async def call_encoded(self, request: CallRequest, body: bytes, content_type: str) -> Reply:
        return Reply(data=body)

    async def exchange(self, request: CallRequest, args: Any, body: ByteReceiver | None) -> Exchange:
        return Exchange(await ended(self.begin(request, args)))

    def serves(self, component: str) -> bool:
        return True


async def test_hops_and_attempts_are_counted(world: World) -> None:
    seen: list[wire.CallHeaders] = []

    def answer(message: Message) -> Any:
        seen.append(wire.decode_headers(message.headers))
        if len(seen) == 1:
            raise Unreachable("not here")
        return None

    await world.serve("N1", answer)
    await world.serve("N2", answer)
    await world.caller().call(request(hops=3), [])

    assert [(call.hops, call.attempt) for call in seen] == [(4, 1), (4, 2)]
    assert all(call.caller == "test" and call.call_id == "c1" for call in seen)


async def test_a_component_of_no_replicas_is_not_waited_for(world: World) -> None:
    spec = ComponentSpec(name="idle", digest=DIGEST, replicas=0)
    world.state.apply(new_application("idle", None, 1, components=[spec]), 0.0)

    with anyio.fail_after(5), pytest.raises(Unreachable, match="`latticectl scale idle --replicas 1`"):
        await world.caller().call(request(component="idle"), [])


async def test_a_call_that_may_have_begun_never_ends_as_surely_not_begun(world: World) -> None:
    await world.serve("N1", failing(Interrupted("lost")))
    await world.serve("N2", failing(Unreachable("no replica")))
    world.places[1].load = 9.0

    with pytest.raises((Interrupted, TimedOut)):
        await world.caller().call(request(0.2, idempotent=True), [])


async def test_requests_to_other_nodes_go_on_when_one_is_lost(world: World) -> None:
    release = anyio.Event()
    replies: list[Message] = []
    await world.bus.subscribe(subjects.node_calls(LATTICE, "N1"), replies.append)
    world.places.append(Place("N1"))
    caller = world.caller()

    async with anyio.create_task_group() as tasks:

        async def answer() -> None:
            with anyio.fail_after(5):
                while not replies:
                    await anyio.lowlevel.checkpoint()
            caller.node_lost("N2")
            assert replies[0].reply is not None
            await world.bus.publish(replies[0].reply, wire.encode("still here"))
            release.set()

        tasks.start_soon(answer)
        assert await caller.call(request(), []) == "still here"
    assert release.is_set()
