"""Secrets: who can open them, that nothing else is stored or printed, and rotation."""

from __future__ import annotations

import json
import pickle
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import anyio
import nkeys
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice import subjects
from lattice.errors import Conflict, Denied, Failed, Invalid, NotFound
from lattice.inventory import Heartbeat, InventoryPage, NodeInfo
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.model import Link, new_application
from lattice.sealing import MAX_BYTES, SealKey, Secret, announced_key, announced_keys
from lattice.secret_readers import Candidate, SecretsPolicy, candidates
from lattice.secrets import (
    MAX_SEALS,
    SecretRecord,
    Secrets,
    resealed,
    sealed_record,
)
from lattice.state import LatticeState
from tests.lattice.lattices import spec
from tests.waiting import until

LATTICE = "test"
NOW_MS = 1_700_000_000_000
VALUE = "hunter2-correct-horse"


class Member:
    """A node's keys."""

    def __init__(self) -> None:
        self.seed = bytes(nkeys.encode_seed(SealKey.generate().public, nkeys.PREFIX_BYTE_SERVER))
        self.id = nkeys.from_seed(bytearray(self.seed)).public_key.decode()
        self.key = SealKey.generate()
        self.announcement = self.key.announcement(self.seed)


class World:
    """Nodes that follow one store, and which of them are live."""

    def __init__(self, stack: AsyncExitStack, tasks: anyio.abc.TaskGroup) -> None:
        self.broker = MemoryBroker()
        self.live: dict[str, Candidate] = {}
        self.leader: str | None = None
        self.announced: list[str] = []
        self._stack = stack
        self._tasks = tasks

    async def join(self, member: Member, policy: SecretsPolicy = SecretsPolicy()) -> Secrets:  # noqa: B008
        bus = await self._stack.enter_async_context(MemoryBus(self.broker))
        secrets = Secrets(bus, LATTICE, node=member.id, key=member.key)
        await self._tasks.start(secrets.run)
        self.live[member.id] = Candidate(announcement=member.announcement)
        self._tasks.start_soon(
            secrets.keep_sealed,
            lambda: self.live,
            lambda: self.leader,
            policy,
            lambda event, details: self.announced.append(event),
        )
        return secrets

    async def connect(self) -> MemoryBus:
        return await self._stack.enter_async_context(MemoryBus(self.broker))

    async def follow(self, secrets: Secrets) -> None:
        await self._tasks.start(secrets.run)

    def seal(
        self, value: str | bytes, previous: SecretRecord | None = None, *readers: str, name: str = "db"
    ) -> SecretRecord:
        keys = announced_keys({node: found.announcement for node, found in self.live.items()})
        return sealed_record(
            name, Secret(value), previous, NOW_MS, lattice=LATTICE, nodes=keys, readers=readers
        )

    def stored(self) -> bytes:
        entries = self.broker.bucket(subjects.secrets_bucket(LATTICE)).entries()
        return b"".join(entry.value or b"" for entry in entries)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        yield World(stack, tasks)
        tasks.cancel_scope.cancel()


def can_read(secrets: Secrets) -> bool:
    try:
        secrets.reveal("db")
    except (Denied, NotFound):
        return False
    return True


# Values and keys


@given(value=st.text() | st.binary())
def test_what_is_sealed_is_opened_by_the_nodes_it_is_sealed_to_and_by_no_other(value: str | bytes) -> None:
    one, other = SealKey.generate(), SealKey.generate()
    record = sealed_record("db", Secret(value), None, NOW_MS, lattice=LATTICE, nodes={"NA": one.public})

    assert record.reveal(record.open("NA", one)).reveal() == value
    with pytest.raises(Denied, match="not sealed to this node"):
        record.open("NB", other)
    with pytest.raises(Denied, match="another key"):
        record.open("NA", other)


def test_a_sealed_value_can_not_be_passed_off_as_another() -> None:
    key = SealKey.generate()
    record = sealed_record("db", Secret(VALUE), None, NOW_MS, lattice=LATTICE, nodes={"NA": key.public})
    data_key = record.open("NA", key)

    for change in ({"name": "other"}, {"generation": 2}, {"lattice": "prod"}, {"kind": "bytes"}):
        with pytest.raises(Failed, match="tampered"):
            replace(record, **change).reveal(data_key)
    with pytest.raises(Failed, match=r"damaged|tampered"):
        replace(record, box="?" + record.box[1:]).reveal(data_key)


def test_a_secret_shows_itself_nowhere() -> None:
    secret = Secret(VALUE)

    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r:>30}", repr({"k": [secret]})]

    assert not any("hunter2" in text for text in shown)
    for leak in (lambda: json.dumps(secret), lambda: pickle.dumps(secret)):
        with pytest.raises(TypeError):
            leak()


