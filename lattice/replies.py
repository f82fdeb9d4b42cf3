"""Requests that wait for their reply: one table, one timer each, no task."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from lattice.bus import Message
from lattice.errors import Interrupted, LatticeError, TimedOut, Unreachable

NO_RESPONDERS = "503"


@dataclass(eq=False, slots=True, kw_only=True)
class Waiting:
    """One request under way; its token is the last part of its reply subject and cannot be guessed."""

    token: str
    subject: str
    future: asyncio.Future[Message]
    timer: asyncio.TimerHandle | None = None


class Replies:
    """The requests of one bus."""

    # The mutable state is the table of those that wait, and how many there ever were.

    def __init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, subject: str, timeout_seconds: float) -> Waiting:
        """Begin to wait; whoever calls this calls `forget` in the end."""
        self._count += 1
        loop = asyncio.get_running_loop()
        token = f"{self._count:x}{secrets.token_hex(4)}"
        waiting = Waiting(token=token, subject=subject, future=loop.create_future())
        waiting.timer = loop.call_later(timeout_seconds, _expire, waiting, timeout_seconds)
        self._waiting[token] = waiting
        return waiting

    def forget(self, waiting: Waiting) -> None:
        """Wait no longer, whatever the outcome."""
        del self._waiting[waiting.token]
        if waiting.timer is not None:
            waiting.timer.cancel()
        # An error that came while the request was being cancelled has no reader; that is as it should be.
        if waiting.future.done() and not waiting.future.cancelled():
            waiting.future.exception()

    def settle(self, token: str, message: Message) -> None:
        """Hand over a reply, or the server's word that nobody took the request; late ones are dropped."""
        waiting = self._waiting.get(token)
        if waiting is None or waiting.future.done():
            return
        if not message.data and message.headers and message.headers.get("Status") == NO_RESPONDERS:
            waiting.future.set_exception(Unreachable(f"nobody answers to {waiting.subject}"))
        else:
            waiting.future.set_result(message)

    def fail(self, error: Callable[[str], LatticeError], *, subject: str | None = None) -> None:
        """End those of one subject (in lower case), or all, with the error made of each one's subject."""
        for waiting in self._waiting.values():
            if subject in (None, waiting.subject.lower()) and not waiting.future.done():
                waiting.future.set_exception(error(waiting.subject))

    def interrupt(self, prefix: str, reason: str) -> None:
        """End those whose subject begins with `prefix`."""
        for waiting in self._waiting.values():
            if waiting.subject.startswith(prefix) and not waiting.future.done():
                waiting.future.set_exception(Interrupted(reason))


def _expire(waiting: Waiting, seconds: float) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(TimedOut(f"no answer from {waiting.subject} within {seconds:g} s"))
