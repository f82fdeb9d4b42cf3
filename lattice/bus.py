"""The bus: what the rest of the lattice may ask of its transport, and nothing of how it is done.

Two implementations pass the same conformance suite (`lattice.conformance`): `nats_bus` for real lattices and
`memory_bus` for tests and simulations. Handlers are called synchronously on the event loop, in the order in
which the messages of one sender came, and must hand over without waiting; what they raise is logged and ends
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from lattice.errors import Invalid

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
"""The headers of the many messages that have none; shared, so that they cost nothing."""

_SUBJECT = re.compile(r"[^\s\x00.]+(?:\.[^\s\x00.]+)*")
_KEY = re.compile(r"[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it was received."""

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
    """A bucket of large values; errors as for `KeyValue`."""

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

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float,
    ) -> Message:
        """Send and return the first reply.

        Raises `Unreachable` at once when nobody subscribes or the bus is not connected, `Interrupted` when
        the connection is lost while waiting, `TimedOut`, and `Denied` when the server forbids the subject.
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

    async def object_store(self, bucket: str) -> ObjectStore:
        """Open an object store, made if it is missing."""

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
