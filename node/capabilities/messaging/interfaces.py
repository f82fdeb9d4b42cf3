"""`wasmcloud:messaging/consumer` 0.2.0: publish and request, over the guest's links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lattice.errors import LatticeError
from node.capabilities.messaging.replies import Replies
from node.engine.host import GuestCall, HostInterface

PACKAGE = "wasmcloud:messaging"
VERSION = "0.2.0"
INTERFACE = f"{PACKAGE}/consumer"
FLAT = "lattice:messaging/consumer"

SUPPORT: Mapping[str, str] = {
    "wasmcloud:messaging/types": "0.2.0: all",
    "wasmcloud:messaging/consumer": "0.2.0: all",
    "wasmcloud:messaging/handler": "0.2.0: all; called by triggers of kind `messaging`",
}
"""How far each interface goes, in words for a table."""


def is_builtin(interface: str) -> bool:
    """Whether an import of this full name is served without a link: types alone do nothing."""
    return interface == f"{PACKAGE}/types@{VERSION}"


class LinkedCalls(Protocol):
    """What is needed of the node's links; see `node.links.Links`."""

    async def call(
        self,
        call: GuestCall,
        *,
        interface: str,
        function: tuple[str, str],
        args: Sequence[Any],
        idempotent: bool = False,
    ) -> Any: ...


def messaging_interfaces(links: LinkedCalls, replies: Replies) -> tuple[HostInterface, ...]:
    """What guests may import of the package: `consumer` if they have a link, `types` in any case."""

    async def publish(call: GuestCall, message: Mapping[str, Any]) -> Any:
        args = [message["subject"], message["body"], message["reply-to"], replies.of(call)]
        return await _ask(links, call, "publish", args)

    async def request(call: GuestCall, subject: str, body: bytes, timeout_ms: int) -> Any:
        return await _ask(links, call, "request", [subject, body, timeout_ms])

    return (
        HostInterface(name=f"{PACKAGE}/types@{VERSION}", functions={}),
        HostInterface(
            name=f"{PACKAGE}/consumer@{VERSION}", functions={"publish": publish, "request": request}
        ),
    )


async def _ask(links: LinkedCalls, call: GuestCall, function: str, args: list[Any]) -> Any:
    """The provider's result; its errors, and those of the way to it, are texts for the guest."""
    try:
        answer = await links.call(call, interface=INTERFACE, function=(FLAT, function), args=args)
    except LatticeError as error:
        return {"err": error.message}
    if isinstance(answer, dict) and "ok" in answer:
        return answer
    refusal = answer.get("err") if isinstance(answer, dict) else None
    text = next(iter(refusal.values())) if isinstance(refusal, dict) and refusal else None
    return {"err": str(text or "the provider gave an answer that is none")}
