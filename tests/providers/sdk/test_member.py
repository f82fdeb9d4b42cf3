"""A provider's process is a member of the lattice: it is seen, called and missed as nodes are."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import nkeys
import pytest
from anyio.abc import TaskGroup
from click.testing import CliRunner

from lattice import announcer, subjects
from lattice.clock import now
from lattice.errors import (
    Conflict,
    Denied,
    Interrupted,
    Invalid,
    LatticeError,
    NotFound,
    Unreachable,
)
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.model import new_application
from lattice.observer import application_key, encode_value
from lattice.sealing import SealKey, Secret
from lattice.secret_readers import Candidate, SecretsPolicy, candidates
from lattice.secrets import Secrets, sealed_record
from lattice.settings import load
from providers.hosting import DESCRIPTION
from providers.provider import BoundLink
from providers.sdk.__main__ import main
from providers.sdk.member import Member
from providers.sdk.settings import MemberSettings, offer_of_class, offer_of_target
from tests.lattice.lattices import spec
from tests.providers.fakes import Greeter, World
from tests.providers.sdk.someone import LATTICE, NAME, Someone, someone
from tests.waiting import until


def _offer(world: World, settings: MemberSettings) -> Any:
    def make() -> Greeter:
        return Greeter(world)

    return offer_of_class(make, settings)


@asynccontextmanager
async def member(server: MemoryBroker, world: World) -> AsyncGenerator[Member]:
    """A process of its own, as far as anybody can see: it has its own connection."""
    settings = load(MemberSettings, flags={"name": NAME})
    async with MemoryBus(server) as bus, Member(settings, NAME, bus, _offer(world, settings)) as joined:
        yield joined


async def test_member_is_seen_and_called_over_links_which_it_follows() -> None:
    server, world = MemoryBroker(), World()

    async with member(server, world) as joined, someone(server) as caller:
        await caller.sees(1)
        view = caller.observer.state.observed.nodes[joined.id]
        assert view.info is not None
        assert (view.info.capacity, view.offers[0].kind) == (0, "make")
        assert view.info.seal_key
        with pytest.raises(Denied, match="latticectl link put counter acme:greetings greeter"):
            await caller.call("greet", "Ann")

        await caller.put(word="Moin")
        assert await caller.call("greet", "Ann") == "Moin, Ann!"
        await caller.put(word="Hello")
        with anyio.fail_after(5):
            while await caller.call("greet", "Ann") != "Hello, Ann!":
                await caller.observer.wait_for_change()
        described = await caller.call("describe", interface=DESCRIPTION, link=None)
        assert described["statistics"]["calls"] >= 3

    assert world.events[-1] == "close"


async def test_member_says_at_once_that_it_knows_of_a_changed_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer, "HEARTBEAT_SECONDS", 60.0)  # so that none comes in turn
    server, world = MemoryBroker(), World()

    async with member(server, world) as joined, someone(server) as caller:
        await caller.sees(1)
        state = caller.observer.state
        await caller.put(word="Moin")

        def is_known() -> bool:
            desired = state.desired
            told = state.observed.nodes[joined.id].heartbeat.copies
            return "counter" in desired.applications and told == desired.summary

        await until(is_known)


class Telling(Greeter):
    """Greets with a secret of the link."""

    async def bind(self, link: BoundLink) -> str:
        return link.secrets["word"].text()


async def test_a_link_gets_secrets_of_files_that_the_process_opened_and_a_new_one_without_a_restart(
    tmp_path: Path,
) -> None:
    file = anyio.Path(tmp_path / "word")
    await file.write_text("Moin\n")
    flags = {"name": NAME, "secret_source": [f"file:{tmp_path}"]}
    settings = load(MemberSettings, flags=flags)
    offer, server = offer_of_class(lambda: Telling(World()), settings), MemoryBroker()

    async with MemoryBus(server) as bus, Member(settings, NAME, bus, offer), someone(server) as caller:
        await caller.sees(1)
        await caller.put(secrets={"word": "file:word"})
        await greeted(caller, "Moin, Ann!")
        await file.write_text("Hello\n")
        await greeted(caller, "Hello, Ann!")
        await caller.put(secrets={"word": "file:wort"})
        await greeted(caller, "did you mean `file:word`")
        await caller.put(secrets={"word": "env:HOME"})
        await greeted(caller, "--secret-source env:PREFIX_")


@pytest.mark.parametrize("listed", ["all", f"provider:{NAME}"])
async def test_a_member_offers_nothing_before_it_can_read_the_secrets_of_its_links(listed: str) -> None:
    server, world = MemoryBroker(), World()
    settings = load(MemberSettings, flags={"name": NAME})
    offer = offer_of_class(lambda: Telling(world), settings)
    ends, ended = anyio.Event(), anyio.Event()

    async def join() -> None:
        async with MemoryBus(server) as bus, Member(settings, NAME, bus, offer):
            await ends.wait()
        ended.set()

    async with someone(server) as caller, MemoryBus(server) as bus, anyio.create_task_group() as tasks:
        await caller.put(secrets={"word": "greeting"})
        seal = await sealer(bus, caller, tasks, "greeting", "Moin", policy=SecretsPolicy.parse(listed))
        tasks.start_soon(join)
        with anyio.fail_after(5):
            await caller.observer.wait_for(lambda state: any(view.info for view in state.observed.live()))
        assert caller.observer.state.observed.offers.get(NAME, {}) == {}
        seal.set()
        await caller.sees(1)

        assert await caller.call("greet", "Ann") == "Moin, Ann!"
        ends.set()
        await ended.wait()
        tasks.cancel_scope.cancel()


async def sealer(
    bus: MemoryBus, sees: Someone, tasks: TaskGroup, name: str, text: str, *, policy: SecretsPolicy
) -> anyio.Event:
    """Have a node put a secret, and seal it to whom its policy allows, as soon as the event is set."""
    seed = bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_SERVER))
    node = nkeys.from_seed(bytearray(seed)).public_key.decode()
    key, begins = SealKey.generate(), anyio.Event()

    def everybody() -> Mapping[str, Candidate]:
        others = candidates(sees.observer.state, policy) if begins.is_set() else {}
        return {node: Candidate(announcement=key.announcement(seed)), **others}

    secrets = Secrets(bus, LATTICE, node=node, key=key)
    await tasks.start(secrets.run)
    tasks.start_soon(secrets.keep_sealed, everybody, lambda: node, policy)
    nodes = {node: key.public}
    await secrets.put(sealed_record(name, Secret(text), None, 1, lattice=LATTICE, nodes=nodes))
    return begins


async def test_a_link_gets_configurations_of_files_that_the_process_opened(tmp_path: Path) -> None:
    file = anyio.Path(tmp_path / "greet.env")
    await file.write_text("word=Moin\n")
    settings = load(MemberSettings, flags={"name": NAME, "config_source": [f"file:{tmp_path}"]})
    world, server = World(), MemoryBroker()

    make = _offer(world, settings)
    async with MemoryBus(server) as bus, Member(settings, NAME, bus, make), someone(server) as caller:
        await caller.sees(1)
        await caller.put(named=["file:greet.env"])
        await greeted(caller, "Moin, Ann!")
        await file.write_text("word=Hello\n")
        await greeted(caller, "Hello, Ann!")
        await caller.put(named=["env:GREET_"])
        await greeted(caller, "--config-source env:GREET_")


async def greeted(caller: Someone, wanted: str) -> None:
    """Return when the answer, or the message of its error, has this."""

    async def answer() -> str:
        try:
            return str(await caller.call("greet", "Ann"))
        except LatticeError as error:
            return error.message

    with anyio.fail_after(10):
        while wanted not in await answer():  # noqa: ASYNC110 - files are looked at from time to time
            await anyio.sleep(0.02)


async def deploy(server: MemoryBroker, name: str) -> None:
    """Store an application of one component."""
    async with MemoryBus(server) as bus:
        store = await bus.key_value(subjects.state_bucket(LATTICE))
        application = new_application(name, None, 1, components=[spec(name)])
        await store.put(application_key(name), encode_value(application))


async def test_who_has_the_name_of_a_component_does_not_even_join() -> None:
    server = MemoryBroker()

    async with someone(server) as observing:
        await deploy(server, NAME)
        with anyio.fail_after(5), pytest.raises(Conflict, match=r"'greeter' is a component .* another name"):
            async with member(server, World()):
                pass

        assert not observing.observer.state.observed.nodes


async def test_who_offers_what_becomes_a_component_offers_it_no_longer() -> None:
    server = MemoryBroker()

    async with member(server, World()), someone(server) as caller:
        await caller.sees(1)
        await deploy(server, NAME)
        await caller.sees(1, healthy=False)

        ((_, offer),) = caller.observer.state.observed.offers[NAME].values()
        assert "delete the component" in offer.reason


async def test_two_of_one_name_share_the_calls_and_the_last_that_leaves_takes_the_offer_along() -> None:
    server = MemoryBroker()

    async with someone(server) as caller:
        async with member(server, World()):
            async with member(server, World()):
                await caller.sees(2)
                await caller.put()
                assert await caller.call("greet", "Ann") == "Hello, Ann!"
            await caller.sees(1)
            assert await caller.call("greet", "Bob") == "Hello, Bob!"
        await caller.sees(0)

        began = now()
        with pytest.raises(Unreachable, match="no node offers it"):
            await caller.call("greet", "Ann")
        assert now() - began < 2.5  # else it would have waited for its deadline


async def test_member_whose_backend_fails_says_so_and_its_calls_end_at_once() -> None:
    server, world = MemoryBroker(), World()

    async with member(server, world), someone(server) as caller:
        await caller.put()
        await caller.sees(1)
        world.fails_to_start = [Unreachable("no server")] * 2
        world.fails_to_check = Unreachable("the server is gone")
        with pytest.raises(Interrupted):
            await caller.call("fail-interrupted")
        await caller.sees(1, healthy=False)

        began = now()
        with pytest.raises(Unreachable, match="server"):
            await caller.call("greet", "Ann")
        assert now() - began < 2.5  # else it would have waited for its deadline
        await caller.sees(1)
        assert await caller.call("greet", "Ann") == "Hello, Ann!"


async def _release(world: World) -> None:
    await anyio.lowlevel.checkpoint()
    world.release.set()


async def test_member_that_ends_lets_calls_end() -> None:
    server, world = MemoryBroker(), World()
    results: list[str] = []

    async with someone(server) as caller, anyio.create_task_group() as tasks, member(server, world):
        await caller.put()
        await caller.sees(1)

        async def wait() -> None:
            results.append(await caller.call("wait"))

        tasks.start_soon(wait)
        await world.entered.wait()
        tasks.start_soon(_release, world)

    assert results == ["Hello"]


@pytest.mark.parametrize(
    ("target", "settings", "reason"),
    [
        ("nothing", {}, "neither MODULE:CLASS nor one of"),
        ("no_such_module:Greeter", {}, "cannot import no_such_module"),
        ("tests.providers.fakes:Nobody", {}, "has no 'Nobody'"),
        ("tests.providers.fakes:Greeter", {"word": "a"}, "greeter takes no settings"),
        ("keyvalue-redis", {"ulr": "a"}, "did you mean `url`"),
    ],
)
def test_what_cannot_be_offered_is_said_before_anything_starts(
    target: str, settings: dict[str, str], reason: str
) -> None:
    given = load(MemberSettings, flags={"name": NAME, "set": tuple(f"{k}={v}" for k, v in settings.items())})

    with pytest.raises(Invalid, match=reason):
        offer_of_target(target, given)


def test_command_names_what_is_wrong_and_exits_with_2_or_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATTICE_STATE", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    run: Callable[..., Any] = CliRunner().invoke

    unnamed = run(main, ["keyvalue-memory"])
    nowhere = run(main, ["keyvalue-memory", "--name", "cache"])

    assert (unnamed.exit_code, "--name NAME" in unnamed.output) == (2, True)
    assert (nowhere.exit_code, "lattice-node start" in nowhere.output) == (1, True)


@pytest.mark.parametrize(
    "name", ["LATTICE", "NATS", "CREDS", "SYSTEM_CREDS", "TLS_CA", "TLS_CERT", "TLS_KEY"]
)
def test_command_finds_the_lattice_by_the_variables_of_nodes(name: str) -> None:
    text = CliRunner().invoke(main, ["--help"]).output

    assert f"[env: LATTICE_{name}]" in " ".join(text.split())


def test_command_names_the_variable_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATTICE_LOG_LEVEL", "loud")
    monkeypatch.setattr(sys, "path", list(sys.path))

    done = CliRunner().invoke(main, ["keyvalue-memory", "--name", "cache"])

    assert done.exit_code == 2
    assert "LATTICE_LOG_LEVEL: 'loud' is not one of" in done.output


async def test_who_observes_takes_nobody_for_missing_before_all_had_time_to_answer() -> None:
    server, world = MemoryBroker(), World()

    async with member(server, world), someone(server) as caller:
        assert caller.observer.is_caught_up
        assert not caller.observer.has_heard_all
        with pytest.raises(Unreachable), anyio.fail_after(5):
            await caller.call("greet", link=None, component="not-heard-yet", deadline=now() + 0.1)
        with anyio.fail_after(5), pytest.raises(NotFound, match="not-heard-yet"):
            await caller.call("greet", link=None, component="not-heard-yet")
        assert caller.observer.has_heard_all


async def test_member_whose_block_is_cancelled_leaves_at_once() -> None:
    server, world = MemoryBroker(), World()

    async def offer() -> None:
        async with member(server, world):
            await anyio.sleep_forever()

    with anyio.fail_after(5):
        async with someone(server) as caller, anyio.create_task_group() as tasks:
            tasks.start_soon(offer)
            await caller.sees(1)
            tasks.cancel_scope.cancel()

    assert world.events[-1] == "close"
