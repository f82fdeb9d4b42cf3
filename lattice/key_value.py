"""A key-value bucket on JetStream."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import anyio
import anyio.abc

from lattice import jetstream
from lattice.bus import Entry, Message, Subscription, WatchHandler, check_key
from lattice.errors import Conflict, NotFound, Unreachable
from lattice.key_page import KeyPage
from lattice.watch import Watch

EXPECTED_REVISION = "Nats-Expected-Last-Subject-Sequence"
OPERATION = "KV-Operation"
MARKER = "Nats-Marker-Reason"
SEQUENCE = "Nats-Sequence"

Result = TypeVar("Result")


class JetStreamKeyValue:
    """A `KeyValue` whose bucket is made anew, empty, when an operation finds it lost."""

    def __init__(
        self,
        bus: jetstream.Transport,
        tasks: anyio.abc.TaskGroup,
        bucket: str,
        stream: Mapping[str, Any],
        *,
        replicas: int | None,
    ) -> None:
        self._bus = bus
        self._tasks = tasks
        self._bucket = bucket
        self._stream = stream
        self._replicas = replicas
        self._prefix = f"$KV.{bucket}."

    def __repr__(self) -> str:
        return f"<JetStreamKeyValue {self._bucket}>"

    @property
    def bucket(self) -> str:
        return self._bucket

    async def open(self) -> str:
        """Make the bucket if it is missing; when it was made tells it from another of the same name."""
        return await jetstream.open_stream(self._bus, self._stream, replicas=self._replicas)

    async def get(self, key: str) -> Entry | None:
        entry = await self._last(key)
        return entry if entry is not None and entry.value is not None else None

    async def peek(self, key: str) -> Entry | None:
        subject = f"{jetstream.API}.DIRECT.GET.{self._stream['name']}.{self._subject(key)}"
        try:
            reply = await self._bus.request(subject, timeout_seconds=jetstream.TIMEOUT_SECONDS)
        except Unreachable:
            return await self.get(key)  # which makes a lost bucket anew, or finds no server
        if "Status" in reply.headers:
            return None
        if OPERATION in reply.headers or MARKER in reply.headers:
            return None
        return Entry(key, reply.data, int(reply.headers[SEQUENCE]))

    async def keys(self, prefix: str, *, after: int = 0, limit: int) -> tuple[list[str], int | None]:
        page = KeyPage(self._bus, self._stream["name"], f"{self._prefix}{prefix}>")
        found, following = await self._restoring(lambda: page.read(after, limit))
        return [subject.removeprefix(self._prefix) for subject in found], following

    async def create(self, key: str, value: bytes) -> int:
        try:
            return await self.update(key, value, 0)
        except Conflict:
            last = await self._last(key)
            if last is not None and last.value is not None:
                raise Conflict(f"key {key!r} of {self._bucket} exists at revision {last.revision}") from None
            return await self.update(key, value, last.revision if last else 0)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        return await self._write(key, value, {EXPECTED_REVISION: str(revision)})

    async def put(self, key: str, value: bytes) -> int:
        return await self._write(key, value, None)

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        expected = {} if revision is None else {EXPECTED_REVISION: str(revision)}
        await self._write(key, b"", {OPERATION: "DEL", **expected})

    async def entries(self) -> list[Entry]:
        found: dict[str, Entry] = {}
        done = anyio.Event()

        def receive(entry: Entry | None) -> None:
            if entry is None:
                done.set()
            elif not done.is_set():
                found[entry.key] = entry

        watch = await self.watch(receive, on_restart=lambda _: found.clear())
        try:
            with anyio.fail_after(jetstream.TIMEOUT_SECONDS):
                await done.wait()
        except TimeoutError:
            raise Unreachable(f"the bucket {self._bucket} does not answer") from None
        finally:
            with anyio.CancelScope(shield=True):
                await watch.unsubscribe()
        present = [entry for entry in found.values() if entry.value is not None]
        return sorted(present, key=lambda entry: entry.revision)

    async def watch(
        self, handler: WatchHandler, *, on_restart: Callable[[bool], None] | None = None
    ) -> Subscription:
        watch = Watch(
            self._bus,
            stream=self._stream["name"],
            subject=f"{self._prefix}>",
            open_stream=self.open,
            receive=lambda message, revision: handler(self._entry(message, revision)),
            on_end=lambda: handler(None),
            on_restart=on_restart or (lambda _: None),
        )
        await self._tasks.start(watch.run)
        return watch

    def _entry(self, message: Message, revision: int) -> Entry:
        gone = OPERATION in message.headers or MARKER in message.headers
        return Entry(message.subject.removeprefix(self._prefix), None if gone else message.data, revision)

    async def _last(self, key: str) -> Entry | None:
        subject = self._subject(key)
        operation = f"STREAM.MSG.GET.{self._stream['name']}"
        # Asked of the stream's leader: a direct get may be answered by a replica that lags.
        try:
            body = await self._restoring(
                lambda: jetstream.call(self._bus, operation, {"last_by_subj": subject})
            )
        except NotFound:
            return None
        message = body["message"]
        headers = base64.b64decode(message.get("hdrs", "")).decode("utf-8", "replace")
        gone = f"{OPERATION}:" in headers or f"{MARKER}:" in headers
        return Entry(key, None if gone else base64.b64decode(message.get("data", "")), message["seq"])

    async def _write(self, key: str, value: bytes, headers: Mapping[str, str] | None) -> int:
        subject = self._subject(key)

        async def write() -> int:
            reply = await self._bus.request(
                subject, value, headers=headers, timeout_seconds=jetstream.TIMEOUT_SECONDS
            )
            return int(jetstream.check(reply)["seq"])

        try:
            return await self._restoring(write)
        except Conflict as error:
            raise Conflict(f"key {key!r} of {self._bucket} was changed meanwhile: {error.message}") from None

    async def _restoring(self, operation: Callable[[], Awaitable[Result]]) -> Result:
        """Do it; if nobody takes it because the bucket is gone, make that anew and do it once more."""
        try:
            return await operation()
        except (jetstream.StreamLost, Unreachable):
            await self.open()
            return await operation()

    def _subject(self, key: str) -> str:
        check_key(key)
        return f"{self._prefix}{key}"
