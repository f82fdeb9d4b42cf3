"""Named secrets: sealed to the nodes that may read them, replaced without restarting anything.

The store and the bus carry only what is sealed. Whoever puts a secret seals it to the nodes that there are;
one node, the leader if it can, seals it to those that join later, as far as its policy and the secret's own
list of readers allow. Other secrets come from a process's own sources, as far as its operator opened them
(`lattice.secret_sources`), and never leave it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Self

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskStatus

from lattice import subjects
from lattice.bus import Bus
from lattice.errors import Conflict, Denied, Failed, Invalid, LatticeError, NotFound
from lattice.fields import check_range
from lattice.names import check_name, did_you_mean
from lattice.records import Copies, Record, Records, next_version
from lattice.sealing import (
    MAX_BYTES,
    SealKey,
    Secret,
    announced_keys,
    decrypt,
    encrypt,
    is_sealed_to,
    seal_key_to,
)
from lattice.secret_readers import Candidate, SecretsPolicy
from lattice.secret_sources import SecretSources, is_local
from lattice.subjects import check_node

log = structlog.get_logger()

MAX_SEALS = 512
"""Nodes that one secret is sealed to; those that are gone make room for new ones."""
RESEAL_SECONDS = 0.1
"""Between two looks for nodes that have joined: one that does can't serve what needs a secret until then."""
LOOK_AGAIN_SECONDS = 30.0
"""After which all secrets are looked at even if nothing has changed: sealing some may have failed."""
TEXT, BINARY = "string", "bytes"
NO_PROVIDERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRecord(Record):
    """A secret as it is stored: of its value, only what nodes can open."""

    lattice: str
    kind: str = TEXT
    box: str = ""
    """The value, encrypted with the data key."""
    sealed: Mapping[str, str] = field(default_factory=dict)
    """The data key, sealed to each node by its id."""
    readers: tuple[str, ...] = ()
    """Ids of the nodes that may read it; all, and every provider's process, when empty."""
    reader_providers: tuple[str, ...] = ()
    """Providers whose processes may read it beside these nodes, which seal it to them as they start."""
    seals: int = 0
    """Counts the times that it was sealed to further nodes."""
    changed_at: int = 0
    """When the value was put, in milliseconds since 1970, for people."""

    def __post_init__(self) -> None:
        Record.__post_init__(self)
        if self.kind not in (TEXT, BINARY):
            raise Invalid(f"kind of the secret is {self.kind[:20]!r}: use {TEXT} or {BINARY}")
        check_range(len(self.box), 0, 2 * MAX_BYTES, "length of the encrypted secret")
        check_range(len(self.sealed), 0, MAX_SEALS, "nodes that the secret is sealed to")
        check_range(len(self.readers), 0, MAX_SEALS, "readers of the secret")
        check_range(len(self.reader_providers), 0, MAX_SEALS, "providers that may read the secret")
        for node in (*self.readers, *self.sealed):
            check_node(node)
        for provider in self.reader_providers:
            check_name(provider, "provider that may read the secret")

    @property
    def version(self) -> tuple[int, ...]:
        """The value's version, then how often it was sealed anew."""
        return self.incarnation, self.generation, self.seals

    def deleted(self, now_ms: int) -> Self:
        """The tombstone, without anything to open."""
        return replace(
            self, generation=self.generation + 1, deleted_at=now_ms, box="", sealed={}, changed_at=now_ms
        )

    def may_be_read_by(self, node: str, provider: str = "") -> bool:
        """Whether who put it allows that node, or process of a provider."""
        return not self.readers or node in self.readers or provider in self.reader_providers

    def open(self, node: str, key: SealKey, provider: str = "") -> bytes:
        """The data key; raises `Denied` if it is not sealed to that node, or process of a provider."""
        sealed = self.sealed.get(node)
        if sealed is None:
            raise Denied(self._closed_to(node, provider))
        return key.open(sealed)

    def _closed_to(self, node: str, provider: str) -> str:
        if not provider:
            return (
                f"secret {self.name!r} is not sealed to this node ({node}): "
                "put it again with `--for` this node, or see `--secrets-for` of the node that leads"
            )
        closed = f"secret {self.name!r} is not sealed to this process of provider {provider!r}: "
        if not self.may_be_read_by(node, provider):
            return f"{closed}it was put `--for` certain nodes; put it again, `--for provider:{provider}` too"
        return f"{closed}add `provider:{provider}` to `--secrets-for` of the nodes"

    def reveal(self, data_key: bytes) -> Secret:
        """The value; raises `Failed` for what is not what was put under this name and version."""
        value = decrypt(self.box, data_key, self.binding)
        return Secret(value.decode() if self.kind == TEXT else value)

    @property
    def binding(self) -> bytes:
        """What the encrypted value belongs to, so that it can't be passed off as another."""
        parts = [self.lattice, self.name, self.incarnation, self.generation, self.kind]
        return json.dumps(parts).encode()


