"""What a job may be begun with, and what it is told when it may not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from lattice import wit
from lattice.configuration import Configuration, Configurations
from lattice.descriptions import Description
from lattice.errors import Denied, Invalid
from lattice.imports import Catalog
from lattice.inventory import Offer
from lattice.jobs import JobSpec
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.model import ComponentSpec, Link, new_application
from lattice.observer import Observer
from lattice.sealing import SealKey
from lattice.secrets import Secrets
from node.component_checks import ComponentChecks
from node.jobs.checks import JobChecks
from node.world import check_grants, is_builtin
from tests.lattice.lattices import Node, digest, spec

STORE, BLOBS, STOCK = "wasi:keyvalue/store@0.2.0-draft", "wasi:blobstore/blobstore", "demo:stock/items@1.0.0"
COUNT = wit.Interface(STOCK, {"count": wit.Function((), wit.Primitive("u32"))})


def importing(*names: str) -> wit.ComponentType:
    imports = {name: COUNT if name == STOCK else wit.Interface(name, {}) for name in names}
    return wit.ComponentType(imports=imports, exports={})


class World:
    """What a node knows of the lattice: a provider of each kind, and `stock`, a component."""

    def __init__(self) -> None:
        bus = MemoryBus(MemoryBroker())
        observer = Observer(bus, "test")
        self.state = observer.state
        self.asked: list[Link] = []
        self.refusal: Invalid | None = None
        self.configurations = Configurations(bus, "test")
        checks = ComponentChecks(
            observer,
            catalog=Catalog(is_builtin=is_builtin),
            configurations=self.configurations,
            secrets=Secrets(bus, "test", node="NA", key=SealKey.generate()),
            check_grants=check_grants,
            check_configurations=self._ask,
        )
        self.jobs = JobChecks(checks, self.state, self.configurations)
        self._offer(("keyvalue-nats", "lattice:keyvalue"), ("blobstore-nats", "lattice:blobstore"))
        stock = new_application("stock", None, 1, components=[spec("stock", digest=7)])
        self.state.apply(stock, 0.0)
        type_ = wit.ComponentType(imports={}, exports={STOCK: COUNT})
        observer.descriptions.add(Description(digest=digest(7), size=1, type=type_))

    def _offer(self, *offers: tuple[str, str]) -> None:
        node = Node("NA")
        node.assignments.offer(
            Offer(name=name, kind=name, interfaces=(f"{package}/store",)) for name, package in offers
        )
        node.assignments.take_delta()
        self.state.apply(node.heartbeat(), 0.0)
        for page in node.assignments.pages(node.info):
            self.state.apply(page, 0.0)

    async def _ask(self, links: Iterable[Link]) -> None:
        self.asked += links
        if self.refusal is not None:
            raise self.refusal

    def configure(self, name: str, values: Mapping[str, str]) -> None:
        known = self.configurations.record(name)
        generation = known.generation + 1 if known else 1
        self.configurations._records._merge(
            Configuration(name=name, incarnation=1, generation=generation, values=values)
        )

    async def check(self, type_: wit.ComponentType, *links: Mapping[str, Any], **grants: Any) -> list[str]:
        component = ComponentSpec.from_dict({"name": "tally", "digest": digest(1), **grants})
        found = tuple(Link.from_dict({"source": "tally", **link}) for link in links)
        return await self.jobs.check(JobSpec(component=component, links=found), type_)


def keyvalue(target: str = "keyvalue-nats", **fields: Any) -> dict[str, Any]:
    return {"interface": "wasi:keyvalue", "target": target, **fields}


async def test_what_is_linked_and_complete_may_run() -> None:
    world = World()
    stock = {"interface": "demo:stock/items", "target": "stock"}

    found = await world.check(importing(STORE, STOCK), keyvalue(configuration={"bucket": "a"}), stock)

    assert found == []
    assert [link.target for link in world.asked] == ["keyvalue-nats", "stock"]


@pytest.mark.parametrize(
    ("interface", "option"),
    [
        (STORE, "wasi:keyvalue=keyvalue-nats,bucket=NAME"),
        (BLOBS, "wasi:blobstore=blobstore-nats,bucket=NAME"),
        (STOCK, "demo:stock/items=TARGET"),
    ],
)
async def test_an_import_without_a_link_is_denied_with_the_option_that_grants_it(
    interface: str, option: str
) -> None:
    cure = re.escape(
        f"'tally' imports {interface}, which nothing provides; grant it with `latticectl run ... "
    )

    with pytest.raises(Denied, match=rf"{cure}--link {option}`"):
        await World().check(importing(interface))


@pytest.mark.parametrize(
    ("imported", "link", "reason"),
    [
        (
            STORE,
            {"interface": "demo:stock/items", "target": "stock"},
            "'tally' does not import demo:stock/item",
        ),
        (STOCK, {"interface": "demo:stock/items", "target": "keyvalue-nats"}, "does not serve demo:stock"),
        (STORE, keyvalue("blobstore-nats"), "'blobstore-nats' does not serve wasi:keyvalue"),
        (STORE, keyvalue("stock"), "'stock' does not export wasi:keyvalue"),
    ],
)
async def test_a_link_that_leads_to_nothing_of_the_kind_is_invalid(
    imported: str, link: Mapping[str, Any], reason: str
) -> None:
    store = [] if imported == STOCK or link["interface"] == "wasi:keyvalue" else [keyvalue()]

    with pytest.raises(Invalid, match=reason):
        await World().check(importing(imported), *store, link)


@pytest.mark.parametrize("interface", ["wasi:keyvalue", "wasi:keyvalue/store", "wasi:blobstore"])
@pytest.mark.parametrize("configuration", [{}, {"bucket": ""}])
async def test_a_bucket_that_has_no_name_is_refused(interface: str, configuration: Mapping[str, str]) -> None:
    world = World()
    target = "blobstore-nats" if interface == "wasi:blobstore" else "keyvalue-nats"
    imported = BLOBS if interface == "wasi:blobstore" else STORE
    link = {"interface": interface, "target": target, "configuration": configuration}

    with pytest.raises(Invalid, match=f"must name its bucket.*`--link {interface}={target},bucket=NAME`"):
        await world.check(importing(imported), link)
    assert world.asked == []


async def test_a_bucket_may_be_named_by_a_configuration_of_the_lattice() -> None:
    world = World()
    link = keyvalue(configuration_from=["shop"])

    with pytest.raises(Invalid, match="must name its bucket"):
        await world.check(importing(STORE), link)
    world.configure("shop", {"colour": "red"})
    with pytest.raises(Invalid, match="must name its bucket"):
        await world.check(importing(STORE), link)
    world.configure("shop", {"bucket": "orders"})
    assert await world.check(importing(STORE), link) == []


async def test_a_component_that_serves_the_interface_needs_no_bucket() -> None:
    world = World()
    world.state.apply(new_application("store", None, 1, components=[spec("store", digest=8)]), 0.0)

    assert await world.check(importing(STORE), keyvalue("store")) == []


async def test_what_the_provider_refuses_is_invalid() -> None:
    world = World()
    world.refusal = Invalid("link of wasi:keyvalue to 'keyvalue-nats': no")

    with pytest.raises(Invalid, match="no"):
        await world.check(importing(STORE), keyvalue(configuration={"bucket": "a"}))


@pytest.mark.parametrize("grants", [{"network": ["tcp"]}, {"allow_hosts": ["https://example.com/path"]}])
async def test_a_grant_that_can_not_be_read_is_invalid(grants: Mapping[str, Any]) -> None:
    with pytest.raises(Invalid):
        await World().check(importing(), **grants)


async def test_names_that_lead_nowhere_are_told_of() -> None:
    elsewhere = keyvalue("cache", configuration={"bucket": "a"})
    grants = {"configuration_from": ["shop", "env:SHOP"], "secrets": {"password": "db", "key": "file:key"}}

    found = await World().check(importing(STORE), elsewhere, **grants)

    assert found == [
        "its link of wasi:keyvalue leads to 'cache', which is neither deployed nor offered",
        "there is no configuration 'shop' yet; `latticectl config put shop KEY=VALUE` makes it",
        "there is no secret 'db' yet; `latticectl secret put db` makes it",
    ]
