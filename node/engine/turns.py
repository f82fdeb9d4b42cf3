"""How long a guest has had the event loop, and whether it goes on on a worker. Pure but for the clock."""

from __future__ import annotations

import time

LOOP_SECONDS = 0.0015
"""How long the event loop serves one guest's calls to the host before others get their turn."""
HOT_TURNS = 4
"""So many turns in a row, all spent running: the guest moves to a worker as if it had overrun."""
STREAMING_TURNS = 2
"""The same for a guest with channels: on a worker it gets at its bytes by itself, beside the loop."""
HOT_SHARE = 1 / 2
"""Of a turn that counts as spent running."""
STREAMING_SHARE = 1 / 5
"""The same for a guest with channels."""
SHORT_SECONDS = 0.0005
"""The turns of a guest that has had so many, so that others come sooner."""
AWAY_SECONDS = 0.0005
"""About what it costs to hand a poll to a worker and back: a guest that runs for less between its calls to
the host, as when it hands on bytes, stays on the loop, with a turn like all others."""


class Turns:
    """Those of one call. The mutable state is the present one, and how many in a row were hot."""

    __slots__ = ("_began", "_count", "_hot", "_polling", "_polls", "are_first")

    def __init__(self) -> None:
        self._count = self._hot = 0
        self.are_first = True
        """Whether it has not been on a worker yet."""
        self.begin()

    def begin(self) -> None:
        """Another turn begins."""
        self._began = time.perf_counter()
        self._polling = 0.0
        self._polls = 0

    def note(self, seconds: float) -> None:
        """The guest has been polled for so long."""
        self._polling += seconds
        self._polls += 1

    def is_over(self) -> bool:
        """Whether others are to have the loop."""
        return time.perf_counter() - self._began >= self._most

    def end(self, *, streams: bool) -> bool:
        """Count a turn of a guest that has channels, or has none: true if too many in a row were hot."""
        is_hot = self._polling > self._most * (STREAMING_SHARE if streams else HOT_SHARE)
        if not streams and self._polling <= self._polls * AWAY_SECONDS:
            is_hot = False
        self._hot = self._hot + 1 if is_hot else 0
        self._count += 1
        return self._hot >= (STREAMING_TURNS if streams else HOT_TURNS)

    @property
    def _most(self) -> float:
        return LOOP_SECONDS if self._count < HOT_TURNS else SHORT_SECONDS
