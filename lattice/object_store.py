"""An object store on JetStream, laid out as by every NATS client, but with many chunks under way at once.

Chunks go up under a subject of their own and become the object by one last message, its description. So a
store that is cut off leaves nothing behind that anybody could see, and replacing is one step for all readers.

Chunks that no description names are those of objects being written, of writers that were lost, and of objects
that were replaced. The last are kept for a while, as somebody may be reading them; for the others the store
tells which they are, and whoever keeps it purges those that do not change any more.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any

import anyio
import anyio.to_thread

from lattice import jetstream
from lattice.bus import ObjectInfo, ObjectPage
from lattice.errors import Denied, Failed, Interrupted, Invalid, LatticeError, NotFound
from lattice.object_reader import BatchReader, ObjectReader
from lattice.replaced_objects import Replaced, ReplacedObjects
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
DESCRIPTIONS_AT_ONCE = 1000
ROLLUP = {"Nats-Rollup": "sub"}
ABANDONED_SECONDS = 3600.0
"""Chunks that no description names and to which none was added for so long may be purged."""


class JetStreamObjectStore:
    """An `ObjectStore`; one that `makes` its bucket makes it anew, empty, when an operation finds it lost."""

    def __init__(
        self,
        bus: jetstream.Transport,
        bucket: str,
        stream: Mapping[str, Any],
        *,
        replicas: int | None,
        replaced: ReplacedObjects,
        makes: bool = True,
    ) -> None:
        self._bus = bus
        self._bucket = bucket
        self._stream = stream
        self._name = str(stream["name"])
        self._replicas = replicas
        self._replaced = replaced
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
        return _seconds(str((await self._info())["created"]))

    async def mark(self) -> str:
        info = await self._info()
        state = info["state"]
        return f"{info['created']} {state['last_seq']} {state['messages']} {state.get('num_deleted', 0)}"

    async def _info(self) -> dict[str, Any]:
        try:
            return await jetstream.call(self._bus, f"STREAM.INFO.{self._name}")
        except jetstream.StreamLost:
            raise self._missing() from None

    # Writing

    async def put(self, name: str, data: bytes) -> None:
        await self.write(name, BytesSource(data, CHUNK_BYTES))

    async def write(self, name: str, chunks: AsyncIterable[bytes]) -> ObjectInfo:
        await self._require()
        self._description_subject(name)
        unique = secrets.token_hex(11)
        upload = _Upload(self._bus, f"$O.{self._bucket}.C.{unique}", self._bus.max_payload // 2)
        try:
            await upload.run(chunks)
            previous = await self._describe(name)
        except BaseException:
            with anyio.move_on_after(jetstream.TIMEOUT_SECONDS, shield=True):
                await self.purge(unique)
            raise
        description = self._description(name, unique, upload)
        try:
            await self._store_description(description)
        except (Denied, Failed, Invalid):  # after anything else it may have been stored
            await self.purge(unique)
            raise
        if previous is not None:
            version, size = previous["nuid"], int(previous.get("size", 0))
            self._replaced.add(Replaced(bucket=self._bucket, name=name, version=version, size=size))
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
            await self.purge(description["nuid"])

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
        body = ObjectReader(
            reader, description, start, end, f"{name!r} of {self._bucket}", lambda: self._describe(name)
        )
        return _info(description), body

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

    # What no object names

    async def unnamed(self, *, exactly: bool = False) -> dict[str, int]:
        # In this order: whatever is stored is described after its chunks.
        try:
            chunks = await self._chunks()
            if chunks:
                found = self._descriptions_of_leader() if exactly else self._descriptions()
                async with aclosing(found):
                    async for description in found:
                        if not description.get("deleted"):
                            chunks.pop(str(description.get("nuid")), None)
        except jetstream.StreamLost:
            return {}
        return chunks

    async def _descriptions(self) -> AsyncGenerator[dict[str, Any]]:
        subject = f"$O.{self._bucket}.M.>"
        async with BatchReader(self._bus, self._name, subject, DESCRIPTIONS_AT_ONCE) as reader:
            while not reader.is_last:
                for message in await reader.next():
                    yield json.loads(message.data)

    async def _descriptions_of_leader(self) -> AsyncGenerator[dict[str, Any]]:
        """One by one, from the server that leads the stream: the others may not have the last ones yet."""
        operation = f"STREAM.MSG.GET.{self._name}"
        asked = {"next_by_subj": f"$O.{self._bucket}.M.>", "seq": 1}
        while True:
            try:
                message = (await jetstream.call(self._bus, operation, asked))["message"]
            except NotFound:
                return
            asked["seq"] = int(message["seq"]) + 1
            yield json.loads(base64.b64decode(message["data"]))

    async def _chunks(self) -> dict[str, int]:
        """How many chunks there are of each version."""
        found: dict[str, int] = {}
        prefix = f"$O.{self._bucket}.C."
        offset, total = 0, 1
        while offset < total:
            asked = {"subjects_filter": f"{prefix}>", "offset": offset}
            info = await jetstream.call(self._bus, f"STREAM.INFO.{self._name}", asked)
            subjects = info["state"].get("subjects") or {}
            found |= {subject.removeprefix(prefix): count for subject, count in subjects.items()}
            offset, total = offset + len(subjects), info.get("total", 0) if subjects else 0
        return found

    async def purge(self, version: str) -> None:
        await purge(self._bus, self._bucket, version)

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


async def stores(bus: jetstream.Transport, prefix: str) -> list[str]:
    """The buckets whose names begin so."""
    found: list[str] = []
    offset, total = 0, 1
    while offset < total:
        page = await jetstream.call(bus, "STREAM.NAMES", {"subject": "$O.>", "offset": offset})
        names = page.get("streams") or []
        found += [name.removeprefix("OBJ_") for name in names if name.startswith(f"OBJ_{prefix}")]
        offset, total = offset + len(names), page["total"] if names else 0
    return found


async def purge(bus: jetstream.Transport, bucket: str, version: str) -> None:
    """Delete the chunks of a version; what can't be reached is left to whoever looks for what is unnamed."""
    stream = jetstream.object_stream(bucket)["name"]
    with suppress(LatticeError):
        await jetstream.call(bus, f"STREAM.PURGE.{stream}", {"filter": f"$O.{bucket}.C.{version}"})


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
        self._added_at = anyio.current_time()

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
            self._check_pause()
        if self._failures:
            raise self._failures[0]

    def _check_pause(self) -> None:
        """Raise `Interrupted` when what was sent before may have been taken for abandoned."""
        now = anyio.current_time()
        if self.sequences and now - self._added_at > ABANDONED_SECONDS / 2:
            raise Interrupted(
                f"less than {self.chunk_bytes} bytes came within {ABANDONED_SECONDS / 2:g} s, and what came "
                "before may be gone: write the object again"
            )
        self._added_at = now

    async def _add(self, chunk: bytes) -> None:
        self._check_pause()
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
