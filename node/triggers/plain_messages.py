"""Messages of plain NATS for one trigger: handled at most once, a bounded number at a time."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from lattice.bus import Bus, Message
from lattice.tasks import start_at_once
from node.triggers.message_calls import MessageCalls
from node.triggers.message_settings import MessageSettings

MAX_WAITING = 4096
"""Messages that wait for a place; more are dropped, and told of."""


MAX_IN_TURN = 16
"""Messages that are begun in one turn of the event loop: a handler that never waits ends within it."""


class PlainMessages:
    """The mutable state is the messages that wait, those being handled, those begun in this turn."""

    def __init__(self, bus: Bus, settings: MessageSettings, calls: MessageCalls, tasks: TaskGroup) -> None:
        self._bus = bus
        self._settings = settings
        self._calls = calls
        self._tasks = tasks
        self._waiting: deque[Message] = deque()
        self._running = 0
        self._in_turn = 0

    async def run(self) -> None:
        """Subscribe and handle until cancelled; what came until then is handled, too."""
        subscription = await self._bus.subscribe(
            self._settings.subject, self._receive, queue=self._settings.queue
        )
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await subscription.unsubscribe()

    def _receive(self, message: Message) -> None:
        """Handle at once what has a place, but not so much in one turn that all else stands still."""
        if self._running < self._settings.concurrency and self._is_turn_short():
            self._running += 1
            start_at_once(self._tasks, self._handle(message))
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append(message)
            if self._running < self._settings.concurrency:
                self._running += 1
                self._tasks.start_soon(self._handle_waiting)
        else:
            self._calls.drop(message, len(self._waiting))

    def _is_turn_short(self) -> bool:
        if not self._in_turn:
            asyncio.get_running_loop().call_soon(self._end_turn)
        self._in_turn += 1
        return self._in_turn <= MAX_IN_TURN and not self._waiting

    def _end_turn(self) -> None:
        self._in_turn = 0

    async def _handle(self, message: Message) -> None:
        try:
            await self._calls.handle(message)
        finally:
            self._running -= 1
        if self._waiting and self._running < self._settings.concurrency:
            self._running += 1
            self._tasks.start_soon(self._handle_waiting)

    async def _handle_waiting(self) -> None:
        try:
            for count in itertools.count(1):
                if not self._waiting:
                    return
                await self._calls.handle(self._waiting.popleft())
                if count % MAX_IN_TURN == 0:
                    await anyio.lowlevel.checkpoint()
        finally:
            self._running -= 1
