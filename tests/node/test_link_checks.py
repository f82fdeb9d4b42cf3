"""A link whose configuration its provider refuses is not stored; what nobody can check is."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import pytest

from ctl.client import ControlClient
from lattice.errors import Invalid
from lattice.memory_bus import MemoryBus
from lattice.settings import load
from node import link_checks
from providers.provider import BoundLink
from providers.registry import parse_spec
from providers.sdk.member import Member
from providers.sdk.settings import MemberSettings, offer_of_class
from tests.node.whole_nodes import EXAMPLES, Lattice, deploy, until
from tests.providers.fakes import GREET, Greeter, World

COUNTER = EXAMPLES / "counter/c/counter.wasm"
STORE, BLOBS, MESSAGES = "wasi:keyvalue", "wasi:blobstore", "wasmcloud:messaging"


async def links(client: ControlClient) -> list[tuple[str, Mapping[str, str]]]:
    return [(link.target, link.configuration) for link in await client.links()]


async def offered(client: ControlClient, provider: str) -> None:
    async def is_offered() -> bool:
        return provider in {item.name for item in await client.providers()}

    await until(is_offered, True)


@pytest.mark.parametrize(
    ("interface", "provider", "configuration", "key"),
    [
        (STORE, "keyvalue-nats", {"buckett": "x"}, "`bucket`"),
        (STORE, "keyvalue-memory", {"bucket": "a/b"}, "`bucket`"),
        (BLOBS, "blobstore-nats", {"access": "all"}, "`access`"),
        (MESSAGES, "messaging-nats", {"stored": "maybe"}, "`stored`"),
    ],
)
async def test_a_configuration_that_the_provider_refuses_is_invalid_at_once(
    lattice: Lattice, interface: str, provider: str, configuration: Mapping[str, str], key: str
) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await offered(client, provider)

    with pytest.raises(Invalid, match=rf"link of {interface} to '{provider}': .*{key}"):
        await client.put_link("shop", interface, provider, configuration=configuration)
    await client.put_config("wrong", configuration)
    with pytest.raises(Invalid, match=key):
        await client.put_link("shop", interface, provider, configuration_from=("wrong",))

    assert await links(client) == []
    await client.put_link("shop", interface, provider)
    assert await links(client) == [(provider, {})]


async def test_deploying_says_which_link_is_wrong_and_makes_nothing(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await offered(client, "keyvalue-nats")
    wrong = (STORE, "keyvalue-nats", {"buckett": "x"})

    with pytest.raises(Invalid, match=r"link of wasi:keyvalue to 'keyvalue-nats': .*did you mean `bucket`"):
        await deploy(client, COUNTER, links=(wrong,))

    assert await client.components() == []


async def test_what_nobody_can_check_now_is_stored(lattice: Lattice) -> None:
    await lattice.start("a")
    client = await lattice.client()
    await offered(client, "keyvalue-nats")
    wrong = {"buckett": "x"}

    lost = await client.put_link("shop", STORE, "keyvalue-nat", configuration=wrong)
    later = await client.put_link(
        "shop",
        BLOBS,
        "keyvalue-nats",
        configuration=wrong,
        configuration_from=("later",),
        secrets={"k": "db"},
    )
    own = await client.put_link("shop", MESSAGES, "keyvalue-nats", configuration_from=("env:OTHERS_",))

    assert len(await links(client)) == 3
    assert "neither deployed nor offered; did you mean `keyvalue-nats`" in lost.warnings[0]
    assert [warning.partition("; ")[0] for warning in later.warnings] == [
        "there is no configuration 'later' yet",
        "there is no secret 'db' yet",
    ]
    assert own.warnings == ()


async def test_a_link_may_lead_to_a_provider_whose_server_is_away(lattice: Lattice) -> None:
    gone = parse_spec("gone=keyvalue-redis,url=redis://127.0.0.1:1", "test")
    await lattice.start("a", {"provider": (gone,)})
    client = await lattice.client()
    await offered(client, "gone")

    await deploy(client, COUNTER, links=((STORE, "gone"),))

    assert "unreachable" in str(await client.call("counter", "seen", ["home"]))


class Picky(Greeter):
    """Refuses words before a link is stored; may answer late, or fail."""

    def __init__(self, world: World, checked: list[BoundLink]) -> None:
        super().__init__(world)
        self.checked = checked

    async def check_link(self, link: BoundLink) -> None:
        self.checked.append(link)
        if link.configuration["word"] == "slow":
            await anyio.sleep_forever()
        if not link.configuration["word"].isalpha():
            raise Invalid("configuration `word` must be letters")


async def test_a_provider_of_its_own_process_is_asked_and_has_no_effect_and_a_second_at_most(
    lattice: Lattice,
) -> None:
    checked: list[BoundLink] = []
    world = World()
    settings = load(MemberSettings, flags={"name": "greetings"})
    offer = offer_of_class(lambda: Picky(world, checked), settings)
    await lattice.start("a")
    client = await lattice.client()
    async with MemoryBus(lattice.broker) as bus, Member(settings, "greetings", bus, offer):
        await offered(client, "greetings")

        with pytest.raises(Invalid, match=r"link of acme:greetings/greet to 'greetings': .*`word` must"):
            await client.put_link("shop", GREET, "greetings", configuration={"word": "7"})
        await client.put_link("shop", GREET, "greetings", secrets={"word": "none"})  # it fails: KeyError
        began = anyio.current_time()
        await client.put_link("shop", GREET, "greetings", configuration={"word": "slow"})
        assert anyio.current_time() - began < link_checks.CHECK_SECONDS + 1.5

        assert [(link.source, link.name, link.interface) for link in checked[:1]] == [
            ("shop", "default", GREET)
        ]
        assert not any(link.secrets for link in checked)
        assert await links(client) == [("greetings", {"word": "slow"})]
    assert not any(event.startswith("bind") for event in world.events)
