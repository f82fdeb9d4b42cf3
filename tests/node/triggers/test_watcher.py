"""Key-value triggers: which changes a component is told of, by which node."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Hashable, Mapping
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from lattice import subjects
from lattice.bus import Bus, KeyValue
from lattice.caller import CallRequest
from lattice.errors import Failed, Invalid
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.model import Link, Trigger, TriggerKind
from lattice.nats_bus import NatsBus
from node.triggers.watcher import WatcherTriggers, check_trigger
from providers.keyvalue.nats import escape
from providers.provider import Secret
from tests.waiting import until

WAIT_SECONDS = 10.0


class World:
    """A lattice in which the component `audit` has a trigger; the mutable state is what it was told of."""

    def __init__(self, bus: Bus, lattice: str) -> None:
        self.bus = bus
        self.lattice = lattice
        self.told: list[tuple[str, str, str, bytes | None]] = []
        self.nodes: list[str] = ["a"]
        self.kind = "keyvalue-nats"
        self.fails = False
        self.named: dict[str, str] = {}
        self.watchers: dict[str, WatcherTriggers] = {}
        self.components: dict[str, Any] = {}
        self.state = SimpleNamespace(
            desired=SimpleNamespace(components=self.components),
            placements=lambda name: [SimpleNamespace(node=node) for node in self.nodes],
            observed=SimpleNamespace(offers=_Offers(self)),
        )

    def put(self, links: Mapping[str, Mapping[str, str]], **configuration: str) -> None:
        """Have the component bear these links, by name, and one trigger."""
        self.put_links(*(link(name, configuration=given) for name, given in links.items()), **configuration)

    def put_links(self, *made: Link, **configuration: str) -> None:
        """The same with links as they are."""
        trigger = Trigger(component="audit", kind=TriggerKind.KEYVALUE, configuration=configuration)
        self.components["audit"] = SimpleNamespace(triggers=(trigger,), links=made)

    async def wait_for_change(self) -> None:
        await anyio.sleep(0.02)

    def watcher(self, node: str) -> WatcherTriggers:
        """Those of one node."""
        return WatcherTriggers(
            self.bus,
            self.lattice,
            self,  # type: ignore[arg-type]  # of an observer it needs no more
            _Replicas(self, node),
            node=node,
            settings=_Settings(self),
        )

    async def store(self, namespace: str) -> KeyValue:
        return await self.bus.key_value(subjects.keyvalue_bucket(self.lattice, namespace))

    async def until_told(self, count: int) -> list[tuple[str, str, str, bytes | None]]:
        with anyio.fail_after(WAIT_SECONDS):
            while len(self.told) < count:  # noqa: ASYNC110 - nothing tells of it
                await anyio.sleep(0.005)
        return self.told

    async def until_watched(self, store: KeyValue, bucket: str = "") -> None:
        """Return when changes are handed over, and none that was made here is on its way any more."""
        with anyio.fail_after(WAIT_SECONDS):
            for number in itertools.count(1):
                await store.put(key("probe", bucket), b"%d" % number)
                await anyio.sleep(0.02)
                if self.told:
                    break
            while self.told[-1][-1] != b"%d" % number:  # noqa: ASYNC110 - nothing tells of it
                await anyio.sleep(0.005)
        self.told.clear()


class _Settings:
    """What links refer to by name: one configuration, `named`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def stamp(self, link: Link) -> Hashable:
        return None

    async def resolve(self, link: Link) -> tuple[Mapping[str, str], Mapping[str, Secret]]:
        named = self._world.named if link.configuration_from else {}
        return {**named, **link.configuration}, {}


class _Offers:
    def __init__(self, world: World) -> None:
        self._world = world

    def get(self, name: str, default: Any) -> Any:
        return {"a": (None, SimpleNamespace(kind=self._world.kind))}


class _Replicas:
    def __init__(self, world: World, node: str) -> None:
        self._world = world
        self._node = node

    def serves(self, component: str) -> bool:
        return self._node in self._world.nodes

    async def call(self, request: CallRequest, args: Any, *, takes_objects: bool = False) -> Any:
        assert takes_objects
        bucket, name, *value = args
        told = (self._node, f"{bucket.link}:{bucket.name}:{request.function}", name, *value, None)[:4]
        self._world.told.append(told)
        if self._world.fails:
            raise Failed("broken")


def link(name: str = "default", interface: str = "wasi:keyvalue", **settings: Any) -> Link:
    return Link(source="audit", name=name, interface=interface, target="store", **settings)


