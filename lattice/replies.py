"""Requests that wait for their reply: one table, no task, a timer only for those whose time is nearly up."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from lattice.bus import Message
from lattice.clock import now
from lattice.errors import Interrupted, LatticeError, TimedOut, Unreachable
from lattice.tasks import Expected

NO_RESPONDERS = "503"

SPAN_SECONDS = 0.25
"""Those whose time ends within the same span share a timer until the span begins."""
LONG_SECONDS = 60.0
"""A span that begins later is given up when nobody shares it any more: a day has a third of a million."""
TOKEN_DIGITS = 8
RANDOM_BYTES = 2048
"""Fetched from the system at a time, for the tokens of many requests."""


class Waiting(Expected[Message]):
    """One request under way, settled by its reply or by what ended it; who awaits it may cancel it.

    Its token is the last part of its reply subject and cannot be guessed.
    """

    __slots__ = ("deadline", "replies", "span", "subject", "timeout_seconds", "timer", "token")

    token: str
    subject: str
    deadline: float
    timeout_seconds: float
    timer: asyncio.TimerHandle | None
    span: _Span
    replies: Replies

    def cancel(self, msg: Any | None = None) -> bool:
        self.replies.forget(self)
        return super().cancel(msg)


class _Span(set[Waiting]):
    """Those whose time ends within one span of time."""

    def __init__(self, number: int, timer: asyncio.TimerHandle) -> None:
        super().__init__()
        self.number = number
        self.timer = timer


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
            span = self._open(number)
        span.add(waiting)
        waiting.span = span

    def _open(self, number: int) -> _Span:
        left = number * SPAN_SECONDS - now()
        timer = asyncio.get_running_loop().call_later(max(0.0, left), self._begin, number)
        span = self._spans[number] = _Span(number, timer)
        return span

    def remove(self, waiting: Waiting) -> None:
        span = waiting.span
        span.discard(waiting)
        if waiting.timer is not None:
            waiting.timer.cancel()
        elif not span and waiting.timeout_seconds > LONG_SECONDS:
            span.timer.cancel()
            self._spans.pop(span.number, None)

    def _begin(self, number: int) -> None:
        """The span is here: whoever still waits gets a timer."""
        loop = asyncio.get_running_loop()
        for waiting in self._spans.pop(number):
            waiting.timer = loop.call_later(max(0.0, waiting.deadline - now()), _expire, waiting)


class Replies:
    """The requests of one bus."""

    # The mutable state is the table of those that wait, how many there ever were, and unused random digits.

    def __init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}
        self._deadlines = _Deadlines()
        self._count = 0
        self._digits: list[str] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, subject: str, timeout_seconds: float) -> Waiting:
        """Begin to wait; what is returned is awaited, cancelled or forgotten."""
        waiting = Waiting()
        waiting.replies = self
        waiting.subject = subject
        waiting.timeout_seconds = timeout_seconds
        waiting.deadline = now() + timeout_seconds
        waiting.timer = None
        waiting.token = token = self._token()
        self._deadlines.add(waiting)
        self._waiting[token] = waiting
        return waiting

    def _token(self) -> str:
        self._count += 1
        if not self._digits:
            digits = os.urandom(RANDOM_BYTES).hex()
            self._digits = [digits[at : at + TOKEN_DIGITS] for at in range(0, len(digits), TOKEN_DIGITS)]
        return f"{self._count:x}{self._digits.pop()}"

    def forget(self, waiting: Waiting) -> None:
        """Wait no longer; does nothing if it is over."""
        if self._waiting.pop(waiting.token, None) is not None:
            self._deadlines.remove(waiting)

    def settle(self, token: str, message: Message) -> None:
        """Hand over a reply, or the server's word that nobody took the request; late ones are dropped."""
        waiting = self._waiting.pop(token, None)
        if waiting is None:
            return
        self._deadlines.remove(waiting)
        if not message.data and message.headers and message.headers.get("Status") == NO_RESPONDERS:
            _fail(waiting, Unreachable(f"nobody answers to {waiting.subject}"))
        else:
            waiting.set_result(message)

    def fail(self, error: Callable[[str], LatticeError], *, subject: str | None = None) -> None:
        """End those of one subject (in lower case), or all, with the error made of each one's subject."""
        for waiting in list(self._waiting.values()):
            if subject in (None, waiting.subject.lower()):
                self.forget(waiting)
                _fail(waiting, error(waiting.subject))

    def interrupt(self, prefix: str, reason: str) -> None:
        """End those whose subject begins with `prefix`."""
        for waiting in list(self._waiting.values()):
            if waiting.subject.startswith(prefix):
                self.forget(waiting)
                _fail(waiting, Interrupted(reason))


def _expire(waiting: Waiting) -> None:
    waiting.replies.forget(waiting)
    _fail(
        waiting,
        TimedOut(f"no answer from {waiting.subject} within {waiting.timeout_seconds:g} s"),
    )


def _fail(waiting: Waiting, error: LatticeError) -> None:
    waiting.set_exception(error)
    waiting.exception()  # who waited may be being cancelled: then nobody reads it, as it should be
