"""The part of NATS JetStream's API that the lattice's stores need, spoken over plain requests.

Doing without a client library's stores keeps it in our hands when a lost bucket is noticed and made anew, how
watches come back after a reconnect, and what each error means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

import structlog

from lattice.bus import Bus, ConnectionHandler, Message
from lattice.errors import Conflict, Denied, Failed, LatticeError, NotFound, Unreachable

API = "$JS.API"
TIMEOUT_SECONDS = 5.0
CLUSTER_REPLICAS = 3
NANOSECONDS = 1_000_000_000
DUPLICATE_WINDOW_SECONDS = 120.0

STREAM_NOT_FOUND = 10059
MESSAGE_NOT_FOUND = 10037
STREAM_EXISTS = 10058
WRONG_LAST_SEQUENCE = (10071, 10164)
NO_PEERS = (10005, 10074)
NOT_ENABLED = (10039, 10076)

log = structlog.get_logger()


class Transport(Bus, Protocol):
    """What the stores need of a bus beyond the protocol."""

    @property
    def is_clustered(self) -> bool:
        """Whether the server is one of several."""

    def publish_nowait(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        reply: str | None = None,
    ) -> None:
        """As `publish`, for use in handlers."""

    async def wait_until_connected(self) -> object:
        """Return when there is a connection; raises `Unreachable` when the bus is closed."""

    def forget_connection_handler(self, handler: ConnectionHandler) -> None:
        """Undo `on_connection_change`."""


class StreamLost(LatticeError):
    """Raised when the stream does not exist (any more); never leaves the stores."""


async def call(bus: Bus, operation: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Call the API; its errors become ours, a missing stream `StreamLost`, a missing message `NotFound`."""
    data = json.dumps(body).encode() if body is not None else b""
    try:
        reply = await bus.request(f"{API}.{operation}", data, timeout_seconds=TIMEOUT_SECONDS)
    except Unreachable as error:
        if not bus.is_connected:
            raise
        raise Unreachable(
            "the NATS server's JetStream does not answer: enable it (`jetstream {}` in the server's "
            "configuration) and see that a majority of its servers run"
        ) from error
    return check(reply)


def check(reply: Message) -> dict[str, Any]:
    """The body of an answer of the API; raises what its error means."""
    body: dict[str, Any] = json.loads(reply.data)
    if (error := body.get("error")) is None:
        return body
    code, description = error.get("err_code", 0), error.get("description", "unknown error")
    if code == STREAM_NOT_FOUND:
        raise StreamLost(description)
    if code == MESSAGE_NOT_FOUND:
        raise NotFound(description)
    if code in WRONG_LAST_SEQUENCE or code == STREAM_EXISTS:
        raise Conflict(description)
    if code in NOT_ENABLED:
        raise Denied(f"{description}: set `jetstream: enabled` for the account in the server's configuration")
    if error.get("code") == 503 and code not in NO_PEERS:
        raise Unreachable(f"JetStream: {description}")
    raise Failed(f"JetStream: {description}", details={"err_code": code})


async def open_stream(bus: Transport, config: Mapping[str, Any], *, replicas: int | None) -> str:
    """Create the stream if it is missing and return when it was created, which tells it from a later one."""
    try:
        info = await call(bus, f"STREAM.INFO.{config['name']}")
    except StreamLost:
        info = await _create_stream(bus, config, replicas=replicas)
    return str(info["created"])


async def _create_stream(
    bus: Transport, config: Mapping[str, Any], *, replicas: int | None
) -> dict[str, Any]:
    name = config["name"]
    wanted = replicas or (CLUSTER_REPLICAS if bus.is_clustered else 1)
    try:
        return await call(bus, f"STREAM.CREATE.{name}", {**config, "num_replicas": wanted})
    except Conflict:  # somebody else made it just now, perhaps a little differently
        return await call(bus, f"STREAM.INFO.{name}")
    except Failed as error:
        if replicas is not None or error.details.get("err_code") not in NO_PEERS:
            raise
        log.warning("store.not_replicated", stream=name, wanted=wanted, reason=error.message)
        return await call(bus, f"STREAM.CREATE.{name}", {**config, "num_replicas": 1})


async def publish_stored(
    bus: Bus,
    subject: str,
    data: bytes,
    *,
    headers: Mapping[str, str] | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> int:
    """Publish to a stream and return the message's number there. Raises `NotFound` if none stores it."""
    try:
        reply = await bus.request(subject, data, headers=headers, timeout_seconds=timeout_seconds)
    except Unreachable:
        if not bus.is_connected:
            raise
        found = await call(bus, "STREAM.NAMES", {"subject": subject})
        if found.get("streams"):
            raise
        raise NotFound(
            f"no JetStream stream stores {subject!r}: make one, for instance with "
            f"`nats stream add --subjects {subject}`"
        ) from None
    try:
        return int(check(reply)["seq"])
    except (ValueError, KeyError, TypeError):
        raise NotFound(f"what answered on {subject!r} is not a JetStream stream: make one for it") from None


def work_stream(name: str, subject: str) -> dict[str, Any]:
    """The stream of a queue of work where nobody made another; it keeps what comes."""
    return {"name": name, "subjects": [subject], "storage": "file", "retention": "limits", "discard": "old"}


def key_value_stream(bucket: str, *, history: int, ttl_seconds: float | None) -> dict[str, Any]:
    """The stream of a key-value bucket, as every NATS client lays it out."""
    age = int((ttl_seconds or 0) * NANOSECONDS)
    window = int(DUPLICATE_WINDOW_SECONDS * NANOSECONDS)
    return {
        "name": f"KV_{bucket}",
        "subjects": [f"$KV.{bucket}.>"],
        "max_msgs_per_subject": history,
        "max_age": age,
        "duplicate_window": min(age, window) if age else window,
        "discard": "new",
        "storage": "file",
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_direct": True,
        # A value that grows too old leaves a marker, so that watchers learn of it.
        **({"allow_msg_ttl": True, "subject_delete_marker_ttl": max(age, NANOSECONDS)} if age else {}),
    }


def object_stream(bucket: str) -> dict[str, Any]:
    """The stream of an object store, as every NATS client lays it out."""
    return {
        "name": f"OBJ_{bucket}",
        "subjects": [f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"],
        "discard": "new",
        "storage": "file",
        "allow_rollup_hdrs": True,
        "allow_direct": True,
    }