def test_a_seal_key_is_kept_as_a_curve_seed() -> None:
    key = SealKey.generate()

    assert key.seed.startswith(b"SX")
    assert SealKey.from_seed(key.seed).public == key.public
    altered = key.seed[:-2] + (b"AA" if key.seed[-2:] != b"AA" else b"QQ")
    for broken in (b"", b"SXAAAA", key.seed[:-1], altered, b"SU" + key.seed[2:], b"?" * 58):
        with pytest.raises(Invalid, match="curve seed"):
            SealKey.from_seed(broken)


def test_only_the_owner_of_a_node_id_can_announce_its_key() -> None:
    member, impostor = Member(), Member()

    assert announced_key(member.id, member.announcement) == member.key.public
    forged = impostor.key.announcement(impostor.seed)
    another_end = "00" if member.announcement[-2:] != "00" else "01"
    for text in (forged, member.announcement[:-2] + another_end, member.announcement[:64], "", "x.y"):
        assert announced_key(member.id, text) is None
    assert announced_key("not-a-key", member.announcement) is None


# In the lattice


async def test_the_store_holds_nothing_that_is_readable(world: World) -> None:
    node = await world.join(Member())
    await node.put(world.seal(VALUE))

    assert VALUE.encode() not in world.stored()
    assert node.reveal("db").text() == VALUE


async def test_a_rotated_secret_is_seen_by_the_next_reader_everywhere(world: World) -> None:
    first, second = await world.join(Member()), await world.join(Member())
    record = await first.put(world.seal("old"))
    await until(lambda: can_read(second))

    await second.put(world.seal("new", record))

    await until(lambda: first.reveal("db").text() == "new" == second.reveal("db").text())


async def test_a_node_that_joins_gets_what_the_leader_can_read(world: World) -> None:
    leader = Member()
    world.leader = leader.id
    first = await world.join(leader)
    await first.put(world.seal(VALUE))

    second = await world.join(Member())

    await until(lambda: can_read(second))
    assert second.reveal("db").text() == VALUE
    assert first.record("db").generation == 1  # type: ignore[union-attr]
    assert world.announced == ["secret.sealed"]


async def test_a_node_that_joins_gets_what_another_than_the_leader_can_read(world: World) -> None:
    first = await world.join(Member())
    await first.put(world.seal(VALUE))
    leader = Member()
    world.leader = leader.id

    second = await world.join(leader)

    await until(lambda: can_read(second))


async def test_a_node_with_a_new_key_gets_secrets_anew(world: World) -> None:
    first, member = await world.join(Member()), Member()
    await world.join(member)
    await first.put(world.seal(VALUE))
    member.key = SealKey.generate()
    member.announcement = member.key.announcement(member.seed)

    world.leader = member.id
    again = await world.join(member)

    await until(lambda: can_read(again))


async def test_neither_policy_nor_readers_let_another_node_in(world: World) -> None:
    owner, stranger = Member(), Member()
    first = await world.join(owner, SecretsPolicy.parse(f"{owner.id}"))
    await first.put(world.seal(VALUE, None, name="closed"))
    record = world.seal(VALUE, None, owner.id, name="listed")
    await first.put(record)
    other = await world.join(stranger)
    await until(lambda: other.record("listed") is not None and other.record("closed") is not None)
    await first._seal_to_more(record, world.live, SecretsPolicy(), lambda event, details: None)

    for name in ("closed", "listed"):
        with pytest.raises(Denied, match=r"not sealed to this node.*--secrets-for"):
            other.reveal(name)
    assert world.announced == []


async def test_an_impostor_with_the_id_of_a_node_gets_nothing(world: World) -> None:
    member, impostor = Member(), Member()
    first = await world.join(member)
    await first.put(world.seal(VALUE))
    absent = Member()
    world.live[absent.id] = Candidate(announcement=impostor.key.announcement(impostor.seed))

    record = first.record("db")
    assert record is not None
    await first._seal_to_more(record, world.live, SecretsPolicy(), lambda event, details: None)

    assert set(first.record("db").sealed) == {member.id}  # type: ignore[union-attr]


async def test_of_two_that_put_at_the_same_time_one_is_told(world: World) -> None:
    node = await world.join(Member())
    one, other = world.seal("one"), world.seal("other")

    await node.put(one)

    with pytest.raises(Conflict, match="put it again"):
        await node.put(other)


async def test_a_deleted_secret_is_gone_and_may_be_made_again(world: World) -> None:
    node = await world.join(Member())
    await node.put(world.seal("old"))
    await node.delete("db")

    with pytest.raises(NotFound, match="latticectl secret put db"):
        node.reveal("db")
    with pytest.raises(NotFound):
        await node.delete("db")
    assert b"box" in world.stored()
    assert node.last("db").sealed == {}  # type: ignore[union-attr]

    await node.put(world.seal("new", node.last("db")))
    assert node.reveal("db").text() == "new"


async def test_what_is_sealed_for_another_lattice_or_for_nobody_is_refused(world: World) -> None:
    node = await world.join(Member())

    for record in (replace(world.seal(VALUE), lattice="prod"), replace(world.seal(VALUE), sealed={})):
        with pytest.raises(Invalid, match="sealed to no node of this lattice"):
            await node.put(record)


