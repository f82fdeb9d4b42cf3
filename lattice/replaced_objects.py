"""The bytes of objects that were replaced: kept for a while, for whoever is still reading them.

What this process does not come to purge, because it ends, is found later by whoever looks for bytes that no
object names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup

KEEP_SECONDS = 300.0
"""How long a reader has for what it began to read before it was replaced."""
KEEP_BYTES = 256 * 1024 * 1024
"""Of all but the last replaced version of each object: one that is replaced all the time needs no more."""
KEEP_VERSIONS = 10_000

Purge = Callable[[str, str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """A version of an object that no longer has a name."""

    bucket: str
    name: str
    version: str
    size: int


class Retention:
    """Which replaced versions are kept; pure. The mutable state is these, oldest first, and their bytes."""

    def __init__(self, seconds: float = KEEP_SECONDS, most_bytes: int = KEEP_BYTES) -> None:
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._kept: dict[Replaced, float] = {}
        self._last: dict[tuple[str, str], Replaced] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def due_at(self) -> float | None:
        """When the next one has been kept long enough; None without any."""
        return next(iter(self._kept.values()), None)

    def add(self, replaced: Replaced, now: float) -> list[Replaced]:
        """Keep it; returns those that must go for it."""
        self._kept[replaced] = now + self._seconds
        self._last[replaced.bucket, replaced.name] = replaced
        self._bytes += replaced.size
        surplus: list[Replaced] = []
        if self._bytes > self._most_bytes:
            for item in list(self._kept):
                if self._bytes <= self._most_bytes:
                    break
                if self._last[item.bucket, item.name] is not item:
                    surplus.append(self._drop(item))
        if len(self._kept) > KEEP_VERSIONS:
            surplus.append(self._drop(next(iter(self._kept))))
        return surplus

    def due(self, now: float) -> list[Replaced]:
        """Forget those that were kept long enough, and return them."""
        return [self._drop(item) for item, until in list(self._kept.items()) if until <= now]

    def _drop(self, item: Replaced) -> Replaced:
        del self._kept[item]
        self._bytes -= item.size
        if self._last.get((item.bucket, item.name)) is item:
            del self._last[item.bucket, item.name]
        return item


class ReplacedObjects:
    """Purges replaced versions when their time is over, in a task of its own that the first one starts."""

    # The mutable state is the retention's, what must go at once, and whether the task runs.

    def __init__(self, tasks: TaskGroup, purge: Purge, retention: Retention | None = None) -> None:
        """`purge` takes a bucket and a version, and raises nothing."""
        self._tasks = tasks
        self._purge = purge
        self._retention = Retention() if retention is None else retention
        self._surplus: list[Replaced] = []
        self._is_running = False
        self._changed = anyio.Event()

    def __repr__(self) -> str:
        return f"<ReplacedObjects {len(self._retention)} kept>"

    def add(self, replaced: Replaced) -> None:
        """Purge it later; never waits."""
        self._surplus += self._retention.add(replaced, anyio.current_time())
        self._changed.set()
        if not self._is_running:
            self._is_running = True
            self._tasks.start_soon(self._run)

    async def _run(self) -> None:
        while (due_at := self._retention.due_at) is not None or self._surplus:
            for item in self._take(anyio.current_time()):
                await self._purge(item.bucket, item.version)
            self._changed = anyio.Event()
            if not self._surplus and (due_at := self._retention.due_at) is not None:
                with anyio.move_on_after(due_at - anyio.current_time()):
                    await self._changed.wait()
        self._is_running = False

    def _take(self, now: float) -> list[Replaced]:
        surplus, self._surplus = self._surplus, []
        return surplus + self._retention.due(now)
