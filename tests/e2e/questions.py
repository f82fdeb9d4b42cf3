"""What tests ask a lattice about itself."""

from __future__ import annotations

from ctl.client import ControlClient
from tests.e2e.processes import until


async def holders(client: ControlClient, component: str) -> list[str]:
    """Names of the nodes that run a replica, one for each replica."""
    placements = (await client.describe_component(component)).placements
    return sorted(item.node_name for item in placements for _ in range(item.running))


async def in_flight(client: ControlClient, component: str) -> int:
    """Calls that the component's replicas are answering now."""
    return sum(item.in_flight for item in await client.replicas(component))


async def controller(client: ControlClient) -> str:
    """Name of the node that leads, as soon as one does."""

    async def find() -> str | None:
        return next((node.name for node in await client.nodes() if node.is_controller), None)

    return str(await until(find, what="there is a controller"))


async def running(client: ControlClient, component: str, count: int, *, without: str | None = None) -> None:
    """Return when exactly so many replicas run, none of them on the node `without`."""

    async def is_so() -> bool:
        names = await holders(client, component)
        return len(names) == count and without not in names

    await until(is_so, what=f"{count} replicas of {component} run, none on {without}")
