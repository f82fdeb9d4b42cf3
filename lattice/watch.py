"""Reading a stream from its last values on, for ever, across reconnects, gaps and the loss of the stream.

The server pushes through a consumer that acknowledges nothing and numbers what it sends. A number left out,
a heartbeat that says otherwise or does not come, or a new connection, each make a new consumer that starts
over; whoever watches sees every value again, so that nothing can be missed.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import anyio.abc
import structlog

from lattice import jetstream
from lattice.bus import Message, Subscription
from lattice.errors import LatticeError

HEARTBEAT_SECONDS = 1.0
MISSED_AFTER_SECONDS = 3.0
RETRY_SECONDS = 0.25
ACK_TOKENS = 9
CONTROL = "100"

log = structlog.get_logger()


class Watch:
    """One watch of a stream; `run` is its task, `unsubscribe` ends it."""

    # The mutable state of a watch is its present consumer: its name, what came of it, when it was last heard.

    def __init__(
        self,
        bus: jetstream.Transport,
        *,
        stream: str,
        subject: str,
        open_stream: Callable[[], Awaitable[str]],
        receive: Callable[[Message, int], None],
        on_end: Callable[[], None],
        on_restart: Callable[[bool], None],
    ) -> None:
        self._bus = bus
        self._stream = stream
        self._subject = subject
        self._open_stream = open_stream
        self._receive = receive
        self._on_end = on_end
        self._on_restart = on_restart
        self._scope = anyio.CancelScope()
        self._is_active = True
        self._consumer = ""
        self._count = 0
        self._has_ended = False
        self._heard = -math.inf
        self._broken = anyio.Event()

    def __repr__(self) -> str:
        return f"<Watch {self._subject} consumer={self._consumer or None} received={self._count}>"

    async def unsubscribe(self) -> None:
        self._is_active = False
        self._scope.cancel()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Watch until unsubscribed. Errors of the first start go to the starter, later ones are retried."""
        created = await self._open_stream()
        self._bus.on_connection_change(self._on_connection_change)
        try:
            with self._scope:
                subscription = await self._start()
                task_status.started()
                while True:
                    await self._wait_until_broken()
                    await self._end(subscription)
                    created, subscription = await self._restart(created)
        finally:
            self._bus.forget_connection_handler(self._on_connection_change)
            self._is_active = False
            with anyio.move_on_after(1, shield=True):
                await self._end(subscription)

    async def _start(self) -> Subscription:
        """Make a consumer that sends the last value of each subject, then all that come."""
        self._consumer = secrets.token_hex(8)
        self._count = 0
        self._has_ended = False
        self._broken = anyio.Event()
        inbox = self._bus.new_inbox()
        subscription = await self._bus.subscribe(inbox, self._on_message)
        config = {
            "name": self._consumer,
            "deliver_subject": inbox,
            "deliver_policy": "last_per_subject",
            "filter_subject": self._subject,
            "ack_policy": "none",
            "max_deliver": 1,
            "mem_storage": True,
            "num_replicas": 1,
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT_SECONDS * jetstream.NANOSECONDS),
        }
        operation = f"CONSUMER.CREATE.{self._stream}.{self._consumer}.{self._subject}"
        try:
            made = await jetstream.call(
                self._bus, operation, {"stream_name": self._stream, "config": config, "action": "create"}
            )
        except BaseException:
            await self._end(subscription)
            raise
        self._heard = anyio.current_time()
        if made.get("num_pending", 0) == 0 and self._count == 0:
            self._end_replay()
        return subscription

    async def _restart(self, created: str) -> tuple[str, Subscription]:
        while True:
            try:
                await self._bus.wait_until_connected()
                found = await self._open_stream()
                if found != created:
                    log.warning("bucket.lost", stream=self._stream)
                self._on_restart(found != created)
                return found, await self._start()
            except LatticeError as error:
                log.debug("watch.retry", stream=self._stream, reason=error.message)
                await anyio.sleep(RETRY_SECONDS)

    async def _end(self, subscription: Subscription) -> None:
        self._consumer = ""
        with suppress(LatticeError):
            await subscription.unsubscribe()

    async def _wait_until_broken(self) -> None:
        while not self._broken.is_set():
            left = self._heard + MISSED_AFTER_SECONDS - anyio.current_time()
            if left <= 0:
                log.info("watch.silent", stream=self._stream)
                return
            with anyio.move_on_after(left):
                await self._broken.wait()

    def _on_connection_change(self, is_connected: bool) -> None:
        self._broken.set()

    def _on_message(self, message: Message) -> None:
        if not self._is_active or self._broken.is_set():
            return
        self._heard = anyio.current_time()
        if message.headers.get("Status") == CONTROL and not message.data:
            self._on_control(message)
            return
        tokens = (message.reply or "").split(".")
        if len(tokens) < ACK_TOKENS:
            return
        # From the end: a domain and an account hash may stand in front (and one token behind).
        offset = 0 if len(tokens) == ACK_TOKENS else 2
        stream_sequence, consumer_sequence = int(tokens[5 + offset]), int(tokens[6 + offset])
        if consumer_sequence != self._count + 1:
            self._broken.set()
            return
        self._count = consumer_sequence
        self._receive(message, stream_sequence)
        if tokens[8 + offset] == "0":
            self._end_replay()

    def _on_control(self, message: Message) -> None:
        """Answer what paces the server, and compare its count with ours."""
        with suppress(LatticeError):
            if message.reply:
                self._bus.publish_nowait(message.reply)
            elif stalled := message.headers.get("Nats-Consumer-Stalled"):
                self._bus.publish_nowait(stalled)
        last = message.headers.get("Nats-Last-Consumer")
        if last is not None and int(last) != self._count:
            self._broken.set()

    def _end_replay(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._on_end()
