"""The bus: what the rest of the lattice may ask of its transport, and nothing of how it is done.

Two implementations pass the same conformance suite (`lattice.conformance`): `nats_bus` for real lattices and
`memory_bus` for tests and simulations. Handlers are called synchronously on the event loop, in the order in
which the messages of one sender came, and must hand over without waiting; what they raise is logged and ends
nothing.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from lattice.errors import Invalid

if TYPE_CHECKING:
    from lattice.streams import ByteReceiver

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
"""The headers of the many messages that have none; shared, so that they cost nothing."""

_SUBJECT = re.compile(r"[^\s\x00.]+(?:\.[^\s\x00.]+)*")
_KEY = re.compile(r"[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*")


@dataclass(slots=True)
class Message:
    """One message as it was received. Nobody changes one; it is not frozen, as that doubles its price."""

    subject: str
    data: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    reply: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a bucket at one revision; `value` is None for a key that was deleted."""

    key: str
    value: bytes | None
    revision: int


@dataclass(frozen=True, slots=True)
class Disconnect:
    """A connection that a server reports as gone. The pair identifies it; names can be forged."""

    server_id: str
    client_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BusStatistics:
    """Counts since the bus was opened."""

    sent: int = 0
    received: int = 0
    pending_requests: int = 0
    reconnects: int = 0
    slow_consumers: int = 0
    handler_errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What a store knows of one object; `modified` in seconds since the epoch."""

    name: str
    size: int
    modified: float = 0.0
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectPage:
    """Some of a store's objects, and where to go on; an empty cursor means that these were the last."""

    objects: tuple[ObjectInfo, ...]
    cursor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """A durable queue of work: the messages of a stream that have a subject, given to whoever asks."""

    stream: str
    """Made, for these subjects, if it is missing."""
    name: str
    """Of the queue: all who open one of the same name share its messages."""
    subject: str
    ack_wait_seconds: float = 30.0
    """A message that was given and not settled, nor said to be in progress, for so long is given again."""
    max_pending: int = 1000
    """So many may be given and not settled at once, among all who share the queue."""
    prefetch: int = 1
    """So many are fetched ahead by each who takes; their time to be settled runs from then."""
    from_start: bool = True
    """Whether a new queue begins with what the stream has, else with what comes."""
    owner: str = ""
    """For whom it is made, if it is not there yet; see `Bus.owned_queues`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedQueue:
    """A queue that was made for an owner."""

    stream: str
    name: str
    is_retired: bool
    """Whether it ends by itself once it is not in use."""


Handler = Callable[[Message], None]
ConnectionHandler = Callable[[bool], None]
WatchHandler = Callable[[Entry | None], None]
DisconnectHandler = Callable[[Disconnect], None]


class Subscription(Protocol):
    """What a subscriber holds; to leave it is to call `unsubscribe`."""

    async def unsubscribe(self) -> None:
        """End it; the handler is not called again. A second call does nothing.

        A member of a queue group is still given what is on its way to it before this returns.
        """


class KeyValue(Protocol):
    """A bucket of keys with revisions.

    Every operation raises `Unreachable` when the store does not answer at all, `TimedOut` when its answer did
    not come (a write may have been done) and `Interrupted` when the connection was lost meanwhile. A bucket
    that was lost is made anew, empty, by the next operation; who needs to know keeps a marker in it.
    """

    @property
    def bucket(self) -> str:
        """The bucket's name."""

    async def get(self, key: str) -> Entry | None:
        """The present entry, or None when there is none or it was deleted."""

    async def peek(self, key: str) -> Entry | None:
        """As `get`, in half the time; a copy of the bucket may answer that lags behind the last writes."""

    async def keys(self, prefix: str, *, after: int = 0, limit: int) -> tuple[list[str], int | None]:
        """Keys below a prefix of whole tokens (`a.b.`) in the order of their revisions, from `after` on.

        The second value is where the next page begins, None after the last one; a page may be empty.
        """

    async def create(self, key: str, value: bytes) -> int:
        """Write a key that is absent or deleted and return its revision; else raise `Conflict`."""

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Write if `revision` is still the key's (0: absent), return the new one; else raise `Conflict`."""

    async def put(self, key: str, value: bytes) -> int:
        """Write whatever is there and return the revision."""

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        """Delete; with `revision` only if that is still the key's, else raise `Conflict`."""

    async def entries(self) -> list[Entry]:
        """All present entries, deleted ones left out, in the order of their revisions."""

    async def watch(
        self, handler: WatchHandler, *, on_restart: Callable[[bool], None] | None = None
    ) -> Subscription:
        """Call `handler` with every entry (deletions too), with None after the last, then with each change.

        After a reconnect or the loss of the bucket the watch is made anew: `on_restart` is called first
        (True: it is another bucket than before, the data are lost), then all entries come again, then None.
        Without a reconnect that can take until the store's next heartbeats are missed: about three seconds.
        """


