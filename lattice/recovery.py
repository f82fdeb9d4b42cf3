"""Bringing the store and desired state together: after an election, and after the store was lost. Pure.

Theory of operation. The store is read. What it holds is merged into desired state; what desired state holds
and the store does not, or only in a lower version, is written back by compare-and-set. If a write loses
against another, the store is read again. When nothing is left to write, desired state is complete.

A store without its marker is lost, not empty. Then the versions that nodes keep are collected for three
heartbeats before anything is written, and the marker is written last: a leader that dies halfway leaves a
store that is still lost, and the next one begins again. A lattice that starts for the first time takes the
same way.

    READING --marker--> WRITING --nothing left--> DONE
       +--no marker--> COLLECTING --3 heartbeats--> READING (again, then) WRITING --> MARKING --> DONE
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from lattice.model import Application, Marker
from lattice.state import SILENCE_SECONDS, Effect, LatticeState

COLLECT_SECONDS = SILENCE_SECONDS
RETRY_SECONDS = 0.5
ANSWER_SECONDS = 3.0
"""After which a request to the store that was not answered is made again."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An application as the store holds it."""

    application: Application
    revision: int


@dataclass(frozen=True, slots=True)
class ReadStore:
    """Read the marker and all applications; answer with `StoreRead`, or `StoreFailed`."""


@dataclass(frozen=True, slots=True)
class FetchCopies:
    """Ask the node for all applications that it keeps, tombstones included; answer with `CopiesReceived`."""

    node: str


@dataclass(frozen=True, slots=True)
class WriteApplication:
    """Create the key if `revision` is None, else update that revision; answer with `ApplicationWritten`."""

    application: Application
    revision: int | None


@dataclass(frozen=True, slots=True)
class WriteMarker:
    """Create the marker; answer with `MarkerWritten`."""

    marker: Marker


Action: TypeAlias = ReadStore | FetchCopies | WriteApplication | WriteMarker | Effect


class Phase(enum.StrEnum):
    """How far a recovery is."""

    IDLE = "idle"
    READING = "reading"
    COLLECTING = "collecting"
    WRITING = "writing"
    MARKING = "marking"
    DONE = "done"


class Recovery:
    """One leader's way from an election, or from a loss of the store, to complete desired state.

    The mutable state is the phase, when to ask again, and what is not answered yet.
    """

    def __init__(self, state: LatticeState) -> None:
        self._state = state
        self._retry_at = 0.0
        self._collected_since: float | None = None
        self._is_collected = False
        self._asked_at: dict[str, float] = {}
        self._answered: set[str] = set()
        self._unanswered: set[str] = set()
        self._is_marked = False
        self.phase = Phase.IDLE

    def __repr__(self) -> str:
        return f"<Recovery {self.phase}, {len(self._unanswered)} writes unanswered>"

    def begin(self, now: float) -> list[Action]:
        """Start from the beginning: after an election, or when a watch shows that the store was lost."""
        self._collected_since, self._is_collected = None, False
        self._asked_at, self._answered = {}, set()
        self._state.desired.is_complete = False
        return self._read(now)

    def refresh(self, now: float) -> list[Action]:
        """Compare with the store again, without doubting what is known; nothing while already at it."""
        return self._read(now) if self.phase is Phase.DONE else []

    def stop(self) -> None:
        """Another leads now."""
        self.phase = Phase.IDLE
        self._state.desired.is_complete = False

    def store_read(
        self, stored: Mapping[str, Stored], marker: Marker | None, fence: int, now: float, now_ms: int
    ) -> list[Action]:
        """The store's answer; `fence` becomes the incarnation of a store that has none."""
        if self.phase is not Phase.READING:
            return []
        effects: list[Action] = list(self._merge((item.application for item in stored.values()), now))
        self._is_marked = marker is not None
        if marker is None and not self._is_collected:
            return effects + self._collect(now)
        return effects + self._write(stored, fence, now, now_ms)

    def store_failed(self, now: float) -> list[Action]:
        """The store could not be read: it is tried again by `tick`."""
        if self.phase is Phase.READING:
            self._retry_at = now + RETRY_SECONDS
        return []

    def copies(self, node: str, applications: Iterable[Application], now: float) -> list[Action]:
        """What a node keeps. In a store that is not lost, what is newer there is written at once."""
        self._answered.add(node)
        effects = self._merge(applications, now)
        return [*effects, *(self.refresh(now) if effects else [])]

    def written(self, name: str, *, is_written: bool, now: float) -> list[Action]:
        """The store's answer to a write; either way the store is read again when all are answered."""
        if self.phase is not Phase.WRITING or name not in self._unanswered:
            return []
        self._unanswered.discard(name)
        self._retry_at = self._retry_at if is_written else now + RETRY_SECONDS
        return [] if self._unanswered or not is_written else self._read(now)

    def marked(self, *, is_written: bool, now: float) -> list[Action]:
        """The store's answer to the marker."""
        if self.phase is not Phase.MARKING:
            return []
        if is_written:
            return self._finish()
        self._retry_at = now + RETRY_SECONDS
        return []

    def tick(self, now: float) -> list[Action]:
        """Ask nodes that have joined, end the collecting, repeat what was not answered."""
        if self.phase is Phase.COLLECTING:
            return self._tick_collecting(now)
        is_waiting = self.phase in (Phase.READING, Phase.WRITING, Phase.MARKING)
        return self._read(now) if is_waiting and now >= self._retry_at else []

    def _read(self, now: float) -> list[Action]:
        self.phase, self._retry_at = Phase.READING, now + ANSWER_SECONDS
        self._unanswered = set()
        return [ReadStore()]

    def _collect(self, now: float) -> list[Action]:
        self.phase = Phase.COLLECTING
        self._state.desired.is_complete = False
        if self._collected_since is None:
            self._collected_since = now
        return self._tick_collecting(now)

    def _tick_collecting(self, now: float) -> list[Action]:
        if self._collected_since is not None and now - self._collected_since >= COLLECT_SECONDS:
            self._is_collected = True
            return self._read(now)
        unanswered = sorted({view.id for view in self._state.observed.live()} - self._answered)
        due = [node for node in unanswered if now >= self._asked_at.get(node, now)]
        self._asked_at.update(dict.fromkeys(due, now + RETRY_SECONDS))
        return [FetchCopies(node) for node in due]

    def _write(self, stored: Mapping[str, Stored], fence: int, now: float, now_ms: int) -> list[Action]:
        writes = self._differences(stored, now_ms)
        if writes:
            self.phase, self._retry_at = Phase.WRITING, now + ANSWER_SECONDS
            self._unanswered = {write.application.name for write in writes}
            return list(writes)
        if self._is_marked:
            return self._finish()
        self.phase, self._retry_at = Phase.MARKING, now + ANSWER_SECONDS
        return [WriteMarker(Marker(incarnation=max(fence, 1)))]

    def _differences(self, stored: Mapping[str, Stored], now_ms: int) -> list[WriteApplication]:
        found = []
        for name, application in sorted(self._state.desired.applications.items()):
            item = stored.get(name)
            if application.is_forgettable(now_ms) and item is None:
                continue
            if item is None or application.supersedes(item.application):
                found.append(WriteApplication(application, item.revision if item else None))
        return found

    def _finish(self) -> list[Action]:
        self.phase = Phase.DONE
        self._collected_since, self._is_collected = None, False
        self._state.desired.is_complete = True
        return []

    def _merge(self, applications: Iterable[Application], now: float) -> list[Effect]:
        return [effect for application in applications for effect in self._state.apply(application, now)]
