"""Messages of plain NATS for one trigger: handled at most once, a bounded number at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from itertools import islice

import anyio
from anyio.abc import TaskGroup

from lattice.bus import Bus, Message
from lattice.clock import now
from lattice.outcome import Done, Outcome
from lattice.tasks import start_at_once
from node.triggers.message_calls import MessageCalls
from node.triggers.message_settings import MessageSettings

MAX_WAITING = 65_536
MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Messages that wait for a place; more are dropped, and told of."""
MIN_IN_BATCH = 8
MAX_IN_BATCH = 32
"""Of messages that wait, so many are handled one after the other beside the event loop."""
MAX_BATCHES = 6
"""That are made ready while one is handled: the event loop may be busy for longer than that takes."""
MAX_IN_TURN = 128
TURN_SECONDS = 0.001
"""Messages that are begun in one turn of the event loop, and for how long: most handlers end within it."""


class PlainMessages:
    """The mutable state is the messages that wait or are left of batches, and how many are being handled."""

    def __init__(self, bus: Bus, settings: MessageSettings, calls: MessageCalls, tasks: TaskGroup) -> None:
        self._bus = bus
        self._settings = settings
        self._concurrency = settings.concurrency
        self._calls = calls
        self._tasks = tasks
        self._waiting: deque[Message] = deque()
        self._waiting_bytes = 0
        self._running = 0
        self._batches = 0
        self._left: list[Message] = []
        self._is_turn_awaited = False

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
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES:
            self._calls.drop(message, len(self._waiting))
            return
        self._waiting.append(message)
        self._waiting_bytes += len(message.data)
        if not self._is_turn_awaited:
            self._await_turn()

    async def _finish(self, outcome: Awaitable[object]) -> None:
        try:
            await outcome
        finally:
            self._running -= 1
            if self._waiting:
                self._await_turn()

    def _may_be_batch(self) -> bool:
        return len(self._waiting) >= MIN_IN_BATCH and self._batches < MAX_BATCHES and not self._left

    def _begin_batch(self, deadline: float) -> bool:
        """Have the next messages handled one after the other, which takes a place, or two if they overlap."""
        messages = list(islice(self._waiting, MAX_IN_BATCH))
        places = min(2, self._concurrency - self._running)
        outcomes = self._calls.begin_batch(messages, deadline, may_overlap=places > 1)
        if outcomes is None:
            return False
        for message in messages:
            self._waiting.popleft()
            self._waiting_bytes -= len(message.data)
        self._running += places
        self._batches += 1
        start_at_once(self._tasks, self._finish_batch(messages, places, outcomes))
        return True

    async def _finish_batch(
        self, messages: list[Message], places: int, outcomes: Awaitable[list[Outcome[str | None]]]
    ) -> None:
        try:
            begun = await outcomes
            self._left += messages[len(begun) :]
        finally:
            self._batches -= 1
            self._running -= places
            if not self._batches:
                self._put_back()
            if self._waiting:
                self._await_turn()
        for outcome in begun:
            self._follow(outcome)

    def _follow(self, outcome: Outcome[str | None]) -> None:
        if not isinstance(outcome, Done):
            self._running += 1
            start_at_once(self._tasks, self._finish(outcome))

    def _put_back(self) -> None:
        """Have those that were not begun come first again."""
        left, self._left = self._left, []
        self._waiting.extendleft(reversed(left))
        self._waiting_bytes += sum(len(message.data) for message in left)

    def _await_turn(self) -> None:
        if not self._is_turn_awaited:
            self._is_turn_awaited = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        """Begin what there is a place for; messages, timers and other nodes get their turn in between."""
        self._is_turn_awaited = False
        waiting, calls, began = self._waiting, self._calls, now()
        deadline = calls.deadline()
        for _ in range(MAX_IN_TURN):
            if not waiting or self._running >= self._concurrency or now() - began > TURN_SECONDS:
                break
            if self._may_be_batch() and self._begin_batch(deadline):
                continue
            if self._batches:
                return  # they come first; their end brings the next turn
            message = waiting.popleft()
            self._waiting_bytes -= len(message.data)
            self._follow(calls.begin(message, deadline))
        if waiting and self._running < self._concurrency:
            self._await_turn()
