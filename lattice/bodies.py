"""Requests and replies of any size: in one message where they fit, else with the body as a byte stream.

The caller announces a streamed request in `lattice-request-stream` and the callee gives it credit; the callee
announces a streamed reply in `lattice-reply-stream`, only to callers that said `lattice-accept-stream`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import anyio
from anyio import to_thread

from lattice import streams, subjects, wire
from lattice.bus import Bus, Message
from lattice.errors import Invalid, LatticeError, TimedOut
from lattice.streams import DEFAULT_SETTINGS, StreamSettings
from lattice.tasks import own_task

HEADER_ROOM_BYTES = 4096
"""Kept free in each message for its headers, which count as payload."""

HEAVY_BYTES = 64 * 1024
"""A body above this is coded on a thread: a million numbers take a tenth of a second."""

Coded = TypeVar("Coded")


async def coded(size: int, work: Callable[[], Coded]) -> Coded:
    """What `work` makes of, or into, a body of so many bytes; the event loop goes on meanwhile."""
    if size <= HEAVY_BYTES:
        return work()
    await own_task()
    return await to_thread.run_sync(work)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who sends and receives bodies: a connection, its lattice, and the id that owns its ends of streams."""

    bus: Bus
    lattice: str
    owner: str
    settings: StreamSettings = DEFAULT_SETTINGS

    def fits(self, body: bytes) -> bool:
        """Whether the body goes into one message."""
        return len(body) <= self.bus.max_payload - HEADER_ROOM_BYTES


async def request(
    peer: Peer,
    subject: str,
    body: bytes,
    call: wire.CallHeaders,
    *,
    timeout_seconds: float,
    max_reply_bytes: int = wire.MAX_BODY_BYTES,
) -> Message:
    """Send a request and return the reply with its whole body, whether or not they came as streams.

    Raises what `Bus.request` raises, what ends a stream, and `TimedOut` when all of it took too long. An
    error of the callee is returned as a message: `wire.decode_error` reads it.
    """
    call = replace(call, accepts_stream=True)
    try:
        with anyio.fail_after(timeout_seconds):
            if peer.fits(body):
                headers = wire.header_block(call)
                reply = await peer.bus.request(
                    subject, body, headers=headers, timeout_seconds=timeout_seconds
                )
            else:
                reply = await _request_streamed(peer, subject, body, call, timeout_seconds)
            return await whole_reply(peer, reply, max_reply_bytes)
    except TimeoutError:
        raise TimedOut(f"no whole reply within {timeout_seconds:g} s") from None


async def whole_reply(peer: Peer, reply: Message, max_bytes: int) -> Message:
    """The reply with its body, received as a stream if it came as one."""
    stream = wire.reply_stream_of(reply.headers)
    if stream is None:
        return reply
    return replace(reply, data=await _receive(peer, stream, max_bytes))


async def request_body(peer: Peer, call: wire.CallHeaders, data: bytes, *, max_bytes: int) -> bytes:
    """The body of a request that came: `data`, or what its stream brings. `Invalid` above the limit."""
    if call.request_stream is None:
        if len(data) > max_bytes:
            raise Invalid(f"the body has {len(data)} bytes, the limit is {max_bytes}")
        return data
    return await _receive(peer, call.request_stream, max_bytes)


def reply(
    peer: Peer,
    subject: str,
    body: bytes,
    call: wire.CallHeaders,
    *,
    body_stream: wire.StreamId | None = None,
) -> Coroutine[Any, Any, None]:
    """Answer a request; returns when all of the body is sent. `body_stream` comes beside it.

    A result that needs a stream which the caller can't take is answered by `invalid`.
    """
    if peer.fits(body):
        headers = wire.reply_headers(call.content_type, body_stream=body_stream)
        return peer.bus.publish(subject, body, headers=headers, reply=_credit_subject(peer, body_stream))
    if not call.accepts_stream:
        return reply_error(peer, subject, _too_large(peer, body), call.content_type)
    return _reply_streamed(peer, subject, body, call, body_stream)


async def _reply_streamed(
    peer: Peer, subject: str, body: bytes, call: wire.CallHeaders, body_stream: wire.StreamId | None
) -> None:
    await own_task()
    stream = streams.new_stream_id(peer.owner)
    async with await streams.open_sender(peer.bus, peer.lattice, stream, peer.settings) as sender:
        headers = wire.reply_headers(call.content_type, stream, body_stream)
        await peer.bus.publish(subject, headers=headers, reply=_credit_subject(peer, stream))
        await streams.send_body(sender, body)


def _credit_subject(peer: Peer, stream: wire.StreamId | None) -> str | None:
    """As a reply subject it has the server say, to the end that would wait for credit, that nobody waits."""
    return None if stream is None else subjects.stream_credit(peer.lattice, stream.owner, stream.stream)


async def reply_error(
    peer: Peer, subject: str, error: LatticeError, content_type: str = wire.MSGPACK
) -> None:
    """Answer a request by an error."""
    headers, body = wire.encode_error(error, content_type)
    await peer.bus.publish(subject, body, headers=headers)


async def _request_streamed(
    peer: Peer, subject: str, body: bytes, call: wire.CallHeaders, timeout_seconds: float
) -> Message:
    stream = streams.new_stream_id(peer.owner)
    headers = wire.header_block(replace(call, request_stream=stream))
    async with await streams.open_sender(peer.bus, peer.lattice, stream, peer.settings) as sender:
        async with anyio.create_task_group() as group:
            group.start_soon(_send, sender, body)
            found: Message | LatticeError
            try:
                found = await peer.bus.request(subject, headers=headers, timeout_seconds=timeout_seconds)
            except LatticeError as error:
                found = error  # raised outside, where no task group wraps it
            group.cancel_scope.cancel()
        if isinstance(found, LatticeError):
            raise found
        return found


async def _send(sender: streams.ByteSender, body: bytes) -> None:
    with contextlib.suppress(LatticeError):  # the reply says why the callee wanted no more
        await streams.send_body(sender, body)


async def _receive(peer: Peer, stream: wire.StreamId, max_bytes: int) -> bytes:
    await own_task()
    opened = await streams.open_receiver(peer.bus, peer.lattice, peer.owner, stream, peer.settings)
    async with opened as receiver:
        return await streams.receive_body(receiver, max_bytes=max_bytes)


def _too_large(peer: Peer, body: bytes) -> Invalid:
    return Invalid(
        f"the result has {len(body)} bytes, one message carries {peer.bus.max_payload}: "
        "call with the header `lattice-accept-stream: true` and read it as a stream"
    )
