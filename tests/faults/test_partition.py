"""A node is cut off from NATS, or stands still, and comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import anyio
import pytest

from ctl.calling import CallOptions
from ctl.client import ControlClient
from lattice import subjects, wire
from tests.e2e.load import steady
from tests.e2e.processes import GREETER, Lattice, until
from tests.e2e.questions import controller, holders, running
from tests.faults.proxy import Proxy
from tests.servers import NatsServer

pytestmark = [pytest.mark.slow, pytest.mark.fault]

CONVERGED_SECONDS = 5.0
NOTICED_SECONDS = 2.5
"""Sooner than by missed heartbeats."""
SILENCE_SECONDS = 3.0
DEAF_SECONDS = 9.0
"""After which a node that hears nothing any more gives its connection up, though its heartbeats arrive."""
SLACK_SECONDS = 3.0
ATTEMPT_SECONDS = 0.5
IDEMPOTENT = CallOptions(idempotent=True)


@pytest.fixture(scope="module")
async def proxy(nats_server: NatsServer, anyio_backend: str) -> AsyncIterator[Proxy]:
    """Between node `c` and NATS."""
    async with Proxy(nats_server.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
async def shared_lattice(
    proxy: Proxy, nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Lattice]:
    """Three nodes on an external server, which the third reaches by way of the proxy."""
    nats = nats_server.url.replace("//", "//app:app@")
    async with Lattice(tmp_path_factory.mktemp("lattice"), "partition", nats=nats) as lattice:
        lattice.node("c", nats=f"nats://app:app@127.0.0.1:{proxy.port}").start()
        await lattice.add("a", "b", options=("--label", "side=ab"))
        yield lattice


async def converged(lattice: Lattice, count: int) -> float:
    """Seconds from now until exactly `count` greeters run and calls that enter at any node are answered."""
    began = anyio.current_time()
    async with lattice.connect(timeout_seconds=0.2) as client:  # what is asked just now may be lost
        await running(client, "greeter", count)
        hello = await until(lambda: client.function("greeter", "hello"))
        for node in lattice.nodes.values():
            # A call can meet a connection that its node is just giving up, and is lost with it.
            options = CallOptions(node=node.id, budget_seconds=ATTEMPT_SECONDS)
            answer = await until(partial(client.invoke, hello, ["you"], options))
            assert answer == "Hello, you!"
    return anyio.current_time() - began


@pytest.mark.parametrize(
    "stalled", [("to server", "to node"), ("to server",), ("to node",)], ids=["both", "sends", "hears"]
)
async def test_a_silent_partition_is_survived_and_heals(
    lattice: Lattice, router: ControlClient, proxy: Proxy, stalled: tuple[str, ...]
) -> None:
    await lattice.deploy(GREETER, replicas=3)
    hello = await router.function("greeter", "hello")

    async with steady(lambda: router.invoke(hello, ["World"], IDEMPOTENT), per_second=50) as load:
        await load.at_least(20)
        proxy.stall(*stalled)
        await running(router, "greeter", 3, without="c")
        await load.at_least(20)
        proxy.heal()
        seconds = await converged(lattice, 3)

    assert load.errors == {}
    assert load.slowest() <= (DEAF_SECONDS if stalled == ("to node",) else SILENCE_SECONDS) + SLACK_SECONDS
    assert seconds <= CONVERGED_SECONDS


async def test_a_node_that_is_cut_off_keeps_what_it_runs_and_returns(
    lattice: Lattice, router: ControlClient, proxy: Proxy
) -> None:
    await lattice.deploy(GREETER, replicas=3)
    hello = await router.function("greeter", "hello")

    async with steady(lambda: router.invoke(hello, ["World"], IDEMPOTENT), per_second=50) as load:
        await load.at_least(20)
        await proxy.cut()
        await running(router, "greeter", 3, without="c")
        await load.at_least(20)
        assert not lattice["c"].lines("replica.failed") and lattice["c"].is_running
        proxy.heal()
        seconds = await converged(lattice, 3)

    assert load.errors == {}
    assert load.slowest() <= NOTICED_SECONDS
    assert seconds <= CONVERGED_SECONDS


async def test_the_controller_is_cut_off_and_another_leads_with_a_higher_fence(
    lattice: Lattice, client: ControlClient, proxy: Proxy
) -> None:
    while (leader := await controller(client)) != "c":  # a leader that leaves resigns
        lattice[leader].terminate()
        await lattice[leader].ended()
    await lattice.restore()
    assert await controller(client) == "c"

    await proxy.cut()
    await until(lambda: _leads(client, "a", "b"), what="another node leads")
    await lattice.deploy(GREETER, replicas=2)
    proxy.heal()
    seconds = await converged(lattice, 2)

    assert seconds <= CONVERGED_SECONDS
    fences = [
        (line["fence"], node.name)
        for node in lattice.nodes.values()
        for line in node.lines("controller.elected")
    ]
    assert len({fence for fence, _ in fences}) == len(fences)
    assert await controller(client) in ("a", "b")
    assert max(fences)[1] == await controller(client)


async def _leads(client: ControlClient, *names: str) -> bool:
    return await controller(client) in names


@pytest.mark.parametrize("is_controller", [False, True])
async def test_a_stopped_node_is_replaced_and_serves_nothing_until_it_has_its_orders(
    lattice: Lattice, router: ControlClient, is_controller: bool
) -> None:
    await lattice.deploy(GREETER, replicas=3)
    leader = await controller(router)
    stopped = next(node for node in lattice.nodes.values() if (node.name == leader) == is_controller)
    hello = await router.function("greeter", "hello")
    late: list[str | None] = []

    async def call_the_stopped() -> None:
        """As a node does that has not heard yet."""
        names = ("greeter", hello.interface, hello.name)
        subject = subjects.node_call(lattice.name, stopped.id, *names)
        headers = wire.encode_headers(wire.CallHeaders(budget_ms=20_000, hops=1))
        async with lattice.bus() as bus:
            reply = await bus.request(
                subject, wire.encode_arguments(["you"]), headers=headers, timeout_seconds=20
            )
        error = wire.decode_error(reply.headers, reply.data)
        late.append(error.code if error else None)

    async with (
        anyio.create_task_group() as tasks,
        steady(lambda: router.invoke(hello, ["World"], IDEMPOTENT), per_second=50) as load,
    ):
        await load.at_least(20)
        stopped.suspend()
        tasks.start_soon(call_the_stopped)
        await running(router, "greeter", 3, without=stopped.name)
        await load.at_least(20)
        stopped.resume()
        await until(lambda: _is_ready(router, stopped.name), what="the stopped node is back")
        await running(router, "greeter", 3)
        await load.at_least(20)

    assert load.errors == {}
    assert load.slowest() <= SILENCE_SECONDS + SLACK_SECONDS
    assert late == ["unreachable"]
    assert len(await holders(router, "greeter")) == 3


async def _is_ready(client: ControlClient, name: str) -> bool:
    return any(node.name == name and node.state == "ready" for node in await client.nodes())


async def test_calls_between_nodes_that_hear_each_other_do_not_notice(
    lattice: Lattice, client: ControlClient, proxy: Proxy
) -> None:
    await lattice.deploy(GREETER, labels={"side": "ab"})
    entry = lattice["a"]
    hello = await client.function("greeter", "hello")

    async with steady(
        lambda: client.invoke(hello, ["World"], CallOptions(node=entry.id)), per_second=50
    ) as load:
        await load.at_least(20)
        await proxy.cut()
        await load.at_least(100)
        proxy.heal()

    assert load.errors == {}
    assert load.slowest() <= NOTICED_SECONDS
