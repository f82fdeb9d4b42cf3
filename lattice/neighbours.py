"""Notices the death of nodes where the server does not tell: each node pings the next two in a ring of all.

"No responders" twice in a row counts as the end of the node's connection. The finder tells all others, who
ping the node themselves before they believe it: nobody can talk a living node away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup, TaskStatus

from lattice import subjects, wire
from lattice.bus import Bus, Message
from lattice.errors import LatticeError, Unreachable
from lattice.observer import Observer

log = structlog.get_logger()

PING_SECONDS = 0.2
NEIGHBOURS = 2
MISSES = 2
SUSPECTED = "node.suspected"


def neighbours(node: str, live: list[str]) -> list[str]:
    """The nodes that follow this one in the ring of all live nodes."""
    ring = sorted({*live, node})
    place = ring.index(node)
    following = ring[place + 1 :] + ring[:place]
    return following[:NEIGHBOURS]


class Neighbours:
    """The mutable state is the nodes that are being checked because another node suspects them."""

    def __init__(self, bus: Bus, lattice: str, node: str | None, observer: Observer) -> None:
        """A program that is no node (None) only checks what nodes suspect."""
        self._bus = bus
        self._lattice = lattice
        self._node = node
        self._observer = observer
        self._checking: set[str] = set()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Ping until cancelled; does nothing but wait where the server tells of lost connections."""
        if self._observer.has_advisories:
            task_status.started()
            return
        async with anyio.create_task_group() as tasks:
            subscription = await self._bus.subscribe(
                subjects.event(self._lattice, SUSPECTED), lambda message: self._told(message, tasks)
            )
            try:
                task_status.started()
                while True:
                    for node in neighbours(self._node, self._live()) if self._node else ():
                        self._check_soon(node, tasks, tells=True)
                    await anyio.sleep(PING_SECONDS)
            finally:
                with anyio.move_on_after(1, shield=True):
                    await subscription.unsubscribe()

    def _live(self) -> list[str]:
        return [view.id for view in self._observer.state.observed.live() if view.is_callable]

    def _told(self, message: Message, tasks: TaskGroup) -> None:
        try:
            body: Mapping[str, Any] = wire.decode_message(message.data)
        except LatticeError:
            return
        node = body.get("node")
        if isinstance(node, str) and node in self._live():
            self._check_soon(node, tasks, tells=False)

    def _check_soon(self, node: str, tasks: TaskGroup, *, tells: bool) -> None:
        if node not in self._checking:
            self._checking.add(node)
            tasks.start_soon(self._check, node, tells)

    async def _check(self, node: str, tells: bool) -> None:
        try:
            for attempt in range(MISSES):
                if attempt:
                    await anyio.sleep(PING_SECONDS / 2)
                if not await self._is_gone(node):
                    return
            log.warning("node.unresponsive", of=node)
            self._observer.node_unresponsive(node)
            if tells:
                body = wire.encode_message({"event": SUSPECTED, "node": node})
                await self._bus.publish(subjects.event(self._lattice, SUSPECTED), body)
        except LatticeError as error:
            log.debug("node.not-pinged", of=node, reason=error.message)
        finally:
            self._checking.discard(node)

    async def _is_gone(self, node: str) -> bool:
        """Only "no responders" counts: a node that is slow to answer may be busy, and its heartbeats tell."""
        if not self._bus.is_connected:
            return False
        try:
            await self._bus.request(subjects.ping(self._lattice, node), timeout_seconds=1.0)
        except Unreachable:
            return self._bus.is_connected
        except LatticeError:
            return False
        return False