class ObjectStore(Protocol):
    """A bucket of large values; errors as for `KeyValue`, `NotFound` where it is not made and missing."""

    @property
    def bucket(self) -> str:
        """The bucket's name."""

    async def put(self, name: str, data: bytes) -> None:
        """Store; an object of that name is replaced once the new one is whole."""

    async def get(self, name: str) -> bytes:
        """The object's bytes, their digest verified. Raises `NotFound`, or `Failed` when they are damaged."""

    async def delete(self, name: str) -> None:
        """Delete; does nothing when there is no such object."""

    async def names(self) -> list[str]:
        """The names of all objects, sorted."""

    async def write(self, name: str, chunks: AsyncIterable[bytes]) -> ObjectInfo:
        """Store a stream; nothing is visible before its last byte was stored. Holds a few chunks at most.

        What `chunks` raises is raised, and the object is as it was before.
        """

    async def read(
        self, name: str, *, start: int = 0, end: int | None = None
    ) -> tuple[ObjectInfo, ByteReceiver]:
        """What the store knows of an object, and its bytes from `start` to before `end`. Raises `NotFound`.

        A whole object's digest is verified with its last bytes. One that is replaced while it is read goes on
        as it was; if that takes minutes, or if it is deleted, the stream may end with `Interrupted`. Close
        the stream.
        """

    async def info(self, name: str) -> ObjectInfo | None:
        """What the store knows of an object."""

    async def page(self, cursor: str = "", limit: int = 1000) -> ObjectPage:
        """Objects from a cursor on, about `limit` of them; one replaced meanwhile may come twice."""

    async def clear(self) -> None:
        """Delete all objects."""

    async def mark(self) -> str:
        """Is another one after whatever was changed; raises `NotFound`."""

    async def unnamed(self, *, exactly: bool = False) -> Mapping[str, int]:
        """Versions that are stored and that no object has, and how many pieces there are of each.

        They are being written, were replaced, or were left behind by a writer that was lost. What was stored
        just now may be among them, as a copy may be asked that lags; `exactly` takes longer and is sure.
        """

    async def purge(self, version: str) -> None:
        """Delete such a version; raises nothing, and does nothing when the store can't be reached."""

    async def created_at(self) -> float:
        """When it was made, in seconds since the epoch. Raises `NotFound`."""


class Work(Protocol):
    """One message out of a queue. It is given again, here or elsewhere, unless it is settled.

    Settling raises `Unreachable`, `TimedOut` or `Interrupted` when the server may not know of it.
    """

    @property
    def message(self) -> Message:
        """As it was published."""

    @property
    def attempt(self) -> int:
        """How often it was given, this time included."""

    @property
    def sequence(self) -> int:
        """Its number in the stream."""

    async def done(self) -> None:
        """It was handled: never give it again. Returns when the server knows."""

    async def retry(self, delay_seconds: float) -> None:
        """Give it again after a while."""

    async def in_progress(self) -> None:
        """It is still being handled: begin the wait anew."""


class WorkQueue(Protocol):
    """What takes from a queue. Closing it gives back nothing: what was not settled is given again in time."""

    async def take(self) -> Work:
        """The next message; waits for one, over reconnects and the loss of the queue. One at a time may wait.

        A cancelled `take` loses nothing: what was on its way is given again.
        """

    async def aclose(self) -> None:
        """Take no more."""


