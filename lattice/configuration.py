"""Named configurations: values by key, shared by components and links, changed without restarting anything.

Those of the lattice are in a bucket that every node follows; others come from the node's own sources, as far
as its operator opened them (`lattice.configuration_sources`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import anyio
from anyio import to_thread
from anyio.abc import TaskStatus

from lattice import subjects
from lattice.bus import Bus
from lattice.configuration_sources import ENVIRONMENT, FILE, Sources
from lattice.errors import Denied, Invalid, NotFound
from lattice.fields import check_range
from lattice.names import check_name, did_you_mean
from lattice.records import Copies, Record, Records, next_version

MAX_VALUES = 1_000
MAX_BYTES = 256 * 1024
"""Of one configuration, keys and values; it is one value of the store."""
MAX_KEY = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration(Record):
    """One named configuration of the lattice."""

    values: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Record.__post_init__(self)
        check_values(self.values)

    def deleted(self, now_ms: int) -> Self:
        """The tombstone, without values."""
        return replace(self, generation=self.generation + 1, deleted_at=now_ms, values={})


def check_values(values: Mapping[str, str]) -> None:
    """Raise `Invalid` that names the key or the limit."""
    check_range(len(values), 0, MAX_VALUES, "number of values")
    for key in values:
        if not key or len(key) > MAX_KEY or not key.isprintable():
            raise Invalid(
                f"configuration key {key[:80]!r} is not valid: use 1 to {MAX_KEY} printable characters"
            )
    size = sum(len(key.encode()) + len(value.encode()) for key, value in values.items())
    check_range(size, 0, MAX_BYTES, "bytes of the configuration")


class Configurations:
    """What this process knows of all configurations; the mutable state is the records' and the sources'."""

    def __init__(
        self, bus: Bus, lattice: str, *, copies: Copies | None = None, sources: Sources | None = None
    ) -> None:
        self._records = Records(bus, subjects.configuration_bucket(lattice), Configuration, copies)
        self._sources = sources or Sources()
        self._listeners: list[Callable[[str], None]] = []
        self._records.on_change(lambda record: self._changed(record.name))

    def __repr__(self) -> str:
        return f"<Configurations {self._records!r}>"

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Follow the store and the sources until cancelled; started when they were read."""
        await to_thread.run_sync(self._sources.read)
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._records.run)
            task_status.started()
            while True:
                for name in sorted(await self._sources.wait_for_change()):
                    self._changed(name)

    def get(self, name: str) -> Mapping[str, str] | None:
        """The values of one configuration, of the lattice or of a source."""
        record = self._records.get(name)
        return record.values if record is not None else self._sources.get(name)

    def record(self, name: str) -> Configuration | None:
        """A configuration of the lattice with its version."""
        return self._records.get(name)

    def records(self) -> list[Configuration]:
        """All configurations of the lattice."""
        return self._records.all()

    def resolve(self, own: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
        """The values of all names, later ones winning, and `own` over all.

        Raises `NotFound` for a configuration that does not exist and `Denied` for one that this node did not
        open; both name the cure.
        """
        values: dict[str, str] = {}
        for name in names:
            found = self.get(name)
            if found is None:
                raise self._missing(name)
            values.update(found)
        values.update(own)
        return values

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Call with the name of every configuration that is new, changed or gone."""
        self._listeners.append(listener)

    # Changes by operators

    async def put(
        self, name: str, values: Mapping[str, str], *, merge: bool = False
    ) -> tuple[Configuration, bool]:
        """Make or replace a configuration, or with `merge` only these keys; whether that changed it."""
        check_name(name, "configuration name")
        check_values(values)

        def change(previous: Configuration | None, now_ms: int) -> Configuration:
            is_present = previous is not None and not previous.is_deleted
            kept = previous.values if previous is not None and is_present and merge else {}
            wanted = {**kept, **values}
            if previous is not None and is_present and previous.values == wanted:
                return previous
            incarnation, generation = next_version(previous, now_ms)
            return Configuration(name=name, incarnation=incarnation, generation=generation, values=wanted)

        return await self._records.edit(name, change)

    async def delete(self, name: str) -> Configuration:
        """Delete; the tombstone. Raises `NotFound`."""
        check_name(name, "configuration name")

        def change(previous: Configuration | None, now_ms: int) -> Configuration:
            if previous is None or previous.is_deleted:
                raise self._missing(name)
            return previous.deleted(now_ms)

        return (await self._records.edit(name, change))[0]

    def _missing(self, name: str) -> NotFound | Denied:
        if name.startswith((ENVIRONMENT, FILE)):
            opened = (
                f"file:DIR` of the folder that has `{name.removeprefix(FILE)}"
                if name.startswith(FILE)
                else name
            )
            return Denied(
                f"this node has no configuration `{name}`: "
                f"its operator opens it with `--config-source {opened}`"
            )
        names = [record.name for record in self._records.all()]
        return NotFound(
            f"there is no configuration {name!r}{did_you_mean(name, names)}; "
            f"make it with `latticectl config put {name} KEY=VALUE`"
        )

    def _changed(self, name: str) -> None:
        for listener in self._listeners:
            listener(name)
