"""Calls of a client: what may be repeated, and the way over the component's subject.

A one-shot client publishes to the component's subject; the node that gets the call routes it. A long-lived
program that wants to route by itself gives `ControlClient` another `Caller`.
"""

from __future__ import annotations

import contextlib
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import anyio

from ctl.functions import Function
from lattice import bodies, subjects, wire
from lattice.bus import Bus, Message
from lattice.caller import CANCEL_SECONDS, new_call_id
from lattice.errors import Interrupted, LatticeError, TimedOut

FIRST_DELAY_SECONDS = 0.02
MAX_DELAY_SECONDS = 0.5
REPLY_SECONDS = 0.1
"""How long after the end of the budget the callee's own `timed-out`, which says more, may take to arrive."""
MAX_RESULT_BYTES = 128 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """How a call is made."""

    budget_seconds: float = 30.0
    """Time for the call with all its repetitions."""
    idempotent: bool = False
    """Whether it may be repeated when it may have begun."""
    node: str | None = None
    """Id of the node to enter at; any when None."""
    traceparent: str | None = None


class Caller(Protocol):
    """Carries a call whose arguments were checked; returns the value as it came, raises `LatticeError`."""

    async def call(self, function: Function, args: Sequence[Any], options: CallOptions) -> Any: ...


class SubjectCaller:
    """Calls over the component's subject, or a node's, and repeats what may be repeated."""

    def __init__(self, bus: Bus, lattice: str) -> None:
        self._peer = bodies.Peer(bus=bus, lattice=lattice, owner=secrets.token_hex(8))
        self._lattice = lattice

    async def call(self, function: Function, args: Sequence[Any], options: CallOptions) -> Any:
        body = wire.encode_arguments(args)
        deadline = anyio.current_time() + options.budget_seconds
        attempt, call_id = 0, new_call_id()
        while True:
            attempt += 1
            left = deadline - anyio.current_time()
            try:
                return _result(function, await self._attempt(function, body, options, call_id, attempt, left))
            except anyio.get_cancelled_exc_class():
                await self._cancel(call_id)
                raise
            except LatticeError as error:
                delay = retry_delay(attempt, random.random())
                if not may_repeat(error, options) or anyio.current_time() + delay >= deadline:
                    raise
                last = error
            await anyio.sleep(delay)
            if anyio.current_time() >= deadline:  # this machine has woken us late
                raise last

    async def _cancel(self, call_id: str) -> None:
        """Tell all nodes, as it is not known which one took the call."""
        body = wire.encode_message({"call_id": call_id, "origin": self._peer.owner})
        with anyio.move_on_after(CANCEL_SECONDS, shield=True), contextlib.suppress(LatticeError):
            await self._peer.bus.publish(subjects.cancel(self._lattice), body)

    async def _attempt(
        self,
        function: Function,
        body: bytes,
        options: CallOptions,
        call_id: str,
        attempt: int,
        left_seconds: float,
    ) -> Message:
        headers = wire.CallHeaders(
            budget_ms=max(1, int(left_seconds * 1000)),
            idempotent=options.idempotent,
            traceparent=options.traceparent,
            attempt=min(attempt, wire.MAX_ATTEMPT),
            call_id=call_id,
            origin=self._peer.owner,
        )
        subject = self._subject(function, options.node)
        try:
            reply = await bodies.request(
                self._peer,
                subject,
                body,
                headers,
                timeout_seconds=left_seconds + REPLY_SECONDS,
                max_reply_bytes=MAX_RESULT_BYTES,
            )
        except TimedOut:  # the bus names the subject; a person wants to know which call
            raise TimedOut(
                f"`{function.component}` did not answer `{function.name}` within {options.budget_seconds:g} s"
            ) from None
        error = wire.decode_error(reply.headers, reply.data)
        if error is not None:
            raise error
        return reply

    def _subject(self, function: Function, node: str | None) -> str:
        names = (function.component, function.interface, function.name)
        return (
            subjects.node_call(self._lattice, node, *names) if node else subjects.call(self._lattice, *names)
        )


def may_repeat(error: LatticeError, options: CallOptions) -> bool:
    """Whether the call surely has not begun, or does no harm when made twice."""
    return error.is_retryable or (options.idempotent and isinstance(error, Interrupted))


def retry_delay(attempt: int, chance: float) -> float:
    """Seconds before the next attempt: doubling to a limit; `chance` (0 to 1) keeps callers apart."""
    delay = min(FIRST_DELAY_SECONDS * 2.0 ** min(attempt - 1, 10), MAX_DELAY_SECONDS)
    return delay * (0.5 + chance / 2)


def _result(function: Function, reply: Message) -> Any:
    content_type = wire.content_type_of(reply.headers)
    return wire.decode_result(function.type, reply.data, content_type, max_bytes=MAX_RESULT_BYTES)
