"""Durable queues of triggers while the nodes that use them, and the leading one, are killed (`kill -9`)."""

from __future__ import annotations

import pytest

from ctl.client import ControlClient
from lattice.nats_bus import NatsBus
from tests.e2e.processes import EXAMPLES, Lattice, until
from tests.e2e.questions import controller, running

pytestmark = [pytest.mark.slow, pytest.mark.fault]

THUMBS = EXAMPLES / "thumbs/c/thumbs.wasm"
LINKS = (("wasi:blobstore", "blobstore-nats"), ("wasmcloud:messaging", "messaging-nats"))
TRIGGER = {"stream": "PHOTOS", "subject": "photos.added"}


async def has_queues(lattice: Lattice, bus: NatsBus, queues: dict[str, bool]) -> None:
    """Return when these, and no others, are there: whether each is retired, by name."""

    async def is_so() -> bool:
        return {item.name: item.is_retired for item in await bus.owned_queues(lattice.name)} == queues

    await until(is_so, what=f"the queues are {queues}")


async def test_queues_end_with_their_trigger_whoever_leads_and_outlive_all_nodes(
    lattice: Lattice, client: ControlClient
) -> None:
    await lattice.deploy(THUMBS, replicas=2, links=LINKS)
    async with lattice.bus() as bus:
        await client.put_trigger("thumbs", "messaging", TRIGGER)
        await has_queues(lattice, bus, {"thumbs-default": False})

        killed = [lattice[await controller(client)]]
        killed += [node for node in lattice.nodes.values() if node not in killed][:1]
        for node in killed:
            node.kill()
        await running(client, "thumbs", 2)
        await has_queues(lattice, bus, {"thumbs-default": False})
        for node in killed:
            node.start()
        await lattice.settled()

        leader = lattice[await controller(client)]
        await client.delete_trigger("thumbs", "messaging")
        leader.kill()
        await has_queues(lattice, bus, {"thumbs-default": True})

        await client.put_trigger("thumbs", "messaging", TRIGGER)
        await has_queues(lattice, bus, {"thumbs-default": False})
        await client.delete("thumbs")
        await has_queues(lattice, bus, {"thumbs-default": True})