async def test_a_secret_of_another_lattice_is_not_opened(world: World) -> None:
    member = Member()
    node = await world.join(member)
    foreign = sealed_record(
        "db", Secret(VALUE), None, NOW_MS, lattice="prod", nodes={member.id: member.key.public}
    )

    node._records._merge(foreign)

    with pytest.raises(Failed, match="sealed for lattice 'prod'"):
        node.reveal("db")


async def test_the_process_of_a_provider_on_the_list_gets_the_secrets_of_its_links_alone(
    world: World,
) -> None:
    owner, process = Member(), Member()
    first = await world.join(owner, SecretsPolicy.parse(f"{owner.id}, provider:cache"))
    for name in ("db", "other"):
        await first.put(world.seal(VALUE, None, name=name))
    bus = await world.connect()
    second = Secrets(bus, LATTICE, node=process.id, key=process.key, provider="cache")
    await world.follow(second)

    world.live[process.id] = Candidate(announcement=process.announcement, provider="cache")
    await until(lambda: second.record("db") is not None and second.record("other") is not None)
    with pytest.raises(Denied, match=r"add `provider:cache` to `--secrets-for` of the nodes"):
        second.reveal("db")
    world.live[process.id] = replace(world.live[process.id], linked=frozenset({"db"}))

    await until(lambda: can_read(second))
    with pytest.raises(Denied):
        second.reveal("other")


async def test_a_secret_for_a_node_is_for_the_processes_of_those_providers_only_that_are_named_too(
    world: World,
) -> None:
    owner, process = Member(), Member()
    first = await world.join(owner)
    await first.put(world.seal(VALUE, None, owner.id))
    second = Secrets(await world.connect(), LATTICE, node=process.id, key=process.key, provider="cache")
    await world.follow(second)

    world.live[process.id] = Candidate(announcement=process.announcement, provider="cache")
    assert not second.is_awaited("db")
    with pytest.raises(Denied, match=r"put it again, `--for provider:cache` too"):
        second.reveal("db")
    record = replace(world.seal(VALUE, first.last("db"), owner.id), reader_providers=("cache",))
    await first.put(record)

    await until(lambda: can_read(second))
    assert not record.may_be_read_by("NX", "other") and not record.may_be_read_by("NX")


def test_a_secret_is_sealed_at_once_to_the_processes_that_may_read_it() -> None:
    record = sealed_record(
        "db",
        Secret(VALUE),
        None,
        NOW_MS,
        lattice=LATTICE,
        nodes={node: SealKey.generate().public for node in ("NA", "NB", "NP", "NQ")},
        readers=("NA",),
        reader_providers=("cache",),
        provider_of={"NP": "cache", "NQ": "store"},
    )

    assert set(record.sealed) == {"NA", "NP"}
    assert SecretRecord.from_dict(record.to_dict(), "record") == record


def test_secrets_of_links_to_a_provider_are_those_of_components_that_are_there() -> None:
    state, member = LatticeState(), Member()
    info = NodeInfo(id="NP", name="p", boot=1, seal_key=member.announcement, provider="cache")
    state.apply(Heartbeat(node="NP", boot=1, beat=1, inventory=1), 0.0)
    state.apply(InventoryPage(info=info, inventory=1), 0.0)
    to = [
        Link(source="shop", interface=f"demo:{target}", target=target, secrets={"key": secret})
        for target, secret in (("cache", "db"), ("store", "other"))
    ]
    application = new_application("shop", None, 1, components=[spec("shop")], links=to)
    state.apply(application, 0.0)

    found = candidates(state, SecretsPolicy.parse("provider:cache"))
    unlisted = candidates(state, SecretsPolicy.parse("provider:store"))

    assert found["NP"].linked == {"db"}
    assert unlisted["NP"].linked == frozenset()


def test_nodes_that_are_gone_make_room_for_new_ones() -> None:
    key = SealKey.generate()
    record = sealed_record("db", Secret(VALUE), None, NOW_MS, lattice=LATTICE, nodes={"NA": key.public})
    full = replace(record, sealed={**record.sealed, **{f"N{n}": "x" for n in range(MAX_SEALS - 1)}})

    found = resealed(full, "NA", key, {"NB": SealKey.generate().public}, live={"NA", "NB", "N1"})

    assert set(found.sealed) == {"NA", "NB", "N1"}
    assert found.supersedes(full)


def test_what_is_too_large_or_malformed_is_refused() -> None:
    with pytest.raises(Invalid, match="bytes of the secret"):
        sealed_record("db", Secret("x" * (MAX_BYTES + 1)), None, NOW_MS, lattice=LATTICE, nodes={})
    with pytest.raises(Invalid, match="kind of the secret"):
        SecretRecord(name="db", incarnation=1, lattice=LATTICE, kind="number")
    with pytest.raises(Invalid, match=r"secrets-for.*latticectl get nodes"):
        SecretsPolicy.parse("N A")
