"""Each node as a NATS micro service, so that `nats micro ls/info/stats` sees nodes and their calls.

The protocol is that of NATS ADR-32: requests on `$SRV.{PING,INFO,STATS}[.{name}[.{id}]]`, replies in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import structlog
from anyio.abc import TaskGroup

from lattice.bus import Bus, Message
from lattice.errors import LatticeError
from lattice.patterns import takes_replies

log = structlog.get_logger()

SERVICE_NAME = "lattice-node"
VERBS = ("PING", "INFO", "STATS")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatistics:
    """What the service tells of one component's calls on this node."""

    name: str
    subject: str
    requests: int
    errors: int
    last_error: str
    processing_seconds: float


class MicroService:
    """Answers discovery requests until its task group ends.

    `endpoints` is asked anew at each request: the mutable state is the replicas', not ours.
    """

    def __init__(
        self,
        *,
        node_id: str,
        version: str,
        metadata: Mapping[str, str],
        started: str,
        endpoints: Callable[[], Sequence[EndpointStatistics]],
    ) -> None:
        self._identity = {
            "name": SERVICE_NAME,
            "id": node_id,
            "version": version,
            "metadata": dict(metadata),
        }
        self._started = started
        self._endpoints = endpoints

    def reply(self, verb: str) -> dict[str, Any]:
        """The body of the reply to one request."""
        body: dict[str, Any] = {"type": f"io.nats.micro.v1.{verb.lower()}_response", **self._identity}
        if verb == "INFO":
            body["description"] = "A node of a lattice: runs WebAssembly components"
            body["endpoints"] = [
                {"name": item.name, "subject": item.subject, "queue_group": "", "metadata": {}}
                for item in self._endpoints()
            ]
        if verb == "STATS":
            body["started"] = self._started
            body["endpoints"] = [_statistics(item) for item in self._endpoints()]
        return body

    async def start(self, bus: Bus, tasks: TaskGroup, stack: AsyncExitStack) -> None:
        """Subscribe to all discovery subjects; replies are sent from `tasks`."""
        node_id = self._identity["id"]
        for verb in VERBS:

            def answer(message: Message, verb: str = verb) -> None:
                if message.reply and takes_replies(message.reply):
                    tasks.start_soon(_publish, bus, message.reply, json.dumps(self.reply(verb)).encode())

            for suffix in ("", f".{SERVICE_NAME}", f".{SERVICE_NAME}.{node_id}"):
                subscription = await bus.subscribe(f"$SRV.{verb}{suffix}", answer)
                stack.push_async_callback(subscription.unsubscribe)


async def _publish(bus: Bus, subject: str, data: bytes) -> None:
    try:
        await bus.publish(subject, data)
    except LatticeError as error:  # anybody can ask, with any reply subject, and the bus may be away
        log.debug("discovery.unanswered", reason=error.message)


def _statistics(item: EndpointStatistics) -> dict[str, Any]:
    nanoseconds = int(item.processing_seconds * 1e9)
    return {
        "name": item.name,
        "subject": item.subject,
        "queue_group": "",
        "num_requests": item.requests,
        "num_errors": item.errors,
        "last_error": item.last_error,
        "processing_time": nanoseconds,
        "average_processing_time": nanoseconds // item.requests if item.requests else 0,
    }
