"""An object store on JetStream, laid out as by every NATS client, but with many chunks under way at once."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import anyio
import anyio.to_thread

from lattice import jetstream
from lattice.bus import Message
from lattice.errors import Failed, Invalid, LatticeError, NotFound, TimedOut, Unreachable

CHUNK_BYTES = 512 * 1024
"""Four times what others choose: each chunk is synced to disk and costs a turn on both sides."""
CHUNKS_UNDER_WAY = 8
IDLE_SECONDS = 5.0
ROLLUP = {"Nats-Rollup": "sub"}
END_OF_BATCH = "204"
NOTHING_FOUND = "404"


class JetStreamObjectStore:
    """An `ObjectStore` whose bucket is made anew, empty, when an operation finds it lost."""

    def __init__(
        self, bus: jetstream.Transport, bucket: str, stream: Mapping[str, Any], *, replicas: int | None
    ) -> None:
        self._bus = bus
        self._bucket = bucket
        self._stream = stream
        self._name = str(stream["name"])
        self._replicas = replicas

    def __repr__(self) -> str:
        return f"<JetStreamObjectStore {self._bucket}>"

    @property
    def bucket(self) -> str:
        return self._bucket

    async def open(self) -> None:
        """Make the bucket if it is missing."""
        await jetstream.open_stream(self._bus, self._stream, replicas=self._replicas)

    async def put(self, name: str, data: bytes) -> None:
        await self.open()
        previous = await self._info(name)
        digest = await anyio.to_thread.run_sync(_digest, data)
        chunks = _chunks(data, min(CHUNK_BYTES, self._bus.max_payload // 2))
        unique = secrets.token_hex(11)
        subject = f"$O.{self._bucket}.C.{unique}"
        info = {
            "name": name,
            "bucket": self._bucket,
            "nuid": unique,
            "size": len(data),
            "mtime": datetime.now(UTC).isoformat(),
            "chunks": len(chunks),
            "digest": digest,
            "options": {"max_chunk_size": CHUNK_BYTES},
        }
        try:
            await self._send(subject, chunks)
            await self._store(self._meta_subject(name), json.dumps(info).encode(), ROLLUP)
        except BaseException:
            with anyio.move_on_after(jetstream.TIMEOUT_SECONDS, shield=True):
                await self._purge(unique)
            raise
        if previous is not None:
            await self._purge(previous["nuid"])

    async def get(self, name: str) -> bytes:
        info = await self._info(name)
        if info is None:
            raise NotFound(f"object {name!r} is not in {self._bucket}")
        data = await self._fetch(info["nuid"], info["size"]) if info["size"] else b""
        if await anyio.to_thread.run_sync(_digest, data) != info["digest"]:
            raise Failed(f"object {name!r} of {self._bucket} is damaged: its digest differs; store it again")
        return data

    async def delete(self, name: str) -> None:
        info = await self._info(name)
        if info is None:
            return
        gone = {**info, "size": 0, "chunks": 0, "digest": "", "deleted": True}
        await self._store(self._meta_subject(name), json.dumps(gone).encode(), ROLLUP)
        await self._purge(info["nuid"])

    async def names(self) -> list[str]:
        try:
            messages = await self._read_all(f"$O.{self._bucket}.M.>")
        except Unreachable:
            await self.open()
            return []
        infos = [json.loads(message.data) for message in messages]
        return sorted(info["name"] for info in infos if not info.get("deleted"))

    # Chunks

    async def _send(self, subject: str, chunks: list[bytes]) -> None:
        limiter = anyio.Semaphore(CHUNKS_UNDER_WAY)
        failures: list[LatticeError] = []

        async def store(chunk: bytes) -> None:
            try:
                await self._store(subject, chunk)
            except LatticeError as error:
                failures.append(error)
            finally:
                limiter.release()

        async with anyio.create_task_group() as tasks:
            for chunk in chunks:
                await limiter.acquire()
                if failures:
                    limiter.release()
                    break
                tasks.start_soon(store, chunk)
        if failures:
            raise failures[0]

    async def _store(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        reply = await self._bus.request(
            subject, data, headers=headers, timeout_seconds=jetstream.TIMEOUT_SECONDS
        )
        jetstream.check(reply)

    async def _fetch(self, unique: str, size: int) -> bytes:
        messages = await self._read_all(f"$O.{self._bucket}.C.{unique}")
        data = b"".join([message.data for message in messages])
        if len(data) != size:
            raise Failed(f"an object of {self._bucket} has {len(data)} bytes of {size}: store it again")
        return data

    async def _read_all(self, subject: str) -> list[Message]:
        """All messages of a subject, asked for in batches so that the server sends no more than we take."""
        found: list[Message] = []
        batch = _Batch()
        inbox = self._bus.new_inbox()
        subscription = await self._bus.subscribe(inbox, batch.receive)
        try:
            sequence = 1
            while not batch.is_last:
                asked = {"next_by_subj": subject, "seq": sequence, "batch": CHUNKS_UNDER_WAY}
                operation = f"{jetstream.API}.DIRECT.GET.{self._name}"
                await self._bus.publish(operation, json.dumps(asked).encode(), reply=inbox)
                messages = await batch.wait()
                found.extend(messages)
                if messages:
                    sequence = int(messages[-1].headers["Nats-Sequence"]) + 1
        finally:
            with anyio.CancelScope(shield=True), suppress(LatticeError):
                await subscription.unsubscribe()
        return found

    # What describes the objects

    def _meta_subject(self, name: str) -> str:
        if not name:
            raise Invalid("an object's name must not be empty")
        return f"$O.{self._bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"

    async def _info(self, name: str) -> dict[str, Any] | None:
        subject = self._meta_subject(name)
        try:
            body = await jetstream.call(self._bus, f"STREAM.MSG.GET.{self._name}", {"last_by_subj": subject})
        except (NotFound, jetstream.StreamLost):
            return None
        info: dict[str, Any] = json.loads(base64.b64decode(body["message"]["data"]))
        return None if info.get("deleted") else info

    async def _purge(self, unique: str) -> None:
        subject = f"$O.{self._bucket}.C.{unique}"
        with suppress(LatticeError):
            await jetstream.call(self._bus, f"STREAM.PURGE.{self._name}", {"filter": subject})


class _Batch:
    """Collects the answers to one request for a batch, up to the status that ends it."""

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
        """The messages of the batch; none when there are none (left)."""
        while self._status is None:
            self._changed = anyio.Event()
            with anyio.move_on_after(IDLE_SECONDS) as scope:
                await self._changed.wait()
            if scope.cancelled_caught:
                raise TimedOut(f"the object store sent nothing for {IDLE_SECONDS:g} s")
        status, self._status = self._status, None
        if status == NOTHING_FOUND:
            self.is_last = True
        elif status != END_OF_BATCH:
            raise Unreachable(f"the object store does not answer (status {status})")
        messages, self._messages = self._messages, []
        return messages


def _digest(data: bytes) -> str:
    return f"SHA-256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()}"


def _chunks(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]
