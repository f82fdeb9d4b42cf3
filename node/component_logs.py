"""What guests print: to this node's log, to whoever follows, and the last lines kept.

The engine has limited the rate already; the queue to the bus is bounded as well.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Container, Mapping
from typing import Any

import anyio
import structlog
from anyio.abc import TaskStatus

from lattice import subjects, wire
from lattice.bus import Bus
from lattice.errors import LatticeError
from node.engine.host import GuestCall

log = structlog.get_logger()

KEPT_LINES = 1000
"""Of each component on this node."""
QUEUE_LINES = 4096
MAX_LINE = 8 * 1024
LEVELS: Mapping[str, str] = {
    "trace": "debug",
    "debug": "debug",
    "info": "info",
    "warn": "warning",
    "error": "error",
    "critical": "critical",
}
"""The level in this node's log for each of `wasi:logging`."""


class ComponentLogs:
    """The mutable state is the kept lines by component, and the lines on their way to the bus."""

    def __init__(self, bus: Bus, lattice: str, node_name: str) -> None:
        self._bus = bus
        self._lattice = lattice
        self._node_name = node_name
        self._kept: dict[str, deque[dict[str, Any]]] = {}
        self._is_kept: Callable[[str], bool] = lambda name: False
        self._send, self._receive = anyio.create_memory_object_stream[tuple[str, dict[str, Any]]](QUEUE_LINES)

    def forget_all_but(self, components: Container[str]) -> None:
        """Drop what is kept of components that are no more."""
        self._kept = {
            name: lines for name, lines in self._kept.items() if name in components or self._is_kept(name)
        }

    def also_keep(self, is_kept: Callable[[str], bool]) -> None:
        """Keep the lines of what is no component, as long as it says so: jobs."""
        self._is_kept = is_kept

    def sink(self, call: GuestCall, stream: str, data: bytes) -> None:
        """Take what a guest wrote; called by the engine, never waits."""
        kept = self._kept.setdefault(call.component, deque(maxlen=KEPT_LINES))
        level, _, context = stream.partition(" ")
        for raw in data.splitlines():
            text = raw[:MAX_LINE].decode("utf-8", "replace")
            line = {
                "time": time.time(),
                "node": self._node_name,
                "stream": level,
                "context": context,
                "text": text,
                "call_id": call.call_id,
            }
            kept.append(line)
            _write(call, stream, text)
            try:
                self._send.send_nowait((call.component, line))
            except (anyio.WouldBlock, anyio.ClosedResourceError, anyio.BrokenResourceError):
                continue  # whoever follows misses a line; it is still kept

    def lines(self, component: str, count: int) -> list[Mapping[str, Any]]:
        """The last lines of a component on this node, oldest first."""
        kept: list[Mapping[str, Any]] = list(self._kept.get(component, ()))
        return kept[-count:] if count > 0 else []

    def close(self) -> None:
        """Drop what is not sent; for a node that ends before it ran."""
        self._send.close()
        self._receive.close()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Publish lines until cancelled; while the bus is away they are only kept."""
        task_status.started()
        with self._send, self._receive:
            async for component, line in self._receive:
                try:
                    await self._bus.publish(subjects.log(self._lattice, component), wire.encode_message(line))
                except LatticeError:
                    continue


def _write(call: GuestCall, stream: str, text: str) -> None:
    """To this node's own log."""
    level, _, context = stream.partition(" ")
    who = {"component": call.component, "call_id": call.call_id}
    if level in LEVELS:
        method = getattr(log, LEVELS[level])
        method("guest.logged", **who, guest_level=level, context=context, text=text)
    else:
        log.info("guest.printed", **who, stream=stream, text=text)