def sealed_record(
    name: str,
    value: Secret,
    previous: SecretRecord | None,
    now_ms: int,
    *,
    lattice: str,
    nodes: Mapping[str, bytes],
    readers: Iterable[str] = (),
    reader_providers: Iterable[str] = (),
    provider_of: Mapping[str, str] = NO_PROVIDERS,
) -> SecretRecord:
    """The record that replaces `previous`, sealed by their public keys to those nodes that may read it.

    Of those that are a provider's process, `provider_of` says which one's.
    """
    plain = value.reveal()
    data = plain.encode() if isinstance(plain, str) else plain
    check_range(len(data), 0, MAX_BYTES, "bytes of the secret")
    incarnation, generation = next_version(previous, now_ms)
    record = SecretRecord(
        name=name,
        incarnation=incarnation,
        generation=generation,
        lattice=lattice,
        kind=TEXT if isinstance(plain, str) else BINARY,
        readers=tuple(readers),
        reader_providers=tuple(reader_providers),
        changed_at=now_ms,
    )
    data_key, box = encrypt(data, record.binding)
    sealed = {
        node: seal_key_to(data_key, key)
        for node, key in nodes.items()
        if record.may_be_read_by(node, provider_of.get(node, ""))
    }
    return replace(record, box=box, sealed=sealed)


class Secrets:
    """The secrets that this process knows, and its key; the mutable state beside is what it has opened."""

    def __init__(
        self,
        bus: Bus,
        lattice: str,
        *,
        node: str,
        key: SealKey,
        provider: str = "",
        copies: Copies | None = None,
        sources: SecretSources | None = None,
    ) -> None:
        self.lattice = lattice
        self._node = node
        self._key = key
        self._provider = provider
        self._records = Records(bus, subjects.secrets_bucket(lattice), SecretRecord, copies)
        self._sources = sources or SecretSources()
        self._listeners: list[Callable[[str], None]] = []
        self._opened: dict[str, tuple[tuple[int, ...], Secret]] = {}
        self._changed = anyio.Event()
        self._changes = 0
        self._records.on_change(self._record_changed)

    def __repr__(self) -> str:
        return f"<Secrets of {self._node[:8]} {self._records!r}>"

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Follow the store and the sources until cancelled; started when they were read."""
        await to_thread.run_sync(self._sources.read)
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._records.run)
            task_status.started()
            while True:
                for name in sorted(await self._sources.wait_for_change()):
                    log.info("secret.changed", name=name)
                    self._tell(name)

    def reveal(self, name: str) -> Secret:
        """The present value. Raises `NotFound` or, if it is not for this node, `Denied`."""
        if is_local(name):
            return self._sources.get(name)
        record = self._records.get(name)
        if record is None:
            raise self._missing(name)
        opened = self._opened.get(name)
        if record.lattice != self.lattice:
            raise Failed(f"secret {name!r} was sealed for lattice {record.lattice!r}; put it again")
        if opened is None or opened[0] != record.version:
            opened = record.version, record.reveal(record.open(self._node, self._key, self._provider))
            self._opened[name] = opened
        return opened[1]

    def resolve(self, names: Mapping[str, str]) -> dict[str, Secret]:
        """The present values of secrets, by the keys under which they were granted."""
        return {key: self.reveal(name) for key, name in names.items()}

    def record(self, name: str) -> SecretRecord | None:
        """A secret as it is stored."""
        return self._records.get(name)

    def last(self, name: str) -> SecretRecord | None:
        """The same, a tombstone too."""
        return self._records.last(name)

    def records(self) -> list[SecretRecord]:
        """All secrets as they are stored."""
        return self._records.all()

    def is_awaited(self, name: str) -> bool:
        """Whether a secret is there that this node may read, but was not sealed to it yet."""
        record = None if is_local(name) else self._records.get(name)
        if record is None or self._node in record.sealed:
            return False
        return record.may_be_read_by(self._node, self._provider)

    async def wait_for_change(self) -> None:
        """Return when a secret of the lattice has changed, or was sealed to further nodes."""
        await self._changed.wait()

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Call with the name of every secret that is new, changed or gone."""
        self._listeners.append(listener)

    def local_kinds(self) -> Mapping[str, str]:
        """The kinds of the secrets of this process's own sources, by name."""
        return {name: TEXT if is_text else BINARY for name, is_text in self._sources.kinds().items()}

    async def put(self, record: SecretRecord) -> SecretRecord:
        """Store what was sealed for the present version; raises `Conflict` if another one came first."""
        if record.lattice != self.lattice or record.is_deleted or not record.sealed:
            raise Invalid("the secret is sealed to no node of this lattice")

        def change(previous: SecretRecord | None, now_ms: int) -> SecretRecord:
            if not _follows(record, previous):
                raise Conflict(f"secret {record.name!r} was changed by somebody else meanwhile; put it again")
            return record

        return (await self._records.edit(record.name, change))[0]

    async def delete(self, name: str) -> None:
        """Delete; raises `NotFound`."""
        check_name(name, "secret name")

        def change(previous: SecretRecord | None, now_ms: int) -> SecretRecord:
            if previous is None or previous.is_deleted:
                raise self._missing(name)
            return previous.deleted(now_ms)

        await self._records.edit(name, change)

    # Nodes that join

    async def keep_sealed(
        self,
        candidates: Callable[[], Mapping[str, Candidate]],
        leader: Callable[[], str | None],
        policy: SecretsPolicy,
        announce: Callable[[str, Mapping[str, object]], None] = lambda event, details: None,
    ) -> None:
        """Seal secrets to nodes that lack them, where that is this node's part; until cancelled.

        `candidates` gives all live nodes by id, `leader` the id of the node that leads.
        """
        looked_at: object = None
        look_again_at = 0.0
        while True:
            nodes = {node: found for node, found in candidates().items() if found.announcement}
            present = nodes, leader(), self._changes
            if present != looked_at or anyio.current_time() >= look_again_at:
                looked_at, look_again_at = present, anyio.current_time() + LOOK_AGAIN_SECONDS
                for record in self.records():
                    if _responsible(record, nodes, leader()) == self._node:
                        await self._seal_to_more(record, nodes, policy, announce)
            with anyio.move_on_after(RESEAL_SECONDS):
                await self._changed.wait()

    async def _seal_to_more(
        self,
        record: SecretRecord,
        nodes: Mapping[str, Candidate],
        policy: SecretsPolicy,
        announce: Callable[[str, Mapping[str, object]], None],
    ) -> None:
        missing = {
            node: found.announcement
            for node, found in nodes.items()
            if not is_sealed_to(record.sealed.get(node, ""), found.announcement)
            and record.may_be_read_by(node, found.provider)
            and policy.allows(node, found, record.name)
        }
        keys = announced_keys(missing)
        if not keys:
            return

        def change(previous: SecretRecord | None, now_ms: int) -> SecretRecord:
            if previous is None or previous.version != record.version:
                return previous or record
            return resealed(previous, self._node, self._key, keys, live=nodes)

        try:
            _, is_changed = await self._records.edit(record.name, change)
        except LatticeError as error:
            log.warning("secret.not-sealed", name=record.name, reason=error.message)
            return
        if is_changed:
            log.info("secret.sealed", name=record.name, to=sorted(keys))
            announce("secret.sealed", {"name": record.name, "nodes": sorted(keys)})

    def _record_changed(self, record: SecretRecord) -> None:
        opened = self._opened.get(record.name)
        if opened is not None and opened[0][:2] != record.version[:2]:
            del self._opened[record.name]
        self._changes += 1
        self._changed.set()
        self._changed = anyio.Event()
        self._tell(record.name)

    def _tell(self, name: str) -> None:
        for listener in self._listeners:
            listener(name)

    def _missing(self, name: str) -> NotFound:
        names = [record.name for record in self._records.all()]
        return NotFound(
            f"there is no secret {name!r}{did_you_mean(name, names)}; "
            f"make it with `latticectl secret put {name}`"
        )


