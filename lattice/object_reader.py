"""Reading from an object store on JetStream: batch by batch, so that no more is sent than is taken."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread

from lattice import jetstream
from lattice.bus import Message, Subscription
from lattice.errors import Failed, Interrupted, LatticeError, NotFound, TimedOut, Unreachable
from lattice.sources import Source
from lattice.tasks import own_task

IDLE_SECONDS = 5.0
ATTEMPTS = 5
"""A server that restarts, or a replica that is behind, is asked again for what is missing so many times."""
RETRY_SECONDS = 0.2
END_OF_BATCH = "204"
NOTHING_FOUND = "404"
INLINE_DIGEST_BYTES = 64 * 1024


class BatchReader:
    """All messages of a subject, from a sequence on; leave it as a context, or close it."""

    # The mutable state is where to go on, and whether there is more.

    def __init__(
        self, bus: jetstream.Transport, stream: str, subject: str, batch: int, sequence: int = 1
    ) -> None:
        self._bus = bus
        self._operation = f"{jetstream.API}.DIRECT.GET.{stream}"
        self._subject = subject
        self._batch = batch
        self.sequence = sequence
        self.is_last = False
        self._inbox = bus.new_inbox()
        self._collected = _Collected()
        self._subscription: Subscription | None = None

    async def next(self) -> list[Message]:
        """The next messages; none when there are none left. Raises `NotFound` if there is no stream."""
        for attempt in range(ATTEMPTS):
            try:
                return await self._ask()
            except (TimedOut, Unreachable, Interrupted):
                if attempt + 1 == ATTEMPTS:
                    raise
            await anyio.sleep(RETRY_SECONDS * attempt)
            await self._bus.wait_until_connected()
        raise AssertionError("the last attempt raises or returns")

    async def _ask(self) -> list[Message]:
        if self._subscription is None:
            self._subscription = await self._bus.subscribe(self._inbox, self._on_message)
        self._collected = _Collected()
        asked = {"next_by_subj": self._subject, "seq": self.sequence, "batch": self._batch}
        await self._bus.publish(self._operation, json.dumps(asked).encode(), reply=self._inbox)
        messages = await self._collected.wait()
        self.is_last = self._collected.is_last
        if messages:
            self.sequence = int(messages[-1].headers["Nats-Sequence"]) + 1
        return messages

    def _on_message(self, message: Message) -> None:
        self._collected.receive(message)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with anyio.CancelScope(shield=True), suppress(LatticeError):
                await subscription.unsubscribe()


class _Collected:
    """The answers to one request for a batch, up to the status that ends it."""

    def __init__(self) -> None:
        self.is_last = False
        self._messages: list[Message] = []
        self._status: str | None = None
        self._changed = anyio.Event()

    def receive(self, message: Message) -> None:
        self._status = message.headers.get("Status") if not message.data else None
        if self._status is None:
            self._messages.append(message)
        elif self._status == END_OF_BATCH:
            self.is_last = message.headers.get("Nats-Num-Pending", "0") == "0"
        self._changed.set()

    async def wait(self) -> list[Message]:
        await own_task()
        while self._status is None:
            self._changed = anyio.Event()
            with anyio.move_on_after(IDLE_SECONDS) as scope:
                await self._changed.wait()
            if scope.cancelled_caught:
                raise TimedOut(f"the object store sent nothing for {IDLE_SECONDS:g} s")
        if self._status == NOTHING_FOUND:
            self.is_last = True
        elif self._status == "503":
            raise NotFound("the object store does not exist, or JetStream does not answer")
        elif self._status != END_OF_BATCH:
            raise Unreachable(f"the object store does not answer (status {self._status})")
        return self._messages


class ObjectReader(Source):
    """The bytes of one object from `start` to before `end`; a whole one is checked against its digest."""

    def __init__(
        self,
        reader: BatchReader,
        description: Mapping[str, Any],
        start: int,
        end: int | None,
        label: str,
        describe: Callable[[], Awaitable[Mapping[str, Any] | None]],
    ) -> None:
        """`describe` gives the object's description as it is by then."""
        super().__init__()
        size = int(description.get("size", 0))
        self._reader = reader
        self._label = label
        self._version = description["nuid"]
        self._describe = describe
        self._left = max(0, min(size, size if end is None else end) - start)
        self._is_whole = self._left == size
        self._expected = str(description.get("digest", ""))
        self._digest = hashlib.sha256()
        self._waiting: deque[bytes] = deque()
        self._skip = start
        self._seek(description, start)

    def _seek(self, description: Mapping[str, Any], start: int) -> None:
        """Begin at the last chunk before `start` whose place is known; what is before stays unread."""
        index = (description.get("metadata") or {}).get("lattice-index", "")
        chunk_bytes = int((description.get("options") or {}).get("max_chunk_size", 0))
        stride, _, listed = index.partition(":")
        if not listed or not chunk_bytes:
            return
        sequences = listed.split(",")
        place = min(start // (chunk_bytes * int(stride)), len(sequences) - 1)
        self._reader.sequence = int(sequences[place])
        self._skip = start - place * chunk_bytes * int(stride)

    async def _pull(self) -> bytes:
        while self._left:
            if not self._waiting:
                await self._fill()
            chunk = self._waiting.popleft()
            skipped = min(self._skip, len(chunk))
            self._skip -= skipped
            chunk = chunk[skipped : skipped + self._left]
            if not chunk:
                continue
            self._left -= len(chunk)
            if self._is_whole:
                await self._check(chunk)
            return chunk
        return b""

    async def _fill(self) -> None:
        for attempt in range(ATTEMPTS):
            messages = await self._reader.next()
            if messages:
                self._waiting.extend(message.data for message in messages)
                return
            await self._require_present()
            await anyio.sleep(RETRY_SECONDS * attempt)  # a replica of the store may be behind
        raise Failed(f"object {self._label} is damaged: it lacks {self._left} bytes; store it again")

    async def _require_present(self) -> None:
        """Raise `Interrupted` if the store has another version by now, or none."""
        present = await self._describe()
        if present is None or present["nuid"] != self._version:
            what = "deleted" if present is None else "replaced"
            raise Interrupted(f"object {self._label} was {what} while it was read: read it again")

    async def _check(self, chunk: bytes) -> None:
        if len(chunk) <= INLINE_DIGEST_BYTES:
            self._digest.update(chunk)
        else:
            await anyio.to_thread.run_sync(self._digest.update, chunk)
        if self._left:
            return
        found = f"SHA-256={base64.urlsafe_b64encode(self._digest.digest()).decode()}"
        if found.rstrip("=") != self._expected.rstrip("="):
            raise Failed(f"object {self._label} is damaged: its digest differs; store it again")

    async def _release(self) -> None:
        await self._reader.aclose()
        self._waiting.clear()
