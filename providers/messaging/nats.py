"""`lattice:messaging/consumer` on NATS: publish and request, and publish with the acknowledgment of a stream.

Error handling: what the guest can do something about (not granted, nobody answers, too late, too large) is an
error of the interface. A connection that was lost meanwhile is a failure of the call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

from lattice.bus import Bus, Message
from lattice.errors import Denied, Invalid, LatticeError, NotFound, TimedOut, Unreachable
from lattice.tasks import own_task
from providers.messaging.grants import PublishGrant
from providers.provider import BoundLink, Provider, ProviderCall, ProviderFunction
from providers.registry import Kind, ProviderContext

INTERFACE = "lattice:messaging/consumer"
STORED_SECONDS = 5.0
SOURCE = "lattice-source"
TRACE = "traceparent"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagingSettings:
    """Of `messaging-nats`; nothing can be set: messages go over the node's own NATS."""


class MessagingNats(Provider):
    """Sends what links grant; holds no state."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._functions = {"publish": _answered(self._publish), "request": _answered(self._request)}

    def __repr__(self) -> str:
        return f"<MessagingNats over {self._bus!r}>"

    @property
    def interfaces(self) -> Mapping[str, Mapping[str, ProviderFunction]]:
        return {INTERFACE: self._functions}

    async def start(self) -> None:
        pass

    async def aclose(self) -> None:
        pass

    async def check(self) -> None:
        """The connection looks after itself, and calls tell at once when it is lost.

        To be unhealthy meanwhile would only keep calls away for a while after it is back.
        """

    async def check_link(self, link: BoundLink) -> None:
        PublishGrant.parse(link.configuration)

    async def bind(self, link: BoundLink) -> PublishGrant:
        return PublishGrant.parse(link.configuration)

    async def unbind(self, link: BoundLink, binding: PublishGrant) -> None:
        pass

    async def _publish(
        self,
        call: ProviderCall,
        subject: str,
        body: bytes,
        reply_to: str | None = None,
        replies: Sequence[str] = (),
    ) -> None:
        """`replies` are where the message that the guest handles asked for one; its node says so."""
        grant: PublishGrant = call.binding
        _check(subject, body, replies)
        grant.check(subject, replies)
        if reply_to is not None:
            grant.check(reply_to, replies)
        headers = _headers(call)
        if not grant.is_stored or subject in replies:
            await self._bus.publish(subject, body, headers=headers, reply=reply_to)
            return
        if reply_to is not None:
            raise Invalid("a message that a stream is to store can't ask for a reply")
        seconds = min(STORED_SECONDS, call.seconds_left)
        await self._bus.publish_stored(subject, body, headers=headers, timeout_seconds=seconds)

    async def _request(self, call: ProviderCall, subject: str, body: bytes, timeout_ms: int) -> Any:
        grant: PublishGrant = call.binding
        _check(subject, body, ())
        if not isinstance(timeout_ms, int) or timeout_ms < 0:
            raise Invalid(f"the timeout must be a number of milliseconds, not {timeout_ms!r}")
        grant.check(subject)
        seconds = min(timeout_ms / 1000, call.seconds_left)
        try:
            reply = await self._bus.request(subject, body, headers=_headers(call), timeout_seconds=seconds)
        except Unreachable:
            if not self._bus.is_connected:
                raise
            raise NotFound(f"nobody subscribes to {subject!r}") from None
        return _message(subject, reply)


def _message(subject: str, reply: Message) -> dict[str, Any]:
    return {"subject": subject, "body": reply.data, "reply-to": None}


def _headers(call: ProviderCall) -> dict[str, str]:
    headers = {SOURCE: call.link.source}
    if call.traceparent is not None:
        headers[TRACE] = call.traceparent
    return headers


def _check(subject: Any, body: Any, replies: Any) -> None:
    if not isinstance(subject, str) or not isinstance(body, bytes):
        raise Invalid("a message has a subject, which is text, and a body, which is bytes")
    if not isinstance(replies, Sequence) or not all(isinstance(item, str) for item in replies):
        raise Invalid("replies must be a list of subjects")


CASES: Mapping[type[LatticeError], str] = {
    Denied: "not-granted",
    Invalid: "invalid",
    NotFound: "nobody",
    TimedOut: "timed-out",
}


def _answered(function: Callable[..., Awaitable[Any]]) -> ProviderFunction:
    """Return `{"ok": value}` or `{"err": {case: text}}`, as values of a result are."""

    @wraps(function)
    async def answer(call: ProviderCall, *args: Any) -> Any:
        await own_task()
        try:
            return {"ok": await function(call, *args)}
        except LatticeError as error:
            if (case := CASES.get(type(error))) is None:
                raise
            return {"err": {case: error.message}}

    return answer


def _make(context: ProviderContext, settings: MessagingSettings) -> MessagingNats:
    return MessagingNats(context.bus)


KIND = Kind(
    name="messaging-nats",
    settings=MessagingSettings,
    make=_make,
    help="Messages over the node's NATS, to the subjects that a link grants.",
    is_default=True,
)