class Bus(Protocol):
    """A connection to the lattice's transport."""

    @property
    def max_payload(self) -> int:
        """Bytes that one message may have, headers included."""

    @property
    def is_connected(self) -> bool:
        """Whether messages can be sent now."""

    @property
    def server_id(self) -> str:
        """The server that this connection ends at; changes with a reconnect, empty before the first one."""

    @property
    def client_id(self) -> int:
        """What that server calls this connection; changes with a reconnect."""

    def new_inbox(self) -> str:
        """A subject that nobody else uses, below the private prefix of this connection."""

    async def publish(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        reply: str | None = None,
    ) -> None:
        """Send. Raises `Unreachable` when not connected (nothing is buffered), `Invalid` when too large."""

    def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float,
    ) -> Awaitable[Message]:
        """Send; what is returned is awaited at once, and gives the first reply.

        That raises `Unreachable` at once when nobody subscribes or the bus is not connected, `Interrupted`
        when the connection is lost while waiting, `TimedOut`, and `Denied` when the server forbids the
        subject.
        """

    def interrupt(self, prefix: str, reason: str) -> None:
        """End pending requests to subjects that begin with `prefix` with `Interrupted`."""

    async def subscribe(self, subject: str, handler: Handler, *, queue: str | None = None) -> Subscription:
        """Receive; returns when the server has the subscription, and waits while there is no connection.

        It outlives reconnects. Members of one `queue` get each message once among them. Raises `Denied`.
        """

    async def flush(self) -> None:
        """Return when the server has processed all that was sent. Raises `Unreachable` when not connected."""

    def on_connection_change(self, handler: ConnectionHandler) -> None:
        """Call with False when the connection is lost, with True when it and all subscriptions are back."""

    async def key_value(self, bucket: str, *, history: int = 1, ttl_seconds: float | None = None) -> KeyValue:
        """Open a bucket, made if it is missing; an existing one keeps its settings."""

    async def object_store(self, bucket: str, *, make: bool = True) -> ObjectStore:
        """Open an object store, made if it is missing; else `NotFound` comes from its operations."""

    async def object_stores(self, prefix: str) -> list[str]:
        """The object stores whose names begin so."""

    async def delete_object_store(self, bucket: str) -> None:
        """Delete an object store and all that is in it. Raises `NotFound`."""

    async def work_queue(self, settings: QueueSettings) -> WorkQueue:
        """Open a queue of work, made with its stream if they are missing; messages published before count.

        Raises `Invalid` when the stream exists and has no such subjects, or another stream has them.
        """

    async def owned_queues(self, owner: str) -> list[OwnedQueue]:
        """The queues that were made for that owner; not those that others made and it opened."""

    async def retire_queue(self, queue: OwnedQueue, *, idle_seconds: float) -> None:
        """Have the queue end by itself once nobody has waited for its work for so long.

        Opening it again takes that back. Does nothing when it is gone.
        """

    async def make_stream(self, name: str, subject: str) -> None:
        """Have messages of a subject stored: make a stream of this name unless some stream stores them."""

    async def publish_stored(
        self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None, timeout_seconds: float
    ) -> int:
        """Publish to a stream and return the message's number in it once it is stored.

        Raises `NotFound` when no stream has the subject, else as `request`.
        """

    async def watch_disconnects(self, handler: DisconnectHandler) -> bool:
        """Call with every connection that a server reports as ended; False without system credentials."""

    def statistics(self) -> BusStatistics:
        """Counts since the bus was opened."""

    async def aclose(self) -> None:
        """Unsubscribe, let handlers have what was received, close. Pending requests are `Interrupted`."""


def check_subject(subject: str) -> None:
    """Raise `Invalid` unless it can stand in a protocol line; tokens are the caller's business."""
    if not _SUBJECT.fullmatch(subject):
        raise Invalid(f"{subject!r} is not a subject: tokens without spaces, separated by single dots")


def check_key(key: str) -> None:
    """Raise `Invalid` unless the key is one that every NATS client takes."""
    if not _KEY.fullmatch(key):
        raise Invalid(f"key {key!r} is not valid: use letters, digits, '-', '_', '/', '=' and dots between")
