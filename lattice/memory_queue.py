"""Queues of work within one process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

import anyio

from lattice.bus import Message, QueueSettings, Work
from lattice.errors import Invalid, Unreachable
from lattice.patterns import matches
from lattice.tasks import own_task

LOOK_SECONDS = 0.02
"""How often whoever waits looks whether the connection is back."""


class MemoryStream:
    """The messages of one subject, and the queues that give them out."""

    # The mutable state is the messages, and per queue what is to be given and what was given.

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.last = 0
        self._messages: list[Message] = []
        self._queues: dict[str, _Queue] = {}

    def add(self, message: Message) -> None:
        """Store it as the next one."""
        self.last += 1
        self._messages.append(message)
        for queue in self._queues.values():
            queue.offer(self.last, message)

    def queue(self, settings: QueueSettings) -> _Queue:
        """The queue of that name, made if it is missing; it counts as in use now."""
        self._end_the_idle()
        if settings.name not in self._queues:
            queue = self._queues[settings.name] = _Queue(settings)
            if settings.from_start:
                for sequence, message in enumerate(self._messages, 1):
                    queue.offer(sequence, message)
        self._queues[settings.name].used_at = asyncio.get_running_loop().time()
        return self._queues[settings.name]

    def queues(self) -> list[_Queue]:
        """All that there are."""
        self._end_the_idle()
        return list(self._queues.values())

    def retire(self, name: str, idle_seconds: float) -> None:
        """End the queue once it was not in use for so long; nothing if there is none."""
        if name in self._queues:
            self._queues[name].idle_seconds = idle_seconds

    def _end_the_idle(self) -> None:
        now = asyncio.get_running_loop().time()
        for name, queue in list(self._queues.items()):
            if queue.is_idle(now):
                self._queues.pop(name).end()


class _Queue:
    def __init__(self, settings: QueueSettings) -> None:
        self.settings = settings
        self.waiting: deque[tuple[int, Message]] = deque()
        self.attempts: dict[int, int] = {}
        self.given: dict[int, asyncio.TimerHandle] = {}
        self.changed = anyio.Event()
        self.used_at = 0.0
        self.takers = 0
        self.idle_seconds: float | None = None

    def is_idle(self, now: float) -> bool:
        """Whether it may end: who waits for its next message uses it, however late this process looks."""
        return self.idle_seconds is not None and not self.takers and now - self.used_at > self.idle_seconds

    def end(self) -> None:
        """Give nothing again."""
        for sequence in list(self.given):
            self.settle(sequence)

    def offer(self, sequence: int, message: Message) -> None:
        if matches(self.settings.subject.split("."), message.subject.split(".")):
            self.waiting.append((sequence, message))
            self.changed.set()

    async def wait_for_change(self) -> None:
        """Return when there may be something to give."""
        self.changed = anyio.Event()
        self.takers += 1
        try:
            with anyio.move_on_after(LOOK_SECONDS):
                await self.changed.wait()
        finally:
            self.takers -= 1
            self.used_at = asyncio.get_running_loop().time()

    def give(self) -> tuple[int, Message] | None:
        if not self.waiting or len(self.given) >= self.settings.max_pending:
            return None
        sequence, message = self.waiting.popleft()
        self.attempts[sequence] = self.attempts.get(sequence, 0) + 1
        self.hold(sequence, message, self.settings.ack_wait_seconds)
        return sequence, message

    def hold(self, sequence: int, message: Message, seconds: float) -> None:
        """Give it again after so long, unless it is settled by then."""
        self.settle(sequence)
        loop = asyncio.get_running_loop()
        self.given[sequence] = loop.call_later(seconds, self._give_again, sequence, message)

    def settle(self, sequence: int) -> None:
        timer = self.given.pop(sequence, None)
        if timer is not None:
            timer.cancel()

    def _give_again(self, sequence: int, message: Message) -> None:
        self.settle(sequence)
        self.waiting.appendleft((sequence, message))
        self.changed.set()


class Connection(Protocol):
    """What a queue needs of its bus."""

    @property
    def is_connected(self) -> bool: ...


class MemoryWorkQueue:
    """A `WorkQueue` over a stream that is looked up, and made if need be, at each operation."""

    def __init__(
        self, bus: Connection, settings: QueueSettings, open_stream: Callable[[], MemoryStream]
    ) -> None:
        self._bus = bus
        self._settings = settings
        self._open_stream = open_stream

    def __repr__(self) -> str:
        return f"<MemoryWorkQueue {self._settings.name} of {self._settings.stream}>"

    def open(self) -> None:
        """Make what is missing, and have it stay; raises `Invalid` if the stream has other subjects."""
        self._queue().idle_seconds = None

    def _queue(self) -> _Queue:
        stream = self._open_stream()
        if not matches(stream.subject.split("."), self._settings.subject.split(".")):
            raise Invalid(f"stream {self._settings.stream!r} does not store {self._settings.subject!r}")
        return stream.queue(self._settings)

    async def take(self) -> Work:
        await own_task()
        while True:
            try:
                queue = self._queue()
            except Unreachable:
                await anyio.sleep(LOOK_SECONDS)
                continue
            given = queue.give()
            if given is not None:
                return MemoryWork(self._bus, queue, *given)
            await queue.wait_for_change()

    async def aclose(self) -> None:
        pass


class MemoryWork:
    """A `Work` of a queue in this process."""

    def __init__(self, bus: Connection, queue: _Queue, sequence: int, message: Message) -> None:
        self._bus = bus
        self._queue = queue
        self._message = message
        self._sequence = sequence
        self._attempt = queue.attempts[sequence]

    @property
    def message(self) -> Message:
        return self._message

    @property
    def attempt(self) -> int:
        return self._attempt

    @property
    def sequence(self) -> int:
        return self._sequence

    async def done(self) -> None:
        self._require_connection()
        self._queue.settle(self._sequence)
        self._queue.changed.set()

    async def retry(self, delay_seconds: float) -> None:
        self._require_connection()
        self._queue.hold(self._sequence, self._message, delay_seconds)

    async def in_progress(self) -> None:
        self._require_connection()
        self._queue.hold(self._sequence, self._message, self._queue.settings.ack_wait_seconds)

    def _require_connection(self) -> None:
        if not self._bus.is_connected:
            raise Unreachable("not connected")
