"""An object store on JetStream, laid out as by every NATS client, but with many chunks under way at once.

Chunks go up under a subject of their own and become the object by one last message, its description. So a
store that is cut off leaves nothing behind that anybody could see, and replacing is one step for all readers.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import secrets
from collections.abc import AsyncIterable, Mapping
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any

import anyio
import anyio.to_thread

from lattice import jetstream
from lattice.bus import ObjectInfo, ObjectPage
from lattice.errors import Invalid, LatticeError, NotFound
from lattice.object_reader import BatchReader, ObjectReader
from lattice.sources import BytesSource, rechunked
from lattice.streams import ByteReceiver
from lattice.tasks import open_tasks, own_task

CHUNK_BYTES = 512 * 1024
"""Four times what others choose: each chunk is synced to disk and costs a turn on both sides."""
CHUNKS_UNDER_WAY = 8
INLINE_DIGEST_BYTES = 64 * 1024
"""Hashing so little takes less time than asking a thread for it."""
INDEX_ENTRIES = 64
"""Places of an object that a range may begin at without reading what is before."""
INDEX = "lattice-index"
ROLLUP = {"Nats-Rollup": "sub"}


class JetStreamObjectStore:
    """An `ObjectStore`; one that `makes` its bucket makes it anew, empty, when an operation finds it lost."""

    def __init__(
        self,
        bus: jetstream.Transport,
        bucket: str,
        stream: Mapping[str, Any],
        *,
        replicas: int | None,
        makes: bool = True,
    ) -> None:
        self._bus = bus
        self._bucket = bucket
        self._stream = stream
        self._name = str(stream["name"])
        self._replicas = replicas
        self._makes = makes

    def __repr__(self) -> str:
        return f"<JetStreamObjectStore {self._bucket}>"

    @property
    def bucket(self) -> str:
        return self._bucket

    async def open(self) -> None:
        """Make the bucket if it is missing."""
        await jetstream.open_stream(self._bus, self._stream, replicas=self._replicas)

    async def created_at(self) -> float:
        try:
            info = await jetstream.call(self._bus, f"STREAM.INFO.{self._name}")
        except jetstream.StreamLost:
            raise self._missing() from None
        return _seconds(str(info["created"]))

    # Writing

    async def put(self, name: str, data: bytes) -> None:
        await self.write(name, BytesSource(data, CHUNK_BYTES))

    async def write(self, name: str, chunks: AsyncIterable[bytes]) -> ObjectInfo:
        await self._require()
        previous = await self._describe(name)
        unique = secrets.token_hex(11)
        upload = _Upload(self._bus, f"$O.{self._bucket}.C.{unique}", self._bus.max_payload // 2)
        try:
            await upload.run(chunks)
            description = self._description(name, unique, upload)
            await self._store_description(description)
        except BaseException:
            with anyio.move_on_after(jetstream.TIMEOUT_SECONDS, shield=True):
                await self._purge(unique)
            raise
        if previous is not None:
            await self._purge(previous["nuid"])
        return _info(description)

    def _description(self, name: str, unique: str, upload: _Upload) -> dict[str, Any]:
        return {
            "name": name,
            "bucket": self._bucket,
            "nuid": unique,
            "size": upload.size,
            "mtime": datetime.now(UTC).isoformat(),
            "chunks": len(upload.sequences),
            "digest": f"SHA-256={base64.urlsafe_b64encode(upload.digest.digest()).decode()}",
            "options": {"max_chunk_size": upload.chunk_bytes},
            "metadata": {INDEX: _index(upload.sequences)},
        }

    async def delete(self, name: str) -> None:
        description = await self._describe(name)
        if description is not None:
            gone = {**description, "size": 0, "chunks": 0, "digest": "", "deleted": True}
            await self._store_description(gone)
            await self._purge(description["nuid"])

    async def clear(self) -> None:
        try:
            await jetstream.call(self._bus, f"STREAM.PURGE.{self._name}")
        except jetstream.StreamLost:
            if not self._makes:
                raise self._missing() from None

    # Reading

    async def get(self, name: str) -> bytes:
        _, body = await self.read(name)
        async with body:
            return b"".join([chunk async for chunk in body])

    async def read(
        self, name: str, *, start: int = 0, end: int | None = None
    ) -> tuple[ObjectInfo, ByteReceiver]:
        description = await self._describe(name)
        if description is None:
            raise NotFound(f"object {name!r} is not in {self._bucket}")
        subject = f"$O.{self._bucket}.C.{description['nuid']}"
        reader = BatchReader(self._bus, self._name, subject, CHUNKS_UNDER_WAY)
        return _info(description), ObjectReader(
            reader, description, start, end, f"{name!r} of {self._bucket}"
        )

    async def info(self, name: str) -> ObjectInfo | None:
        description = await self._describe(name)
        return None if description is None else _info(description)

    async def page(self, cursor: str = "", limit: int = 1000) -> ObjectPage:
        subject = f"$O.{self._bucket}.M.>"
        found: list[ObjectInfo] = []
        async with BatchReader(self._bus, self._name, subject, limit, _sequence(cursor)) as reader:
            while not found and not reader.is_last:
                try:
                    descriptions = [json.loads(message.data) for message in await reader.next()]
                except NotFound:
                    await self._require()
                    break
                found = [_info(item) for item in descriptions if not item.get("deleted")]
            return ObjectPage(objects=tuple(found), cursor="" if reader.is_last else str(reader.sequence))

    async def names(self) -> list[str]:
        found: list[str] = []
        page = await self.page()
        found.extend(item.name for item in page.objects)
        while page.cursor:
            page = await self.page(page.cursor)
            found.extend(item.name for item in page.objects)
        return sorted(set(found))

    # Descriptions

    async def _require(self) -> None:
        if self._makes:
            await self.open()
        else:
            await self.created_at()

    def _missing(self) -> NotFound:
        return NotFound(f"there is no object store {self._bucket!r}")

    def _description_subject(self, name: str) -> str:
        if not name:
            raise Invalid("an object's name must not be empty")
        return f"$O.{self._bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"

    async def _describe(self, name: str) -> dict[str, Any] | None:
        subject = self._description_subject(name)
        try:
            body = await jetstream.call(self._bus, f"STREAM.MSG.GET.{self._name}", {"last_by_subj": subject})
        except NotFound:
            return None
        except jetstream.StreamLost:
            if self._makes:
                return None
            raise self._missing() from None
        description: dict[str, Any] = json.loads(base64.b64decode(body["message"]["data"]))
        return None if description.get("deleted") else description

    async def _store_description(self, description: Mapping[str, Any]) -> None:
        subject = self._description_subject(description["name"])
        await _store(self._bus, subject, json.dumps(description).encode(), ROLLUP)

    async def _purge(self, unique: str) -> None:
        subject = f"$O.{self._bucket}.C.{unique}"
        with suppress(LatticeError):
            await jetstream.call(self._bus, f"STREAM.PURGE.{self._name}", {"filter": subject})


class _Upload:
    """Sends the chunks of one object; holds no more of them than are under way."""

    # The mutable state is what was sent so far and what went wrong.

    def __init__(self, bus: jetstream.Transport, subject: str, most_bytes: int) -> None:
        self._bus = bus
        self._subject = subject
        self.chunk_bytes = min(CHUNK_BYTES, most_bytes)
        self.size = 0
        self.digest = hashlib.sha256()
        self.sequences: list[int] = []
        self._failures: list[LatticeError] = []
        self._limiter = anyio.Semaphore(CHUNKS_UNDER_WAY)

    async def run(self, chunks: AsyncIterable[bytes]) -> None:
        await own_task()
        async with open_tasks() as tasks, aclosing(rechunked(chunks, self.chunk_bytes)) as pieces:
            async for chunk in pieces:
                await self._limiter.acquire()
                if self._failures:
                    break
                await self._add(chunk)
                self.sequences.append(0)
                tasks.start_soon(self._send, chunk, len(self.sequences) - 1)
        if self._failures:
            raise self._failures[0]

    async def _add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if len(chunk) <= INLINE_DIGEST_BYTES:
            self.digest.update(chunk)
        else:
            await anyio.to_thread.run_sync(self.digest.update, chunk)

    async def _send(self, chunk: bytes, index: int) -> None:
        try:
            self.sequences[index] = await _store(self._bus, self._subject, chunk)
        except LatticeError as error:
            self._failures.append(error)
        finally:
            self._limiter.release()


async def _store(
    bus: jetstream.Transport, subject: str, data: bytes, headers: Mapping[str, str] | None = None
) -> int:
    reply = await bus.request(subject, data, headers=headers, timeout_seconds=jetstream.TIMEOUT_SECONDS)
    return int(jetstream.check(reply)["seq"])


def _sequence(cursor: str) -> int:
    if cursor and not (cursor.isascii() and cursor.isdigit()):
        raise Invalid(f"{cursor!r} is not a cursor of a list")
    return int(cursor or "1")


def _index(sequences: list[int]) -> str:
    """`STRIDE:SEQUENCE,SEQUENCE,...` of every so many chunks; empty where chunks came out of order."""
    if sequences != sorted(sequences):
        return ""
    stride = max(1, math.ceil(len(sequences) / INDEX_ENTRIES))
    return f"{stride}:{','.join(str(sequence) for sequence in sequences[::stride])}"


def _info(description: Mapping[str, Any]) -> ObjectInfo:
    return ObjectInfo(
        name=description["name"],
        size=int(description.get("size", 0)),
        modified=_seconds(str(description.get("mtime", ""))),
        digest=description.get("digest", ""),
    )


def _seconds(text: str) -> float:
    """Seconds since the epoch of a time as NATS writes it, with up to nine digits of a second."""
    head, _, zone = text.replace("Z", "+00:00").partition("+")
    try:
        return datetime.fromisoformat(f"{head[:26]}+{zone or '00:00'}").timestamp()
    except ValueError:
        return 0.0
