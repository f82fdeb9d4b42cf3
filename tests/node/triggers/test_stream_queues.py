"""Durable queues of messaging triggers: they end with their trigger, and with nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.abc
import pytest

from lattice import subjects
from lattice.bus import Bus, KeyValue
from lattice.edits import Editor
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.model import ComponentSpec, Marker, Trigger, TriggerKind
from lattice.nats_bus import NatsBus
from lattice.observer import MARKER_KEY, Observer, encode_value
from node.desired_changes import deleted, deployed, triggered, untriggered
from node.triggers.stream_queues import StreamQueues
from tests.node.triggers.messaging_world import World, well
from tests.servers import NatsServer

pytestmark = pytest.mark.slow

RETIRE_SECONDS = 0.5
LOOKS = {"retire_seconds": RETIRE_SECONDS, "busy_seconds": 0.2, "idle_seconds": 0.4}
SPEC = ComponentSpec(name="orders", digest=f"sha256:{1:064x}")
IDENTITY = ("orders", TriggerKind.MESSAGING, "default")


class Lattice:
    """A store with one component, a node that takes its messages, and nodes that may lead."""

    def __init__(
        self, name: str, world: World, buses: list[Bus], store: KeyValue, observer: Observer
    ) -> None:
        self.name = name
        self.world = world
        self.own, self.other = buses
        self.store = store
        self.observer = observer
        self.editor = Editor(store, observer)

    async def put(self, **configuration: str) -> None:
        """Put the trigger; like all here, it is named `default`."""
        given = {"stream": self.name, "subject": f"{self.name}.x", "concurrency": "1", **configuration}
        trigger = Trigger(component="orders", kind=TriggerKind.MESSAGING, configuration=given)
        await self.editor.edit("orders", triggered(trigger))

    async def delete(self) -> None:
        await self.editor.edit("orders", untriggered("orders", IDENTITY))

    async def lead(self, observer: Observer | None = None, **looks: float) -> anyio.CancelScope:
        """A node that leads, until the scope is cancelled."""
        queues = StreamQueues(
            self.other, self.name, observer or self.observer, is_leading=lambda: True, **{**LOOKS, **looks}
        )
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                await queues.run()

        self.world.tasks.start_soon(run)
        return scope

    async def publish(self, *texts: str) -> None:
        for text in texts:
            await self.own.publish_stored(f"{self.name}.x", text.encode(), timeout_seconds=5)

    async def queues(self) -> dict[str, bool]:
        """Whether each is retired, by name."""
        return {queue.name: queue.is_retired for queue in await self.own.owned_queues(self.name)}

    async def until(self, *queues: dict[str, bool]) -> None:
        """Return when the queues are one of these."""
        with anyio.fail_after(10):
            while await self.queues() not in queues:  # noqa: ASYNC110 - the server tells nobody
                await anyio.sleep(0.02)


@pytest.fixture(params=["memory", "nats"])
async def buses(request: pytest.FixtureRequest, nats_server: NatsServer) -> AsyncIterator[list[Bus]]:
    """Two connections to one broker."""
    if request.param == "memory":
        broker = MemoryBroker()
        async with MemoryBus(broker) as a, MemoryBus(broker) as b:
            yield [a, b]
        return
    async with NatsBus(nats_server.settings()) as a, NatsBus(nats_server.settings()) as b:
        yield [a, b]


@pytest.fixture
async def lattice(buses: list[Bus], lattice_name: str) -> AsyncIterator[Lattice]:
    store = await buses[0].key_value(subjects.state_bucket(lattice_name))
    await store.create(MARKER_KEY, encode_value(Marker(incarnation=1)))
    async with anyio.create_task_group() as tasks:
        observer = await observing(buses[0], lattice_name, tasks)
        world = World(tasks, observed=observer, lattice=lattice_name)  # type: ignore[arg-type]  # the real one
        lattice = Lattice(lattice_name, world, buses, store, observer)
        await lattice.editor.edit("orders", deployed(SPEC, (), (), None))
        await lattice.own.make_stream(lattice_name, f"{lattice_name}.x")
        await world.start("one", lattice.own)
        yield lattice
        tasks.cancel_scope.cancel()


async def observing(bus: Bus, name: str, tasks: anyio.abc.TaskGroup) -> Observer:
    """An observer that has read the store, as a leader's has."""
    observer = Observer(bus, name)
    await tasks.start(observer.run)
    observer.state.desired.is_complete = True
    return observer


async def test_a_deleted_triggers_queue_ends(lattice: Lattice) -> None:
    await lattice.lead()
    await lattice.put()
    await lattice.until({"orders-default": False})

    await lattice.delete()

    await lattice.until({})