def resealed(
    record: SecretRecord, node: str, key: SealKey, keys: Mapping[str, bytes], *, live: Collection[str]
) -> SecretRecord:
    """The record sealed to further nodes; forgets those that are gone when there would be too many."""
    data_key = record.open(node, key)
    sealed = dict(record.sealed)
    if len(sealed) + len(keys) > MAX_SEALS:
        sealed = {known: text for known, text in sealed.items() if known in live}
    room = MAX_SEALS - len(sealed)
    added = {known: seal_key_to(data_key, keys[known]) for known in sorted(keys)[: max(room, 0)]}
    return replace(record, sealed={**sealed, **added}, seals=record.seals + 1)


def _responsible(record: SecretRecord, live: Mapping[str, Candidate], leader: str | None) -> str | None:
    """The node that seals it to others: the leader if it can read it, else the first that can.

    The process of a provider that can read it has no policy, and is none.
    """
    readers = sorted(
        node
        for node, found in live.items()
        if not found.provider and is_sealed_to(record.sealed.get(node, ""), found.announcement)
    )
    return leader if leader in readers else next(iter(readers), None)


def _follows(record: SecretRecord, previous: SecretRecord | None) -> bool:
    if previous is None:
        return record.generation == 1
    if previous.is_deleted:
        return record.generation == 1 and record.incarnation > previous.incarnation
    return (record.incarnation, record.generation) == (previous.incarnation, previous.generation + 1)
