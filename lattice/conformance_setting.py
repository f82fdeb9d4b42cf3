"""What the checks of `lattice.conformance` are run with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio

from lattice.bus import Bus, Entry, Message
from lattice.errors import LatticeError

WAIT_SECONDS = 5.0


@dataclass(kw_only=True)
class Setting:
    """Two connected buses on one server, and a name for subjects and buckets."""

    one: Bus
    two: Bus
    name: str


@dataclass
class Inbox:
    """A handler that keeps what it was given, and can be waited for."""

    messages: list[Message] = field(default_factory=list)
    _came: anyio.Event = field(default_factory=anyio.Event)

    def __call__(self, message: Message) -> None:
        self.messages.append(message)
        self._came.set()

    async def wait_for(self, count: int) -> list[Message]:
        """What came, once it is so many."""
        with anyio.fail_after(WAIT_SECONDS):
            while len(self.messages) < count:
                self._came = anyio.Event()
                await self._came.wait()
        return self.messages


@dataclass
class Watched:
    """A watch's handler that keeps what it was given, and can be waited for."""

    entries: list[Entry | None] = field(default_factory=list)
    restarts: list[bool] = field(default_factory=list)
    _came: anyio.Event = field(default_factory=anyio.Event)

    def __call__(self, entry: Entry | None) -> None:
        self.entries.append(entry)
        self._came.set()

    async def wait_until(
        self, condition: Callable[[list[Entry | None]], bool], seconds: float = WAIT_SECONDS
    ) -> list[Entry | None]:
        """What came, once the condition holds."""
        with anyio.fail_after(seconds):
            while not condition(self.entries):
                self._came = anyio.Event()
                await self._came.wait()
        return self.entries


async def refused(expected: type[LatticeError], call: Awaitable[object]) -> None:
    """Check that the call raises exactly this error."""
    try:
        outcome = await call
    except LatticeError as error:
        outcome = error
    assert type(outcome) is expected, f"{outcome!r} instead of {expected.__name__}"
