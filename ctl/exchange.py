"""Control requests and their replies: one map there, one map back, errors as exceptions."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Any, TypeVar

import anyio

from lattice import bodies, subjects, wire
from lattice.bus import Bus
from lattice.errors import Failed, Invalid, LatticeError, TimedOut, Unreachable
from lattice.fields import Value

V = TypeVar("V", bound=Value)

RETRY_SECONDS = 0.1
READ_SECONDS = 0.5
"""After which a question is put to another node: the one that took it may have died or stand still."""
GATHER_SECONDS = 2.0
"""The same for questions that a node answers by asking all others."""
PREPARE_SECONDS = 20.0
"""The same for compiling, which may take a while and harms nobody when two nodes do it."""
MAX_REPLY_BYTES = 64 * 2**20


class Exchange:
    """Sends control requests to whichever node takes them."""

    def __init__(self, bus: Bus, lattice: str) -> None:
        self._peer = bodies.Peer(bus=bus, lattice=lattice, owner=secrets.token_hex(8))
        self._lattice = lattice

    async def request(
        self,
        operation: str,
        fields: Mapping[str, Any],
        *,
        timeout_seconds: float,
        node: str | None = None,
    ) -> dict[str, Any]:
        """The reply's fields; raises what the node answered: whichever takes it, or the one that is named.

        Where a node answers that it could not begin (no controller yet, say), the request is repeated until
        the time ends, and so is a question that is not answered soon. When there is nobody at all,
        `Unreachable` is raised at once.
        """
        subject, body = subjects.control(self._lattice, operation), wire.encode_message(fields)
        if node is not None:
            subject = subjects.node_control(self._lattice, node, operation)
        deadline = anyio.current_time() + timeout_seconds
        while True:
            left = deadline - anyio.current_time()
            seconds = min(_patience(operation), left)
            try:
                error, reply = await self._once(subject, body, seconds)
            except TimedOut:
                if seconds >= left:
                    raise TimedOut(f"`{operation}` was not answered within {timeout_seconds:.1f} s") from None
                continue
            if error is None:
                return reply
            if not error.is_retryable or anyio.current_time() + RETRY_SECONDS >= deadline:
                raise error
            await anyio.sleep(RETRY_SECONDS)

    async def _once(
        self, subject: str, body: bytes, timeout_seconds: float
    ) -> tuple[LatticeError | None, dict[str, Any]]:
        try:
            message = await bodies.request(
                self._peer,
                subject,
                body,
                wire.CallHeaders(),
                timeout_seconds=timeout_seconds,
                max_reply_bytes=MAX_REPLY_BYTES,
            )
        except Unreachable:
            if not self._peer.bus.is_connected:
                raise
            raise Unreachable(f"no node of lattice `{self._lattice}` answers") from None
        error = wire.decode_error(message.headers, message.data)
        if error is not None:
            return error, {}
        content_type = wire.content_type_of(message.headers)
        return None, wire.decode_message(message.data, content_type, max_bytes=MAX_REPLY_BYTES)


def _patience(operation: str) -> float:
    """How long to wait before another node is asked; what changes something is asked once."""
    if operation == "prepare":
        return PREPARE_SECONDS
    if operation in ("logs", "get.replicas", "get.jobs", "describe.node"):
        return GATHER_SECONDS
    is_question = "get" in operation.split(".") or operation.startswith("describe.")
    return READ_SECONDS if is_question else math.inf


def decoded(cls: type[V], data: Any) -> V:
    """A value of a node's answer; raises `Failed` when the answer is not what this version understands."""
    try:
        return cls.from_dict(data)
    except Invalid as error:
        raise Failed(
            f"the node's answer is not understood, is its version another?: {error.message}"
        ) from None


def decoded_list(cls: type[V], reply: Mapping[str, Any], field: str) -> list[V]:
    """The list of values in one field of a node's answer."""
    items = reply.get(field)
    if not isinstance(items, list):
        raise Failed(f"the node's answer lacks the list `{field}`: is its version another?")
    return [decoded(cls, item) for item in items]
