"""Messages of a JetStream stream for one trigger: handled at least once.

A message is settled after its handler returned well. While it runs the server is told so, and the message is
given to nobody else; when it fails, or its node is lost, it is given again, later and later. After
`max_deliver` attempts it goes to the dead-letter subject, if there is one, and is settled only once a stream
has stored it there.
"""

from __future__ import annotations

from contextlib import suppress

import anyio
import structlog
from anyio.abc import TaskGroup

from lattice.bus import Bus, Work
from lattice.errors import LatticeError
from lattice.headers import may_be_sent_on
from lattice.tasks import open_tasks
from node.triggers.message_calls import MessageCalls, backoff
from node.triggers.message_settings import MessageSettings, StreamSettings, queue_of

DEAD_LETTER_SECONDS = 5.0
RELEASE_SECONDS = 0.5
"""How long giving back a message may take when its handling is broken off."""
PROGRESS_PART = 3
"""The server hears so many times within the wait that a message is still being handled."""

log = structlog.get_logger()


class StreamMessages:
    """The mutable state is the messages that are being handled."""

    def __init__(
        self,
        bus: Bus,
        lattice: str,
        settings: MessageSettings,
        stream: StreamSettings,
        calls: MessageCalls,
        tasks: TaskGroup,
    ) -> None:
        self._bus = bus
        self._lattice = lattice
        self._settings = settings
        self._stream = stream
        self._calls = calls
        self._tasks = tasks
        self._running: set[Work] = set()
        self._places = anyio.Semaphore(settings.concurrency)

    async def run(self) -> None:
        """Take and handle until cancelled; what was taken until then is handled."""
        settings, stream = self._settings, self._stream
        if stream.dead_letter is not None:
            await self._bus.make_stream(f"{stream.stream}-dead-letters", stream.dead_letter)
        queue = await self._bus.work_queue(queue_of(settings, stream, self._lattice))
        try:
            while True:
                await self._places.acquire()
                work = await queue.take()
                self._running.add(work)
                self._tasks.start_soon(self._handle, work)
        finally:
            with anyio.CancelScope(shield=True):
                await queue.aclose()

    async def _handle(self, work: Work) -> None:
        try:
            async with open_tasks() as tasks:
                tasks.start_soon(self._keep, work)
                await self._settle(work)
                tasks.cancel_scope.cancel()
        except LatticeError as error:
            # It is given again after the wait; whoever handles it then may be the second.
            log.warning("message.not-settled", sequence=work.sequence, reason=error.message)
        except BaseException:
            with anyio.move_on_after(RELEASE_SECONDS, shield=True), suppress(LatticeError):
                await work.retry(0)
            raise
        finally:
            self._running.discard(work)
            self._places.release()

    async def _keep(self, work: Work) -> None:
        """Tell the server again and again that the message is being handled."""
        while True:
            await anyio.sleep(self._stream.ack_wait_seconds / PROGRESS_PART)
            with suppress(LatticeError):
                await work.in_progress()

    async def _settle(self, work: Work) -> None:
        most = self._stream.max_deliver
        if most and work.attempt > most:
            # The last attempt was begun and not settled: its node was lost, or is too slow.
            await self._give_up(work, "its last attempt was begun, and nothing was heard of it")
            return
        reason = await self._calls.handle(work.message)
        if reason is None:
            await work.done()
        elif most and work.attempt >= most:
            await self._give_up(work, reason)
        else:
            await work.retry(backoff(work.attempt, self._stream.backoff_seconds))

    async def _give_up(self, work: Work, reason: str) -> None:
        trigger, message = self._calls.trigger, work.message
        self._calls.counts.given_up += 1
        log.error(
            "message.given-up",
            component=trigger.component,
            name=trigger.name,
            subject=message.subject,
            sequence=work.sequence,
            attempts=work.attempt,
            dead_letter=self._stream.dead_letter,
            reason=reason[:500],
        )
        if self._stream.dead_letter is not None:
            kept = {name: text for name, text in message.headers.items() if may_be_sent_on(name)}
            headers = kept | self._why(work, reason)
            try:
                await self._bus.publish_stored(
                    self._stream.dead_letter,
                    message.data,
                    headers=headers,
                    timeout_seconds=DEAD_LETTER_SECONDS,
                )
            except LatticeError as error:
                log.error("message.not-dead-lettered", sequence=work.sequence, reason=error.message)
                await work.retry(backoff(work.attempt, self._stream.backoff_seconds))
                return
        await work.done()

    def _why(self, work: Work, reason: str) -> dict[str, str]:
        trigger = self._calls.trigger
        return {
            "lattice-dead-letter-reason": " ".join(reason.split())[:1000],
            "lattice-dead-letter-attempts": str(work.attempt),
            "lattice-dead-letter-component": trigger.component,
            "lattice-dead-letter-trigger": trigger.name,
            "lattice-dead-letter-stream": self._stream.stream,
            "lattice-dead-letter-sequence": str(work.sequence),
            "lattice-dead-letter-subject": work.message.subject,
        }
