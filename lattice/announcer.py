"""What a node tells the lattice of itself: heartbeats, changes of its inventory, events; and what it answers.

A provider that runs as a process of its own is such a node, too, one without capacity.

The queue of announcements is bounded. While the bus is away they are dropped: a gap in the changes makes the
receivers fetch the whole inventory.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskGroup, TaskStatus

from lattice import subjects, wire
from lattice.assignments import Assignments
from lattice.bus import Bus, Message
from lattice.errors import Invalid, LatticeError
from lattice.inventory import Delta, Heartbeat, NodeInfo
from lattice.model import Application
from lattice.observer import ROLL_CALL, Observer, encode_value
from lattice.orders import CompileAhead, Order, OrderReply
from lattice.patterns import takes_replies
from lattice.state import HEARTBEAT_SECONDS

log = structlog.get_logger()

QUEUE_LENGTH = 10_000
ROLL_SECONDS = 0.1
"""Between two heartbeats that others ask for: many who begin to observe at once share one."""
COPIES_BYTES = 256 * 1024
"""Of copies in one message: far below what a message may have. One copy alone may be larger."""


class OrderTaker(Protocol):
    """What the controller's orders are for."""

    def order(self, order: Order) -> OrderReply:
        """Take or refuse an order; begins what it asks for and never waits."""

    def compile_ahead(self, component: str, digest: str) -> None:
        """Begin to make the component ready; never waits."""


