"""Virtual time, a seeded source of chance, and a store that can be lost."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class Clock:
    """A queue of things to do at points of virtual time; all chance comes from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do it so much later."""
        self._count += 1
        heapq.heappush(self._queue, (self.now + seconds, self._count, action))

    def run(self, until: float) -> None:
        """Do everything that is due up to that time."""
        while self._queue and self._queue[0][0] <= until:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        self.now = until


class StoreConflict(Exception):
    """Raised when a compare-and-set lost."""


@dataclass
class Store:
    """A key-value bucket with compare-and-set; revisions begin anew when it is lost."""

    entries: dict[str, tuple[Any, int]] = field(default_factory=dict)
    revision: int = 0
    is_up: bool = True
    watchers: list[Callable[[str, Any, int], None]] = field(default_factory=list)
    losses: int = 0

    def write(self, key: str, value: Any, expected: int | None) -> int:
        """Create (None) or update; returns the revision or raises `StoreConflict`."""
        present = self.entries.get(key)
        if (present[1] if present else None) != expected:
            raise StoreConflict(key)
        self.revision += 1
        self.entries[key] = (value, self.revision)
        for watcher in list(self.watchers):
            watcher(key, value, self.revision)
        return self.revision

    def lose(self) -> None:
        """Forget everything."""
        self.entries.clear()
        self.revision = 0
        self.losses += 1
