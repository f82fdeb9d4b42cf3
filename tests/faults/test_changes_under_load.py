"""Changes while calls go on, late and repeated orders, and impostors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import anyio
import nats
import pytest

from ctl.client import ControlClient
from lattice import connection, subjects, wire
from tests.e2e.load import steady
from tests.e2e.processes import GREETER, GREETER_C, Lattice, until
from tests.e2e.questions import holders, running

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(120)]

SETTINGS: dict[str, Any] = {
    "max_concurrency": 7,
    "memory_bytes": 32 * 2**20,
    "budget_seconds": 9,
    "environment": {"MODE": "test"},
}


async def test_an_update_fails_no_call_and_keeps_the_settings(
    lattice: Lattice, router: ControlClient
) -> None:
    deployed = await lattice.deploy(GREETER, replicas=3, **SETTINGS)
    hello = await router.function("greeter", "hello")

    async with (
        lattice.connect() as client,
        steady(lambda: router.invoke(hello, ["World"]), per_second=100) as routed,
        steady(lambda: client.invoke(hello, ["World"]), per_second=50) as entered,
    ):
        before = await client.describe_component("greeter")
        for file in (GREETER_C, GREETER, GREETER_C):
            await routed.at_least(20)
            done = await lattice.ctl("update", "greeter", file)
            assert done.code == 0, done.err
        await routed.at_least(20)
        after = await client.describe_component("greeter")

    assert routed.errors == {} and entered.errors == {}
    assert after.digest != deployed.digest
    assert after.limits == before.limits and after.limits["max_concurrency"] == 7
    assert after.settings["environment"] == {"MODE": "test"}
    assert after.replicas.running == 3


async def test_scaling_up_and_down_fails_no_call(lattice: Lattice, router: ControlClient) -> None:
    await lattice.deploy(GREETER, replicas=1)
    hello = await router.function("greeter", "hello")

    async with steady(lambda: router.invoke(hello, ["World"]), per_second=100) as load:
        for count in (6, 2, 9, 1):
            await router.scale("greeter", count)
            await running(router, "greeter", count)

    assert load.errors == {}


async def test_deleting_and_deploying_again_and_again_leaves_one_life(
    lattice: Lattice, client: ControlClient
) -> None:
    for count in (1, 2, 3, 1):
        await lattice.deploy(GREETER, replicas=count)
        assert await client.call("greeter", "hello", ["World"]) == "Hello, World!"
        await client.delete("greeter")
    await lattice.deploy(GREETER, replicas=2)

    await running(client, "greeter", 2)
    described = [await client.describe_node(name) for name in lattice.nodes]
    assert sum(node.statistics["instances"] for node in described) < 20


async def test_orders_that_come_twice_late_or_from_nobody_change_nothing(
    lattice: Lattice, client: ControlClient
) -> None:
    await lattice.deploy(GREETER, replicas=2)
    (name, _) = await holders(client, "greeter")
    node = lattice[name]
    async with lattice.bus() as bus:

        async def order(**fields: Any) -> Mapping[str, Any]:
            boot = wire.decode_message(
                (await bus.request(subjects.ping(lattice.name, node.id), timeout_seconds=2)).data
            )["boot"]
            body = {"node": node.id, "boot": boot, "component": "greeter", "revision": "old", **fields}
            reply = await bus.request(
                subjects.order(lattice.name, node.id),
                wire.encode_message({"orders": [body], "compile_ahead": []}),
                timeout_seconds=2,
            )
            (answer,) = wire.decode_message(reply.data)["replies"]
            return dict(answer)

        late = await order(count=0, fence=0, generation=10**6)
        former_life = await order(count=0, fence=10**6, generation=1, boot=1)

    assert not late["is_accepted"] and late["fence"] >= 1
    assert not former_life["is_accepted"]
    assert name in await holders(client, "greeter")


async def test_an_impostor_with_a_nodes_name_changes_nothing(lattice: Lattice, router: ControlClient) -> None:
    """Connections may bear any name; only the server's own numbers of them count."""
    await lattice.deploy(GREETER, replicas=3)
    hello = await router.function("greeter", "hello")
    file = connection.server_folder(lattice.name, lattice.folder) / connection.SERVER_FILE
    server = connection.ServerFile(**json.loads(file.read_bytes()))

    async with steady(lambda: router.invoke(hello, ["World"]), per_second=50) as load:
        for name in ("a", "b", lattice["a"].id):
            impostor = await nats.connect(server.url, user=server.user, password=server.password, name=name)
            await impostor.close()
        await load.at_least(50)

    assert load.errors == {}
    for node in lattice.nodes.values():
        assert not node.lines("node.lost")


async def test_operators_at_two_nodes_at_once_do_not_undo_each_other(
    lattice: Lattice, client: ControlClient
) -> None:
    await lattice.deploy(GREETER, replicas=1)

    async with anyio.create_task_group() as tasks:
        for count in range(2, 6):  # as many as a node's attempts: each loses only to another that wins
            tasks.start_soon(client.scale, "greeter", count)

    description = await client.describe_component("greeter")
    await running(client, "greeter", description.replicas.desired)

    async def agree() -> bool:
        counts = {(await client.describe_component("greeter")).replicas.running for _ in range(6)}
        return counts == {description.replicas.desired}

    await until(agree, what="all nodes say the same")
