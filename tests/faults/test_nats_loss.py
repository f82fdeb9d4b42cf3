"""The NATS server dies, with or without its data, and comes back; then everything dies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ctl.calling import CallOptions
from ctl.client import ControlClient
from lattice import subjects
from lattice.errors import LatticeError
from tests.e2e.load import steady
from tests.e2e.processes import GREETER, MISBEHAVE, Lattice, until
from tests.e2e.questions import holders, running
from tests.servers import NatsServer

pytestmark = [pytest.mark.slow, pytest.mark.fault]

BACK_SECONDS = 10.0
IDEMPOTENT = CallOptions(idempotent=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server that tests may kill and wipe; all leave it running."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
async def shared_lattice(
    anyio_backend: str, server: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Lattice]:
    """Three nodes on that server."""
    nats = server.url.replace("//", "//app:app@")
    async with Lattice(tmp_path_factory.mktemp("lattice"), "nats-loss", nats=nats) as lattice:
        await lattice.add("a", "b", "c")
        yield lattice


async def calls_answered(client: ControlClient) -> int:
    """By the greeters that run now: starts again at 0 for each that is started."""
    return sum(item.calls for item in await client.replicas("greeter"))


async def answers(client: ControlClient, budget_seconds: float = 10.0) -> str:
    options = CallOptions(budget_seconds=budget_seconds)
    return str(await client.call("greeter", "hello", ["World"], options=options))


async def everybody_is_back(client: ControlClient, names: set[str]) -> None:
    async def are_ready() -> bool:
        return {node.name for node in await client.nodes() if node.state == "ready"} == names

    await until(are_ready, seconds=BACK_SECONDS, what=f"{names} are back")


@pytest.mark.parametrize("is_wiped", [False, True], ids=["with its data", "wiped"])
async def test_nothing_stops_and_nothing_deleted_comes_back_when_nats_restarts(
    lattice: Lattice, server: NatsServer, is_wiped: bool
) -> None:
    deployed = await lattice.deploy(GREETER, replicas=2)
    await lattice.deploy(MISBEHAVE)
    async with lattice.connect() as client:
        await client.delete("misbehave")
        for _ in range(10):
            await answers(client)
        await until(lambda: _counted(client, 10), what="ten calls are counted")
        server.kill()
        if is_wiped:
            server.wipe()
        server.start()

        await everybody_is_back(client, {"a", "b", "c"})
        assert await until(lambda: answers(client, 1.0), seconds=BACK_SECONDS) == "Hello, World!"
        await until(lambda: _is_stored(lattice, deployed.digest), what="the store is whole")

        assert await calls_answered(client) >= 10
        assert [item.name for item in await client.components()] == ["greeter"]
        assert await holders(client, "greeter") == sorted(deployed.nodes)
        scaled = await lattice.ctl("scale", "greeter", "--replicas", "3")
        assert scaled.code == 0, scaled.err
        assert await holders(client, "greeter") == ["a", "b", "c"]


async def _counted(client: ControlClient, count: int) -> bool:
    return await calls_answered(client) >= count


async def _is_stored(lattice: Lattice, digest: str) -> bool:
    """Whether the server has the state and the artifact, for nodes that know nothing yet."""
    async with lattice.bus() as bus:
        store = await bus.key_value(subjects.state_bucket(lattice.name))
        keys = {entry.key for entry in await store.entries() if entry.value}
        artifacts = await bus.object_store(subjects.artifacts_bucket(lattice.name))
        return {"marker", "app.greeter"} <= keys and digest in await artifacts.names()


async def test_a_node_that_joins_after_the_store_was_wiped_gets_what_it_needs(
    lattice: Lattice, server: NatsServer
) -> None:
    deployed = await lattice.deploy(GREETER, replicas=3)
    server.kill()
    server.wipe()
    server.start()
    async with lattice.connect() as client:
        await until(lambda: _is_stored(lattice, deployed.digest), what="the store is whole")
        await lattice.add("d")

        await client.scale("greeter", 4)
        await running(client, "greeter", 4)

        assert await holders(client, "greeter") == ["a", "b", "c", "d"]
    lattice["d"].kill()
    del lattice.nodes["d"]


def kill_all(lattice: Lattice, server: NatsServer) -> None:
    for node in lattice.nodes.values():
        node.kill()
    server.kill()


async def start_all(lattice: Lattice, server: NatsServer) -> None:
    server.start()
    for node in lattice.nodes.values():
        node.start()
    await lattice.settled()


async def test_all_that_was_deployed_runs_again_after_everything_was_killed(
    lattice: Lattice, server: NatsServer
) -> None:
    await lattice.deploy(GREETER, replicas=2)
    await lattice.deploy(MISBEHAVE)
    async with lattice.connect() as client:
        await client.delete("misbehave")
    kill_all(lattice, server)

    await start_all(lattice, server)

    async with lattice.connect() as client:
        await running(client, "greeter", 2)
        assert [item.name for item in await client.components()] == ["greeter"]
        assert await answers(client) == "Hello, World!"


async def test_the_copies_of_the_nodes_restore_a_store_that_was_lost_while_all_were_down(
    lattice: Lattice, server: NatsServer
) -> None:
    deployed = await lattice.deploy(GREETER, replicas=2)
    kill_all(lattice, server)
    server.wipe()

    await start_all(lattice, server)

    async with lattice.connect() as client:
        await running(client, "greeter", 2)
        await until(lambda: _is_stored(lattice, deployed.digest), what="the store is whole")
        assert await answers(client) == "Hello, World!"


async def test_the_embedded_server_is_restarted_and_calls_go_on(tmp_path: Path, lattice_name: str) -> None:
    async with Lattice(tmp_path, lattice_name) as lattice:
        await lattice.add("a", "b", "c")
        await lattice.deploy(GREETER, replicas=2)
        async with lattice.connect(routes_calls=True) as router:
            hello = await router.function("greeter", "hello")
            async with steady(lambda: router.invoke(hello, ["World"], IDEMPOTENT), per_second=50) as load:
                await load.at_least(20)
                await lattice.kill_server()
                await load.at_least(100)
            calls = await calls_answered(router)

        assert load.errors == {}
        assert load.slowest() <= BACK_SECONDS
        assert calls >= 100


async def test_two_lattices_on_one_server_know_nothing_of_each_other(
    lattice: Lattice, server: NatsServer, tmp_path: Path
) -> None:
    nats = server.url.replace("//", "//app:app@")
    await lattice.deploy(GREETER)
    async with Lattice(tmp_path / "other", f"{lattice.name}-other", nats=nats) as other:
        other.folder.mkdir()
        await other.add("a")  # a name that the first lattice has, too

        async with other.connect() as client:
            assert await client.components() == []
            with pytest.raises(LatticeError, match="no component"):
                await client.call("greeter", "hello", ["World"])
