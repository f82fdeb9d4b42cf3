"""Requests that wait for their reply: one table, no task, a timer only for those whose time is nearly up."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

from lattice.bus import Message
from lattice.clock import now
from lattice.errors import Interrupted, LatticeError, TimedOut, Unreachable
from lattice.plain import maker
from lattice.tasks import Expected

NO_RESPONDERS = "503"

SPAN_SECONDS = 0.25
"""Those whose time ends within the same span share a timer until the span begins."""
LONG_SECONDS = 60.0
"""A span that begins later is given up when nobody shares it any more: a day has a third of a million."""
TOKEN_DIGITS = 8
RANDOM_BYTES = 2048
"""Fetched from the system at a time, for the tokens of many requests."""


@dataclass(eq=False, slots=True, kw_only=True)
class Waiting:
    """One request under way; its token is the last part of its reply subject and cannot be guessed."""

    token: str
    subject: str
    future: Expected[Message]
    deadline: float
    timeout_seconds: float
    timer: asyncio.TimerHandle | None = None


_make_waiting = maker(Waiting)


class _Span:
    """Those whose time ends within one span; the mutable state."""

    __slots__ = ("timer", "waiting")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.timer = timer
        self.waiting: set[Waiting] = set()


class _Deadlines:
    """The mutable state is who waits until when, in spans of time, each with its timer."""

    def __init__(self) -> None:
        self._spans: dict[int, _Span] = {}

    def __len__(self) -> int:
        """How many spans have a timer."""
        return len(self._spans)

    def add(self, waiting: Waiting) -> None:
        number = int(waiting.deadline / SPAN_SECONDS)
        span = self._spans.get(number)
        if span is None:
            left = number * SPAN_SECONDS - now()
            timer = asyncio.get_running_loop().call_later(max(0.0, left), self._begin, number)
            span = self._spans[number] = _Span(timer)
        span.waiting.add(waiting)

    def remove(self, waiting: Waiting) -> None:
        number = int(waiting.deadline / SPAN_SECONDS)
        span = self._spans.get(number)
        if span is not None:
            span.waiting.discard(waiting)
            if not span.waiting and waiting.timeout_seconds > LONG_SECONDS:
                span.timer.cancel()
                del self._spans[number]
        if waiting.timer is not None:
            waiting.timer.cancel()

    def _begin(self, number: int) -> None:
        """The span is here: whoever still waits gets a timer."""
        loop = asyncio.get_running_loop()
        for waiting in self._spans.pop(number).waiting:
            waiting.timer = loop.call_later(max(0.0, waiting.deadline - now()), _expire, waiting)


class Replies:
    """The requests of one bus."""

    # The mutable state is the table of those that wait, how many there ever were, and unused random digits.

    def __init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}
        self._deadlines = _Deadlines()
        self._count = 0
        self._digits = ""

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, subject: str, timeout_seconds: float) -> Waiting:
        """Begin to wait; whoever calls this calls `forget` in the end."""
        waiting = _make_waiting(
            token=self._token(),
            subject=subject,
            future=Expected(),
            deadline=now() + timeout_seconds,
            timeout_seconds=timeout_seconds,
        )
        self._deadlines.add(waiting)
        self._waiting[waiting.token] = waiting
        return waiting

    def _token(self) -> str:
        self._count += 1
        at = self._count * TOKEN_DIGITS % (2 * RANDOM_BYTES)
        if not at or not self._digits:
            self._digits = os.urandom(RANDOM_BYTES).hex()
        return f"{self._count:x}{self._digits[at : at + TOKEN_DIGITS]}"

    def forget(self, waiting: Waiting) -> None:
        """Wait no longer, whatever the outcome."""
        del self._waiting[waiting.token]
        self._deadlines.remove(waiting)
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


def _expire(waiting: Waiting) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(
            TimedOut(f"no answer from {waiting.subject} within {waiting.timeout_seconds:g} s")
        )