def key(name: str, bucket: str = "") -> str:
    return f"{escape(bucket)}.{escape(name)}"


@pytest.fixture(params=["memory", "nats"])
async def world(request: pytest.FixtureRequest, nats_bus: NatsBus, lattice_name: str) -> AsyncIterator[World]:
    async with MemoryBus(MemoryBroker()) as memory, anyio.create_task_group() as tasks:
        world = World(memory if request.param == "memory" else nats_bus, lattice_name)
        for node in ("a", "b"):
            world.watchers[node] = world.watcher(node)
            await tasks.start(world.watchers[node].run)
        yield world
        tasks.cancel_scope.cancel()


async def test_a_component_is_told_of_each_change_in_its_order(world: World) -> None:
    store = await world.store("audit")
    await store.put(key("old"), b"1")
    world.put({"default": {}})
    await world.until_watched(store)

    await store.put(key("x"), b"1")
    await store.put(key("strange / key"), b"2")
    await store.delete(key("x"))
    told = await world.until_told(3)

    assert told == [
        ("a", "default::on-set", "x", b"1"),
        ("a", "default::on-set", "strange / key", b"2"),
        ("a", "default::on-delete", "x", None),
    ]


async def test_only_what_was_asked_for_is_told(world: World) -> None:
    store = await world.store("shop")
    world.put({"default": {"bucket": "other"}, "shop": {"bucket": "shop"}}, link="shop", bucket="orders")
    await world.until_watched(store, "orders")

    await store.put(key("1", "visits"), b"")
    await store.put(key("1"), b"")
    await store.put(key("1", "orders"), b"yes")

    assert await world.until_told(1) == [("a", "shop:orders:on-set", "1", b"yes")]


async def test_the_watch_goes_where_the_links_named_configuration_leads_now(world: World) -> None:
    world.named = {"bucket": "first"}
    world.put_links(link(configuration_from=("shared",)))
    await world.until_watched(await world.store("first"))

    world.named = {"bucket": "second"}
    second = await world.store("second")
    await world.until_watched(second)
    await (await world.store("first")).put(key("old"), b"")
    await second.put(key("new"), b"")

    assert [name for _, _, name, _ in await world.until_told(1)] == ["new"]


async def test_a_link_of_the_interface_itself_counts_more_than_one_of_its_package(world: World) -> None:
    world.put_links(
        link(configuration={"bucket": "package"}),
        link(interface="wasi:keyvalue/store", configuration={"bucket": "exact"}),
    )

    await world.until_watched(await world.store("exact"))


async def test_a_prefix_narrows_it_down(world: World) -> None:
    store = await world.store("audit")
    world.put({"default": {}}, prefix="p")
    await world.until_watched(store)

    await store.put(key("x"), b"")
    await store.put(key("price"), b"")

    assert [name for _, _, name, _ in await world.until_told(1)] == ["price"]


async def test_another_node_takes_over_when_the_first_has_no_replica_any_more(world: World) -> None:
    store = await world.store("audit")
    world.nodes = ["a", "b"]
    world.put({"default": {}})
    await world.until_watched(store)
    await store.put(key("x"), b"")
    first = list(await world.until_told(1))

    world.nodes = ["b"]
    await until(lambda: not world.watchers["a"]._followed)
    world.told.clear()
    await world.until_watched(store)
    await store.put(key("y"), b"")
    second = await world.until_told(1)

    assert [told[0] for told in (*first, *second)] == ["a", "b"]


async def test_a_handler_that_fails_ends_nothing(world: World) -> None:
    store = await world.store("audit")
    world.fails = True
    world.put({"default": {}})
    await world.until_watched(store)

    await store.put(key("x"), b"")
    await store.put(key("y"), b"")

    assert [name for _, _, name, _ in await world.until_told(2)] == ["x", "y"]


async def test_a_provider_that_tells_nobody_of_changes_is_refused(world: World) -> None:
    store = await world.store("audit")
    world.kind = "keyvalue-redis"
    world.put({"default": {}})
    await anyio.sleep(0.2)

    await store.put(key("x"), b"")
    await anyio.sleep(0.1)

    assert world.told == []


@pytest.mark.parametrize(
    ("configuration", "named"), [({"buckets": "x"}, "did you mean `bucket`"), ({"link": "a b"}, "`link`")]
)
def test_a_bad_configuration_is_invalid_and_named(configuration: dict[str, str], named: str) -> None:
    with pytest.raises(Invalid, match=named):
        check_trigger(Trigger(component="audit", kind=TriggerKind.KEYVALUE, configuration=configuration))
