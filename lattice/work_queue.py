"""A queue of work on JetStream: a durable consumer that is asked for messages in batches.

Whoever takes also tends: it asks again when a batch is used up, and makes stream and consumer anew when a
connection was lost or the server has gone silent. So a queue needs no task of its own.
"""

from __future__ import annotations

import json
from collections import deque
from contextlib import suppress

import anyio
import structlog

from lattice import consumers, jetstream
from lattice.bus import Message, QueueSettings, Subscription
from lattice.errors import Failed, Invalid, LatticeError
from lattice.patterns import matches
from lattice.tasks import own_task
from lattice.watch import ACK_TOKENS

EXPIRES_SECONDS = 30.0
"""The server answers a request for messages within that time, by less than was asked for if need be."""
HEARTBEAT_SECONDS = 1.0
SILENT_SECONDS = 3.0
RETRY_SECONDS = 0.25
MOST_ASKED = 256

OVERLAPPING = (10065,)
ENDED = ("404", "408")
"""The batch is over: nothing came in its time. It is asked for again."""
HEARTBEAT = "100"

log = structlog.get_logger()


class JetStreamWorkQueue:
    """A `WorkQueue` over a durable consumer of the same name."""

    # The mutable state is what came and was not taken, what was asked for, and the last sign of life.

    def __init__(
        self, bus: jetstream.Transport, settings: QueueSettings, *, replicas: int | None = None
    ) -> None:
        self._bus = bus
        self._settings = settings
        self._replicas = replicas
        self._inbox = bus.new_inbox()
        self._subscription: Subscription | None = None
        self._waiting: deque[JetStreamWork] = deque()
        self._asked: dict[str, int] = {}
        self._requests = 0
        self._heard = 0.0
        self._is_broken = False
        self._changed = anyio.Event()
        self._lock = anyio.Lock()

    def __repr__(self) -> str:
        return f"<JetStreamWorkQueue {self._settings.name} of {self._settings.stream}>"

    async def open(self) -> None:
        """Make what is missing, and listen."""
        settings = self._settings
        await self._make()
        if self._subscription is None:
            # A group of one: what is on its way when it is left still comes, and is given back at once.
            inbox = f"{self._inbox}.*"
            self._subscription = await self._bus.subscribe(inbox, self._on_message, queue=self._settings.name)
            self._bus.on_connection_change(self._on_connection_change)
        log.debug("queue.opened", stream=settings.stream, queue=settings.name)

    async def take(self) -> JetStreamWork:
        await own_task()
        async with self._lock:
            while not self._waiting:
                try:
                    await self._tend()
                except LatticeError as error:
                    log.info("queue.retry", stream=self._settings.stream, reason=error.message)
                    self._is_broken = True
                    await anyio.sleep(RETRY_SECONDS)
            work = self._waiting.popleft()
            if not self._waiting and not self._is_broken:
                with suppress(LatticeError):
                    await self._ask()
            return work

    async def aclose(self) -> None:
        self._bus.forget_connection_handler(self._on_connection_change)
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with anyio.CancelScope(shield=True), suppress(LatticeError):
                await subscription.unsubscribe()
        for work in self._waiting:  # others need not wait until their time is over
            with suppress(LatticeError):
                self._bus.publish_nowait(work.reply, b"-NAK")
        self._waiting.clear()

    async def _tend(self) -> None:
        """Ask if need be, and wait until something came or the server seems to have forgotten us."""
        if self._is_broken:
            await self._bus.wait_until_connected()
            await self._make()
            self._asked.clear()
            self._is_broken = False
        await self._ask()
        self._changed = anyio.Event()
        with anyio.move_on_after(SILENT_SECONDS):
            await self._changed.wait()
        if anyio.current_time() - self._heard >= SILENT_SECONDS:
            log.info("queue.silent", stream=self._settings.stream, queue=self._settings.name)
            self._is_broken = True

    async def _ask(self) -> None:
        wanted = min(self._settings.prefetch, MOST_ASKED) - len(self._waiting) - sum(self._asked.values())
        if wanted <= 0 or (self._asked and wanted <= self._settings.prefetch // 2):
            return
        self._requests += 1
        token = str(self._requests)
        self._asked[token] = wanted
        self._heard = anyio.current_time()
        asked = {
            "batch": wanted,
            "expires": int(EXPIRES_SECONDS * jetstream.NANOSECONDS),
            "idle_heartbeat": int(HEARTBEAT_SECONDS * jetstream.NANOSECONDS),
        }
        settings = self._settings
        operation = f"{jetstream.API}.CONSUMER.MSG.NEXT.{settings.stream}.{settings.name}"
        await self._bus.publish(operation, json.dumps(asked).encode(), reply=f"{self._inbox}.{token}")

    def _on_message(self, message: Message) -> None:
        self._heard = anyio.current_time()
        if not message.reply or not message.reply.startswith("$JS.ACK."):
            self._on_status(message.subject.rpartition(".")[2], message)
            return
        # It comes under its own subject, so which request it answers is not said: the oldest is served first.
        if (oldest := next(iter(self._asked), None)) is not None:
            self._asked[oldest] -= 1
            if not self._asked[oldest]:
                del self._asked[oldest]
        self._waiting.append(JetStreamWork(self._bus, message))
        self._changed.set()

    def _on_status(self, token: str, message: Message) -> None:
        status = message.headers.get("Status", "")
        if status == HEARTBEAT:
            return
        self._asked.pop(token, None)
        if status not in ENDED:
            # 409 and 503: the consumer, its leader, or the server is gone.
            log.info(
                "queue.ended", queue=self._settings.name, reason=message.headers.get("Description", status)
            )
            self._is_broken = True
        self._changed.set()

    def _on_connection_change(self, is_connected: bool) -> None:
        self._is_broken = True
        self._changed.set()

    async def _make(self) -> None:
        settings = self._settings
        try:
            stream = jetstream.work_stream(settings.stream, settings.subject)
            await jetstream.open_stream(self._bus, stream, replicas=self._replicas)
            await self._check_subject()
            await consumers.make(self._bus, settings)
        except Failed as error:
            raise self._translated(error) from error

    def _translated(self, error: Failed) -> LatticeError:
        settings = self._settings
        code = error.details.get("err_code")
        if code in OVERLAPPING:
            return Invalid(
                f"stream {settings.stream!r} does not exist, and another stream stores {settings.subject!r}: "
                "name that one"
            )
        return error

    async def _check_subject(self) -> None:
        """The server takes consumers that nothing can ever come to."""
        settings = self._settings
        info = await jetstream.call(self._bus, f"STREAM.INFO.{settings.stream}")
        subjects = info["config"].get("subjects") or []  # a mirror has none of its own
        wanted = settings.subject.split(".")
        if subjects and not any(matches(subject.split("."), wanted) for subject in subjects):
            raise Invalid(
                f"stream {settings.stream!r} does not store {settings.subject!r}: "
                "add the subject to the stream, or name one that it has"
            )


class JetStreamWork:
    """A `Work` of JetStream; settling it is a message to its reply subject."""

    __slots__ = ("_bus", "_message", "attempt", "reply", "sequence")

    def __init__(self, bus: jetstream.Transport, message: Message) -> None:
        self._bus = bus
        self.reply = message.reply or ""
        tokens = self.reply.split(".")
        # From the end: a domain and an account hash may stand in front (and one token behind).
        offset = 0 if len(tokens) == ACK_TOKENS else 2
        self.attempt = int(tokens[4 + offset])
        self.sequence = int(tokens[5 + offset])
        self._message = Message(message.subject, message.data, message.headers)

    def __repr__(self) -> str:
        return f"<JetStreamWork {self.sequence} attempt={self.attempt}>"

    @property
    def message(self) -> Message:
        return self._message

    async def done(self) -> None:
        await self._bus.request(self.reply, b"+ACK", timeout_seconds=jetstream.TIMEOUT_SECONDS)

    async def retry(self, delay_seconds: float) -> None:
        delay = json.dumps({"delay": int(delay_seconds * jetstream.NANOSECONDS)})
        await self._bus.publish(self.reply, f"-NAK {delay}".encode())

    async def in_progress(self) -> None:
        await self._bus.publish(self.reply, b"+WPI")
