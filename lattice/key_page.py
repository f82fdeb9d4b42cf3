"""One page of a bucket's keys, without their values: read through a consumer made for it."""

from __future__ import annotations

import json
import secrets

import anyio

from lattice import jetstream
from lattice.bus import Message
from lattice.errors import TimedOut
from lattice.watch import ACK_TOKENS

DELETED = ("KV-Operation", "Nats-Marker-Reason")
"""Headers of entries that say that the key is deleted."""
IDLE_SECONDS = 2.0
"""After which the server forgets the consumer."""


class KeyPage:
    """Reads pages of the last messages of a stream's subjects; the mutable state is the page at hand."""

    def __init__(self, bus: jetstream.Transport, stream: str, filter_subject: str) -> None:
        self._bus = bus
        self._stream = stream
        self._filter = filter_subject

    async def read(self, after: int, limit: int) -> tuple[list[str], int | None]:
        """Subjects last written above the sequence `after`, and the sequence of the last if more follow."""
        self._subjects: list[str] = []
        self._last = after
        self._count = 0
        self._done = anyio.Event()
        consumer, pending = await self._consumer(after)
        self._expected = min(pending, limit)
        if not self._expected:
            return [], None
        inbox = self._bus.new_inbox()
        subscription = await self._bus.subscribe(inbox, self._take)
        try:
            wanted = json.dumps({"batch": self._expected, "no_wait": True}).encode()
            subject = f"{jetstream.API}.CONSUMER.MSG.NEXT.{self._stream}.{consumer}"
            await self._bus.publish(subject, wanted, reply=inbox)
            with anyio.fail_after(jetstream.TIMEOUT_SECONDS):
                await self._done.wait()
        except TimeoutError:
            raise TimedOut(f"the keys of {self._stream} did not come") from None
        finally:
            with anyio.CancelScope(shield=True):
                await subscription.unsubscribe()
        return self._subjects, self._last if pending > self._expected else None

    async def _consumer(self, after: int) -> tuple[str, int]:
        name = secrets.token_hex(8)
        config = {
            "name": name,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after + 1,
            "filter_subject": self._filter,
            "ack_policy": "none",
            "headers_only": True,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(IDLE_SECONDS * jetstream.NANOSECONDS),
        }
        made = await jetstream.call(
            self._bus,
            f"CONSUMER.CREATE.{self._stream}.{name}.{self._filter}",
            {"stream_name": self._stream, "config": config, "action": "create"},
        )
        return name, int(made.get("num_pending", 0))

    def _take(self, message: Message) -> None:
        if "Status" in message.headers:  # fewer than there were: some were overwritten meanwhile
            self._done.set()
            return
        tokens = (message.reply or "").split(".")
        offset = 0 if len(tokens) == ACK_TOKENS else 2
        self._last = int(tokens[5 + offset])
        if not any(name in message.headers for name in DELETED):
            self._subjects.append(message.subject)
        self._count += 1
        if self._count == self._expected:
            self._done.set()
