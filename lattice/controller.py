"""The controller: drives `Leadership` over the bus. Every node that may lead runs one.

All decisions are made by `lattice.leadership`; here its actions are done and their answers handed back. An
action that fails is answered as failed or not at all: the leadership asks again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from itertools import groupby
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup, TaskStatus

from lattice import leadership as lead
from lattice import subjects, wire
from lattice.bus import Bus, Entry, KeyValue
from lattice.errors import Conflict, Invalid, LatticeError
from lattice.imports import Catalog
from lattice.leadership import Leadership
from lattice.lease import ReadLease, WriteLease
from lattice.model import Application, LeaseValue, Marker
from lattice.observer import (
    APPLICATION_PREFIX,
    MARKER_KEY,
    Observer,
    application_key,
    decode_application,
    decode_marker,
    encode_value,
)
from lattice.orders import Command, Order, OrderReply
from lattice.recovery import FetchCopies, ReadStore, Stored, WriteApplication, WriteMarker

log = structlog.get_logger()

TURN_SECONDS = 0.1
ABSENCE_SECONDS = 1.0
"""After which the bus was away for so long that nodes look silent that only could not be heard."""
HEARING_SECONDS = 1.2
"""How long all nodes have, after such an absence, to be heard before anything is decided about them."""
BURST_SECONDS = 0.01
"""Changes come in bursts, when a node dies or many replicas start; one plan answers them all."""
LEASE_KEY = "lease"
ORDER_SECONDS = 2.0
COPIES_SECONDS = 1.0
MESSAGE_BYTES = 256 * 1024
"""Of orders in one message: far below what a message may have. One order alone may be larger."""

Announce = Callable[[str, Mapping[str, Any]], None]


class Controller:
    """The mutable state is the leadership's; it changes only in `_handle`."""

    def __init__(
        self,
        bus: Bus,
        lattice: str,
        node: str,
        observer: Observer,
        *,
        catalog: Callable[[], Catalog],
        announce: Announce,
    ) -> None:
        self._bus = bus
        self._lattice = lattice
        self._node = node
        self._observer = observer
        self._announce = announce
        self._leadership = Leadership(node, observer.state, catalog=catalog)
        self._tasks: TaskGroup | None = None
        self._state_store: KeyValue | None = None
        self._lease_store: KeyValue | None = None
        self._actions: Mapping[type, Callable[[Any], Any]] = {
            ReadLease: self._read_lease,
            WriteLease: self._write_lease,
            ReadStore: self._read_store,
            FetchCopies: self._fetch_copies,
            WriteApplication: self._write_application,
            WriteMarker: self._write_marker,
            lead.SendCommands: self._send_commands,
            lead.RemoveTombstone: self._remove_tombstone,
        }

    def __repr__(self) -> str:
        return f"<Controller {self._leadership!r}>"

    @property
    def holder(self) -> str | None:
        """The node that leads, as far as this one knows."""
        return self._leadership.controller

    @property
    def is_leading(self) -> bool:
        """Whether this node may command."""
        return self._leadership.is_leading(anyio.current_time())

    async def run(
        self, *, is_candidate: bool = True, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Take part in leading until cancelled; a node that is no candidate only watches the lease."""
        self._leadership.is_candidate = is_candidate
        self._state_store = await self._bus.key_value(subjects.state_bucket(self._lattice))
        self._lease_store = await self._bus.key_value(subjects.lease_bucket(self._lattice))
        async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
            self._tasks = tasks
            subscription = await self._lease_store.watch(self._lease_seen)
            stack.push_async_callback(subscription.unsubscribe)
            self._observer.on_store_lost(lambda: self._handle(lead.StoreLost()))
            task_status.started()
            while True:
                await self._hear_all_after_an_absence()
                self._handle(lead.Turn(now_ms=time.time_ns() // 1_000_000))
                with anyio.move_on_after(TURN_SECONDS):
                    await self._observer.wait_for_change()
                    await anyio.sleep(BURST_SECONDS)

    async def _hear_all_after_an_absence(self) -> None:
        began = anyio.current_time()
        while not self._bus.is_connected:  # noqa: ASYNC110 - asked at the pace of turns
            await anyio.sleep(TURN_SECONDS)
        if anyio.current_time() - began > ABSENCE_SECONDS:
            await anyio.sleep(HEARING_SECONDS)

    async def resign(self) -> None:
        """Neither take nor keep the lease from now on; another node takes it at once."""
        for action in self._leadership.resign(anyio.current_time()):
            if isinstance(action, WriteLease):
                await self._write_lease(action)
            else:
                self._do([action])

    def _handle(self, event: lead.Event) -> None:
        self._do(self._leadership.handle(event, anyio.current_time()))

    def _do(self, actions: Iterable[lead.Action]) -> None:
        assert self._tasks is not None
        for action in actions:
            if perform := self._actions.get(type(action)):
                self._tasks.start_soon(perform, action)
            elif isinstance(action, lead.LeadershipChanged):
                self._leadership_changed(action)
            else:
                self._observer.handle([action])  # type: ignore[list-item]  # what is left are effects

    def _leadership_changed(self, change: lead.LeadershipChanged) -> None:
        log.info("controller.elected" if change.is_leading else "controller.resigned", fence=change.fence)
        if change.is_leading:
            self._announce("controller.elected", {"node": self._node, "fence": change.fence})

    # The lease

    def _lease_seen(self, entry: Entry | None) -> None:
        if entry is not None and entry.key == LEASE_KEY:
            self._handle(lead.LeaseSeen(_lease(entry), entry.revision))

    async def _read_lease(self, action: ReadLease) -> None:
        assert self._lease_store is not None
        try:
            entry = await self._lease_store.get(LEASE_KEY)
        except LatticeError as error:
            log.debug("lease.unreadable", reason=error.message)
            return
        self._handle(lead.LeaseRead(_lease(entry), entry.revision if entry else 0))

    async def _write_lease(self, action: WriteLease) -> None:
        try:
            revision = await _compare_and_set(
                self._lease_store, LEASE_KEY, encode_value(action.value), action.revision
            )
        except Conflict:
            self._handle(lead.LeaseRefused(action))
        except LatticeError:
            self._handle(lead.LeaseUnknown(action))
        else:
            self._handle(lead.LeaseWritten(action, revision))

    # Desired state

    async def _read_store(self, action: ReadStore) -> None:
        assert self._state_store is not None
        try:
            entries = await self._state_store.entries()
        except LatticeError as error:
            log.warning("store.unreachable", reason=error.message)
            self._handle(lead.StoreFailed())
            return
        self._handle(lead.StoreRead(*_stored(entries)))

    async def _write_application(self, action: WriteApplication) -> None:
        application = action.application
        key = application_key(application.name)
        try:
            await _compare_and_set(self._state_store, key, encode_value(application), action.revision)
            is_written = True
        except LatticeError as error:
            log.warning("store.not-written", key=key, reason=error.message)
            is_written = False
        self._handle(lead.ApplicationWritten(application.name, is_written))

    async def _write_marker(self, action: WriteMarker) -> None:
        assert self._state_store is not None
        try:
            await self._state_store.create(MARKER_KEY, encode_value(action.marker))
            is_written = True
        except Conflict:
            is_written = True
        except LatticeError:
            is_written = False
        self._handle(lead.MarkerWritten(is_written))

    async def _remove_tombstone(self, action: lead.RemoveTombstone) -> None:
        assert self._state_store is not None
        if not action.in_store:
            return
        key = application_key(action.application.name)
        try:
            entry = await self._state_store.get(key)
            if entry and entry.value and decode_application(entry.value) == action.application:
                await self._state_store.delete(key, revision=entry.revision)
        except LatticeError as error:
            log.debug("tombstone.not-removed", key=key, reason=error.message)

    async def _fetch_copies(self, action: FetchCopies) -> None:
        found: list[Application] = []
        start: int | None = 0
        try:
            while start is not None:
                reply = await self._bus.request(
                    subjects.inventory(self._lattice, action.node),
                    wire.encode_message({"copies_from": start}),
                    timeout_seconds=COPIES_SECONDS,
                )
                body = wire.decode_message(reply.data)
                found += [decode_application(item) for item in body["applications"]]
                start = _next_page(start, body.get("next"))
        except (LatticeError, KeyError, TypeError) as error:
            log.debug("copies.not-fetched", of=action.node, reason=str(error))
            return
        self._handle(lead.CopiesReceived(action.node, tuple(found)))

    # Commands

    async def _send_commands(self, action: lead.SendCommands) -> None:
        assert self._tasks is not None
        by_node = sorted(action.commands, key=lambda command: command.node)
        for node, commands in groupby(by_node, key=lambda command: command.node):
            for body in _order_bodies(commands):
                self._tasks.start_soon(self._send_to, node, body)

    async def _send_to(self, node: str, body: bytes) -> None:
        try:
            reply = await self._bus.request(
                subjects.order(self._lattice, node), body, timeout_seconds=ORDER_SECONDS
            )
            replies = wire.decode_message(reply.data).get("replies", [])
            answers = [OrderReply.from_dict(item) for item in replies]
        except (LatticeError, TypeError) as error:
            log.info("order.unanswered", to=node, reason=str(error))
            return
        for answer in answers:
            if not answer.is_accepted:
                log.warning("order.refused", to=node, reason=answer.reason)
            self._handle(lead.OrderAnswered(answer))


def _order_bodies(commands: Iterable[Command]) -> Iterator[bytes]:
    """The commands of one node in as few messages as their size allows."""
    size, body = 0, _order_body()
    for command in commands:
        fields = command.to_dict()
        length = len(wire.encode(fields))
        if size and size + length > MESSAGE_BYTES:
            yield wire.encode_message(body)
            size, body = 0, _order_body()
        body["orders" if isinstance(command, Order) else "compile_ahead"].append(fields)
        size += length
    yield wire.encode_message(body)


def _order_body() -> dict[str, list[dict[str, Any]]]:
    return {"orders": [], "compile_ahead": []}


async def _compare_and_set(store: KeyValue | None, key: str, value: bytes, revision: int | None) -> int:
    assert store is not None
    return await (store.create(key, value) if revision is None else store.update(key, value, revision))


def _next_page(start: int, following: int | None) -> int | None:
    if following is not None and following <= start:
        raise Invalid(f"after page {start} comes {following}, which would never end")
    return following


def _lease(entry: Entry | None) -> LeaseValue | None:
    if entry is None or entry.value is None:
        return None
    try:
        return LeaseValue.from_dict(wire.decode_json(entry.value))
    except Invalid as error:
        log.warning("lease.unreadable", reason=error.message)
        return None


def _stored(entries: Iterable[Entry]) -> tuple[dict[str, Stored], Marker | None]:
    applications: dict[str, Stored] = {}
    marker: Marker | None = None
    for entry in entries:
        if entry.value is None:
            continue
        try:
            if entry.key.startswith(APPLICATION_PREFIX):
                application = decode_application(entry.value)
                applications[application.name] = Stored(application, entry.revision)
            elif entry.key == MARKER_KEY:
                marker = decode_marker(entry.value)
        except Invalid as error:
            log.warning("store.unreadable", key=entry.key, reason=error.message)
    return applications, marker
