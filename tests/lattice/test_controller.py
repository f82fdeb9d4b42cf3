"""What the controller sends and what it takes for an answer; its decisions are tested with the leadership."""

from __future__ import annotations

import anyio
import pytest

from lattice import leadership as lead
from lattice import subjects, wire
from lattice.bus import Message
from lattice.controller import MESSAGE_BYTES, Controller
from lattice.imports import Catalog
from lattice.memory_bus import MAX_PAYLOAD, MemoryBroker, MemoryBus
from lattice.model import ComponentSpec
from lattice.observer import Observer
from lattice.orders import Order
from lattice.recovery import FetchCopies

LATTICE, NODE = "test", "NB"
DIGEST = "sha256:" + "0" * 64


def order(number: int, environment_bytes: int) -> Order:
    name = f"component-{number}"
    spec = ComponentSpec(name=name, digest=DIGEST, environment={"A": "x" * environment_bytes})
    return Order(node=NODE, boot=1, component=name, revision="r", count=1, spec=spec)


class World:
    """A controller, and a node whose answers the test writes."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.sizes: list[int] = []
        self.received: list[str] = []
        self.controller = Controller(
            bus, LATTICE, "NA", Observer(bus, LATTICE), catalog=Catalog, announce=lambda event, details: None
        )

    async def answer(self, subject: str, reply: object) -> None:
        def take(message: Message) -> None:
            self.sizes.append(len(message.data))
            self.received += [
                item["component"] for item in wire.decode_message(message.data).get("orders", [])
            ]
            assert message.reply
            self.bus.publish_nowait(message.reply, wire.encode(reply))

        await self.bus.subscribe(subject, take)


async def test_large_orders_go_in_several_messages() -> None:
    orders = tuple(order(number, 40_000) for number in range(60))
    async with MemoryBus(MemoryBroker()) as bus, anyio.create_task_group() as tasks:
        world = World(bus)
        await world.answer(subjects.order(LATTICE, NODE), {"replies": []})
        world.controller._tasks = tasks
        await world.controller._send_commands(lead.SendCommands(orders))

    assert sorted(world.received) == sorted(item.component for item in orders)
    assert max(world.sizes) <= MESSAGE_BYTES + 1000 < MAX_PAYLOAD
    assert len(world.sizes) < len(orders) / 3


@pytest.mark.parametrize("reply", [{"replies": 5}, {"replies": [5]}, {"replies": [{"fence": 2**64 - 1}]}, 5])
async def test_a_node_that_answers_nonsense_ends_nothing(reply: object) -> None:
    async with MemoryBus(MemoryBroker()) as bus, anyio.create_task_group() as tasks:
        world = World(bus)
        await world.answer(subjects.order(LATTICE, NODE), reply)
        world.controller._tasks = tasks
        await world.controller._send_commands(lead.SendCommands((order(1, 1),)))

    assert world.received == ["component-1"]


async def test_copies_that_never_end_are_not_taken() -> None:
    async with MemoryBus(MemoryBroker()) as bus:
        world = World(bus)
        await world.answer(subjects.inventory(LATTICE, NODE), {"applications": [], "next": 0})
        with anyio.fail_after(5):
            await world.controller._fetch_copies(FetchCopies(NODE))

    assert len(world.sizes) == 1
