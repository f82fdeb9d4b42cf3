"""Whole nodes in one process on an in-memory bus: deploy, call, link, update, drain."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from ctl.calling import CallOptions
from ctl.client import ControlClient
from ctl.deployment import Deployment
from lattice.announcer import Announcer
from lattice.assignments import Assignments
from lattice.errors import Conflict, Denied, Invalid, LatticeError, NotFound, Trapped
from lattice.inventory import NodeInfo, Offer
from lattice.memory_bus import MemoryBus
from lattice.observer import Observer
from lattice.orders import Order, OrderReply
from node.artifacts import digest_of
from node.engine import store
from node.engine.driver import Absence
from providers.registry import ProviderSpec
from tests.node.whole_nodes import (
    CALCULATOR,
    GREETER,
    GREETER_KV,
    MISBEHAVE,
    STORE,
    Lattice,
    deploy,
    running,
    until,
)

CACHE = ProviderSpec(name="cache", kind="keyvalue-memory", values={})


async def test_a_component_deployed_once_answers_from_any_node(lattice: Lattice) -> None:
    nodes = [await lattice.start(name) for name in ("a", "b")]
    client = await lattice.client()
    await deploy(client, GREETER)

    answers = [
        await client.call("greeter", "hello", [node.name], options=CallOptions(node=node.id))
        for node in nodes
    ]

    assert answers == [f"Hello, {node.name}!" for node in nodes]


@pytest.mark.parametrize("is_wanted", [False, True])
async def test_a_node_without_the_native_helper_says_once_that_it_is_slower(
    lattice: Lattice, monkeypatch: pytest.MonkeyPatch, is_wanted: bool
) -> None:
    monkeypatch.setattr(store, "DRIVER", None)
    monkeypatch.setattr(store, "NO_DRIVER", Absence(reason="why", cure="what to do", is_wanted=is_wanted))

    with capture_logs() as logs:
        await lattice.start("a")

    lines = [line for line in logs if line["event"] == "engine.slower"]
    level = "info" if is_wanted else "warning"
    assert lines == [{"event": "engine.slower", "log_level": level, "reason": "why", "cure": "what to do"}]


async def test_a_node_with_the_native_helper_says_nothing_of_it(
    lattice: Lattice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "NO_DRIVER", None)

    with capture_logs() as logs:
        await lattice.start("a")

    assert not [line for line in logs if line["event"] == "engine.slower"]


async def test_errors_of_a_guest_reach_the_caller_with_an_error_id(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await deploy(client, MISBEHAVE)

    with pytest.raises(Trapped) as caught:
        await client.call("misbehave", "trap")
    assert caught.value.error_id


async def test_a_wit_error_is_a_result(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await deploy(client, CALCULATOR)

    result = await client.call("calculator", "divide", [1, 0])

    assert set(result) == {"err"}


async def test_an_import_that_nothing_grants_keeps_a_component_from_being_deployed(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()

    with pytest.raises(Denied, match="latticectl link put greeter-kv demo:kv/store TARGET"):
        await deploy(client, GREETER_KV)


async def test_a_component_may_not_have_the_name_of_a_provider(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()

    with pytest.raises(Invalid, match=r"'keyvalue-nats' is a provider.*another name by `--name`"):
        await deploy(client, GREETER, name="keyvalue-nats")


async def test_a_component_may_not_have_the_name_by_which_jobs_are_begun(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()

    with pytest.raises(Invalid, match="'lattice-jobs' is what calls that begin jobs name"):
        await deploy(client, GREETER, name="lattice-jobs")


async def test_a_provider_that_comes_after_a_component_of_its_name_is_refused(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await deploy(client, GREETER, name="cache")

    late = await lattice.start("late", {"provider": (CACHE,)})
    await until(lambda: offers_of(client, "cache"), [(late.name, False)])
    (provider,) = [item for item in await client.providers() if item.name == "cache"]
    answers = {await client.call("cache", "hello", ["Ada"]) for _ in range(6)}
    assert late.runner.providers is not None
    local = [item for item in late.runner.providers.offers() if item.name == "cache"]
    await deploy(client, GREETER, name="cache", replicas=2)

    assert answers == {"Hello, Ada!"}
    assert "'cache' is a component" in str(provider.nodes[0].reason)
    assert [item.is_healthy for item in local] == [False]

    await client.delete("cache")
    await until(lambda: offers_of(client, "cache"), [(late.name, True)])
    with pytest.raises(Invalid, match="'cache' is a provider"):
        await deploy(client, GREETER, name="cache")


async def test_what_another_node_advertises_under_a_components_name_is_not_called(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await deploy(client, GREETER, name="cache")
    async with MemoryBus(lattice.broker) as bus:
        stranger = Assignments("STRANGER", 1)
        info = NodeInfo(id="STRANGER", name="stranger", boot=1, capacity=0)
        observer = Observer(bus, "default")
        announcer = Announcer(
            bus, "default", info, assignments=stranger, observer=observer, load=lambda: (0.0, 0)
        )
        async with anyio.create_task_group() as tasks, AsyncExitStack() as stack:
            await tasks.start(observer.run)
            await announcer.start(Obeying("STRANGER"), tasks, stack)
            await tasks.start(announcer.run)
            stranger.offer([Offer(name="cache", kind="keyvalue-memory", interfaces=("demo:greeter/greet",))])
            delta = stranger.take_delta()
            assert delta is not None
            announcer.report(delta)
            await until(lambda: offers_of(client, "cache"), [("stranger", False)])
            answers = [await client.call("cache", "hello", ["Ada"]) for _ in range(10)]
            tasks.cancel_scope.cancel()

    assert answers == ["Hello, Ada!"] * 10


class Obeying:
    """Takes all orders, and does nothing."""

    def __init__(self, node: str) -> None:
        self._node = node

    def order(self, order: Order) -> OrderReply:
        return OrderReply(node=self._node, is_accepted=True)

    def compile_ahead(self, component: str, digest: str) -> None:
        pass


async def offers_of(client: ControlClient, name: str) -> list[tuple[str, bool]]:
    """Who offers a provider, and whether it is called there."""
    found = [item for item in await client.providers() if item.name == name]
    return [(place.node_name, place.is_healthy) for item in found for place in item.nodes]


async def test_nobody_has_answers_of_a_node_sent_to_the_lattice_or_the_server(lattice: Lattice) -> None:
    node = await lattice.start("a")
    heard: list[str] = []
    async with MemoryBus(lattice.broker) as bus:
        await bus.subscribe("$KV.>", lambda message: heard.append(message.subject))
        prefix = f"lattice.1.default.node.{node.id}"
        for subject in ("lattice.1.default.control.component.list", f"{prefix}.ping", "$SRV.PING"):
            await bus.publish(subject, reply="$KV.LATTICE_default_state.evil")
        await bus.request(f"{prefix}.ping", timeout_seconds=5)

    assert "$KV.LATTICE_default_state.evil" not in heard


async def test_a_link_made_before_its_source_grants_the_import(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await deploy(client, STORE)
    await client.put_link("greeter-kv", "demo:kv/store", "kv-store")
    await deploy(client, GREETER_KV)

    assert await client.call("greeter-kv", "hello", ["Ada"]) != "Hello, Ada!"
    assert [link.route for link in await client.links()] == ["local"]


async def test_names_that_lead_nowhere_yet_are_said_at_deployment(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()
    digest = await deploy(client, GREETER)

    change = await client.deploy(
        Deployment(name="greeter", digest=digest, secrets={"token": "nope"}, configuration_from=("none",))
    )

    assert any("latticectl secret put nope" in warning for warning in change.warnings)
    assert any("latticectl config put none" in warning for warning in change.warnings)


async def test_a_link_to_a_component_without_the_interface_is_refused(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await deploy(client, GREETER)

    with pytest.raises(Invalid, match="does not import demo:kv/store"):
        await client.put_link("greeter", "demo:kv/store", "greeter")


async def test_scaling_and_deleting_change_what_runs(lattice: Lattice) -> None:
    for name in ("a", "b"):
        await lattice.start(name)
    client = await lattice.client()
    await deploy(client, GREETER, replicas=2)

    await client.scale("greeter", 4)
    await until(lambda: running(client, "greeter"), 4)
    await client.delete("greeter")

    with pytest.raises(NotFound):
        await client.describe_component("greeter")

    async def held() -> int:
        return len(await client.replicas())

    await until(held, 0)
    with pytest.raises(NotFound, match="there is no component 'greeter'"):
        await client.replicas("greeter")


async def test_an_update_swaps_the_code_and_keeps_the_settings(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await deploy(client, GREETER, name="app", environment={"A": "b"})
    data = await anyio.Path(CALCULATOR).read_bytes()
    store = await client._bus.object_store("LATTICE_default_artifacts")
    await store.put(digest_of(data), data)

    await client.update("app", digest_of(data))

    async def answer() -> Any:
        try:
            return await client.call("app", "add", [2, 3])
        except LatticeError:
            return None

    await until(answer, 5)
    assert (await client.describe_component("app")).settings["environment"] == {"A": "b"}


async def test_a_draining_node_hands_its_replicas_over_first(lattice: Lattice) -> None:
    first = await lattice.start("a")
    client = await lattice.client()
    await deploy(client, GREETER, replicas=2)
    second = await lattice.start("b")

    await first.drain()

    assert first.assignments.replicas == 0
    assert second.assignments.replicas == 2
    assert await client.call("greeter", "hello", ["b"]) == "Hello, b!"


async def test_a_name_that_another_node_bears_is_refused(lattice: Lattice) -> None:
    await lattice.start("a", settings={"name": "twin"})

    with pytest.raises(Conflict, match="has a node named 'twin' already"):
        await lattice.start("b", settings={"name": "twin"})


async def test_a_replica_that_no_node_can_hold_says_why(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()
    data = await anyio.Path(GREETER).read_bytes()
    store = await client._bus.object_store("LATTICE_default_artifacts")
    await store.put(digest_of(data), data)
    await client.deploy(Deployment(name="greeter", digest=digest_of(data), labels={"disk": "ssd"}))

    described = await client.describe_component("greeter")

    assert described.state == "pending"
    assert "no node has the labels disk=ssd" in described.pending[0].reason