async def test_a_deleted_components_queues_end(lattice: Lattice) -> None:
    await lattice.lead()
    await lattice.put(durable="shop")
    await lattice.until({"shop": False})

    await lattice.editor.edit("orders", deleted("orders"))

    await lattice.until({})


async def test_a_queue_ends_when_its_trigger_names_another_one(lattice: Lattice) -> None:
    await lattice.lead()
    await lattice.put()
    await lattice.until({"orders-default": False})

    await lattice.put(durable="others")

    await lattice.until({"others": False})


async def test_what_was_not_settled_outlives_all_nodes_that_took_it(lattice: Lattice) -> None:
    async def stuck(message: dict[str, Any], count: int) -> Any:
        await anyio.sleep_forever()

    lattice.world.behave = stuck
    await lattice.lead()
    await lattice.put(start="new", ack_wait="1s")
    await lattice.until({"orders-default": False})
    await lattice.publish("a", "b")
    await lattice.world.until(lambda: lattice.world.running == 1)
    lattice.world.nodes["one"].kill()
    await anyio.sleep(3 * RETIRE_SECONDS)

    assert await lattice.queues() == {"orders-default": False}
    lattice.world.behave = well
    lattice.world.handled.clear()
    await lattice.world.start("two", lattice.other)
    await lattice.world.until(lambda: set(lattice.world.texts()) == {"a", "b"})


async def test_a_trigger_that_is_deleted_and_put_again_goes_on_where_it_was(lattice: Lattice) -> None:
    await lattice.lead(retire_seconds=5.0)  # it is put again before
    await lattice.put(start="new")
    await lattice.until({"orders-default": False})

    def has_handled(count: int, *, at_least: bool = False) -> Callable[[], bool]:
        handled = lattice.world.handled
        return lambda: len(handled) == count or (at_least and len(handled) > count)

    for number in range(5):
        await lattice.publish(f"{number}")
        await lattice.world.until(has_handled(number + 1))
        await lattice.delete()
        await anyio.sleep(0.1 * number)
        await lattice.publish(f"{number} late")
        await lattice.put(start="new")
        await lattice.world.until(has_handled(number + 2, at_least=True))
        lattice.world.handled = lattice.world.handled[: number + 1]
    await anyio.sleep(3 * RETIRE_SECONDS)

    assert await lattice.queues() == {"orders-default": False}


async def test_who_leads_next_finds_what_the_last_one_left(lattice: Lattice) -> None:
    await lattice.put()
    await lattice.until({"orders-default": False})
    await lattice.delete()
    await anyio.sleep(0.3)

    assert await lattice.queues() == {"orders-default": False}
    await lattice.lead()
    await lattice.until({})


async def test_a_decision_that_comes_too_late_is_taken_back(lattice: Lattice) -> None:
    await lattice.put()
    await lattice.until({"orders-default": False})
    lattice.world.nodes["one"].serves = False
    (queue,) = await lattice.own.owned_queues(lattice.name)
    await lattice.own.retire_queue(queue, idle_seconds=30.0)

    await lattice.lead()

    await lattice.until({"orders-default": False})


async def test_a_queue_that_a_cut_off_node_makes_again_ends_too(lattice: Lattice) -> None:
    await lattice.lead()
    await lattice.put()
    await lattice.until({"orders-default": False})
    await lattice.delete()
    await lattice.until({})

    trigger = Trigger(
        component="orders",
        kind=TriggerKind.MESSAGING,
        configuration={"stream": lattice.name, "subject": f"{lattice.name}.x"},
    )
    late = World(lattice.world.tasks, lattice=lattice.name)
    await late.start("late", lattice.other)
    late.observed.put(trigger)
    # Who leads may look, and retire it, before we see it.
    await lattice.until({"orders-default": False}, {"orders-default": True})
    late.observed.put()

    await lattice.until({})


async def test_what_a_leader_does_not_know_yet_is_not_gone(lattice: Lattice) -> None:
    blind = Observer(lattice.other, lattice.name)
    blind.state.desired.is_complete = True
    await lattice.put()
    await lattice.until({"orders-default": False})

    await lattice.lead(blind)
    await anyio.sleep(1.0)

    assert await lattice.queues() == {"orders-default": False}


async def test_nothing_ends_because_the_store_forgot(lattice: Lattice) -> None:
    await lattice.put()
    await lattice.until({"orders-default": False})
    blind = Observer(lattice.other, lattice.name)
    blind.state.desired.is_complete = True
    for key in (MARKER_KEY, "app.orders"):
        await lattice.store.delete(key)

    await lattice.lead(blind)
    await anyio.sleep(1.0)

    assert await lattice.queues() == {"orders-default": False}