class Announcer:
    """The mutable state is the count of heartbeats and the announcements under way."""

    def __init__(
        self,
        bus: Bus,
        lattice: str,
        info: NodeInfo,
        *,
        assignments: Assignments,
        observer: Observer,
        load: Callable[[], tuple[float, int]],
    ) -> None:
        """`load` gives the share of slots taken, and the calls in flight."""
        self._bus = bus
        self._lattice = lattice
        self._info = info
        self._assignments = assignments
        self._observer = observer
        self._load = load
        self._beat = 0
        self._beat_wanted = anyio.Event()
        self._limiter = anyio.CapacityLimiter(1)  # its own: a disk that is slow may keep all other threads
        self.is_draining = False
        self._send, self._receive = anyio.create_memory_object_stream[tuple[str, bytes]](QUEUE_LENGTH)

    def report(self, delta: Delta) -> None:
        """Tell all of a change of the inventory; never waits."""
        self._queue(subjects.delta(self._lattice, self._info.id), wire.encode_message(delta.to_dict()))

    def announce(self, event: str, details: Mapping[str, Any]) -> None:
        """Tell whoever listens of an event; never waits."""
        self._queue(*self._event(event, details))

    def _event(self, event: str, details: Mapping[str, Any]) -> tuple[str, bytes]:
        body = {
            "time": time.time(),
            "event": event,
            "node": self._info.id,
            "node_name": self._info.name,
            **details,
        }
        return subjects.event(self._lattice, event), wire.encode_message(body)

    def _queue(self, subject: str, data: bytes) -> None:
        try:
            self._send.send_nowait((subject, data))
        except anyio.WouldBlock:
            log.warning("announcement.dropped", subject=subject)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            log.debug("announcement.dropped", subject=subject, reason="the node ends")

    def close(self) -> None:
        """Drop what is not sent; for a node that ends before it ran."""
        self._send.close()
        self._receive.close()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Send announcements and heartbeats until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._publish_all)
            tasks.start_soon(self._beat_when_wanted)
            task_status.started()
            while True:
                await self.beat()
                await anyio.sleep(HEARTBEAT_SECONDS)

    async def beat(self, *, is_leaving: bool = False) -> None:
        """Send one heartbeat now."""
        memory_bytes = await to_thread.run_sync(_resident_bytes, limiter=self._limiter)
        self._beat += 1
        load, calls = self._load()
        heartbeat = Heartbeat(
            node=self._info.id,
            boot=self._info.boot,
            beat=self._beat,
            server_id=self._bus.server_id,
            client_id=self._bus.client_id,
            inventory=self._assignments.inventory,
            fence=self._assignments.fencing.highest,
            load=load,
            calls_in_flight=calls,
            replicas=self._assignments.replicas,
            memory_bytes=memory_bytes,
            is_draining=self.is_draining,
            is_leaving=is_leaving,
            copies=self._observer.state.desired.summary,
        )
        await self._publish(
            subjects.heartbeat(self._lattice, self._info.id), wire.encode_message(heartbeat.to_dict())
        )

    def beat_soon(self) -> None:
        """Send a heartbeat out of turn: somebody asked, or what it says has changed."""
        self._beat_wanted.set()

    async def _beat_when_wanted(self) -> None:
        while True:
            await self._beat_wanted.wait()
            self._beat_wanted = anyio.Event()
            await self.beat()
            await anyio.sleep(ROLL_SECONDS)

    async def _publish_all(self) -> None:
        with self._send, self._receive:
            async for subject, data in self._receive:
                await self._publish(subject, data)

    async def _publish(self, subject: str, data: bytes) -> None:
        try:
            await self._bus.publish(subject, data)
        except LatticeError as error:
            log.debug("announcement.dropped", subject=subject, reason=error.message)

    async def leave(self) -> None:
        """Say that this node ends, to nodes and to people; the last word. Nothing if it never spoke."""
        if self._beat:
            await self.beat(is_leaving=True)
            await self._publish(*self._event("node.left", {"boot": self._info.boot}))

    # What is asked of a node

    async def start(self, taker: OrderTaker, tasks: TaskGroup, stack: AsyncExitStack) -> None:
        """Answer orders, inventory requests and pings until `stack` is closed."""

        def orders(message: Message) -> dict[str, Any]:
            body = wire.decode_message(message.data)
            replies = [taker.order(Order.from_dict(item)) for item in body.get("orders", ())]
            for item in body.get("compile_ahead", ()):
                ahead = CompileAhead.from_dict(item)
                taker.compile_ahead(ahead.component, ahead.digest)
            return {"replies": [reply.to_dict() for reply in replies]}

        node = self._info.id
        handlers: Mapping[str, Callable[[Message], dict[str, Any]]] = {
            subjects.order(self._lattice, node): orders,
            subjects.inventory(self._lattice, node): self._inventory,
            subjects.ping(self._lattice, node): lambda message: {"boot": self._info.boot},
        }
        for subject, handler in handlers.items():

            def take(message: Message, handler: Callable[[Message], dict[str, Any]] = handler) -> None:
                if message.reply and takes_replies(message.reply):
                    headers, data = _answer(handler, message)
                    tasks.start_soon(self._reply, message.reply, data, headers)

            subscription = await self._bus.subscribe(subject, take)
            stack.push_async_callback(subscription.unsubscribe)
        roll_call = await self._bus.subscribe(
            subjects.event(self._lattice, ROLL_CALL), lambda message: self.beat_soon()
        )
        stack.push_async_callback(roll_call.unsubscribe)

    async def _reply(self, subject: str, data: bytes, headers: Mapping[str, str] | None) -> None:
        try:
            await self._bus.publish(subject, data, headers=headers)
        except LatticeError as error:
            log.debug("request.unanswered", reason=error.message)

    def _inventory(self, message: Message) -> dict[str, Any]:
        body = wire.decode_message(message.data)
        if "copies_from" in body:
            applications = list(self._observer.state.desired.applications.values())
            return _copies(applications, int(body["copies_from"]))
        pages = self._assignments.pages(self._info)
        page = int(body.get("page", 0))
        return pages[max(0, min(page, len(pages) - 1))].to_dict()


def _copies(applications: Sequence[Application], start: int) -> dict[str, Any]:
    found: list[bytes] = []
    size = 0
    for application in applications[max(start, 0) :]:
        copy = encode_value(application)
        if found and size + len(copy) > COPIES_BYTES:
            return {"applications": found, "next": max(start, 0) + len(found)}
        found.append(copy)
        size += len(copy)
    return {"applications": found, "next": None}


def _answer(
    handler: Callable[[Message], dict[str, Any]], message: Message
) -> tuple[Mapping[str, str] | None, bytes]:
    try:
        return None, wire.encode_message(handler(message))
    except LatticeError as error:
        return wire.encode_error(error)
    except (TypeError, ValueError, OverflowError) as error:
        return wire.encode_error(Invalid(f"the request is malformed: {error}"))


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
