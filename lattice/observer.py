"""Feeds a `LatticeState` from the bus: heartbeats, changes, advisories, the store's watch, and time.

Nodes have one, and so has any program that wants to see the lattice or to route its own calls. What the state
asks for in return (an inventory to fetch) is done here; all other effects go to the listeners, in order.

Error handling: what can't be decoded is logged and passed over; what can't be fetched is asked for again by
the state's next tick.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup, TaskStatus

from lattice import descriptions, subjects, wire
from lattice.bus import Bus, Disconnect, Entry, KeyValue, Message
from lattice.descriptions import Descriptions
from lattice.errors import Invalid, LatticeError
from lattice.fields import Value
from lattice.inventory import Delta, Heartbeat, InventoryPage
from lattice.model import Application, Marker
from lattice.state import (
    ConnectionEnded,
    Effect,
    Event,
    FetchInventory,
    LatticeState,
    NodeLeft,
    NodeUnresponsive,
    Tick,
)

log = structlog.get_logger()

TICK_SECONDS = 0.1
REQUEST_SECONDS = 2.0
APPLICATION_PREFIX = "app."
MARKER_KEY = "marker"
ROLL_CALL = "roll.called"
"""The event at which every node sends a heartbeat: who begins to observe need not wait for the next ones."""
ROLL_SECONDS = 0.5
"""How long the answers may take before an observer starts without them."""
HEARD_SECONDS = 0.3
"""After which all have answered who could: a heartbeat waits for the tenth of a second after the last one."""

EffectListener = Callable[[Effect], None]


def application_key(name: str) -> str:
    """The key of an application in the state bucket."""
    return APPLICATION_PREFIX + name


def encode_value(value: Value) -> bytes:
    """A value as it is stored: JSON, so that an operator can read it with any NATS client."""
    return json.dumps(value.to_dict(), separators=(",", ":"), ensure_ascii=False).encode()


def decode_application(data: bytes) -> Application:
    """The inverse of `encode_value`; raises `Invalid`."""
    return Application.from_dict(_json(data))


def decode_marker(data: bytes) -> Marker:
    """The inverse of `encode_value`; raises `Invalid`."""
    return Marker.from_dict(_json(data))


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"a value of the store is not JSON: {error}") from error


class Observer:
    """The mutable state is `state` and `descriptions`, which others only read, and how far the watch is."""

    def __init__(self, bus: Bus, lattice: str, state: LatticeState | None = None) -> None:
        self.state = state or LatticeState()
        self.descriptions = Descriptions()
        self.has_advisories = False
        """Whether the server tells of lost connections; if not, nodes ping each other."""
        self._bus = bus
        self._lattice = lattice
        self._listeners: list[EffectListener] = []
        self._store_lost: list[Callable[[], None]] = []
        self._tasks: TaskGroup | None = None
        self._marker_seen = False
        self._caught_up = anyio.Event()
        self._seen_changes = -1
        self._changed = anyio.Event()
        self._heard_at = math.inf

    def __repr__(self) -> str:
        return f"<Observer of {self._lattice!r} {self.state!r}>"

    @property
    def is_caught_up(self) -> bool:
        """Whether all that a whole store holds was read, so that what is unknown does not exist."""
        return self._caught_up.is_set() and self._marker_seen

    @property
    def has_heard_all(self) -> bool:
        """Whether, besides, all members had time to answer the roll: what nobody offers is not offered."""
        return self.is_caught_up and anyio.current_time() >= self._heard_at

    def on_effect(self, listener: EffectListener) -> None:
        """Call with every effect that is not an inventory to fetch."""
        self._listeners.append(listener)

    def on_store_lost(self, listener: Callable[[], None]) -> None:
        """Call when the watch was made anew and found a store without its marker."""
        self._store_lost.append(listener)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Observe until cancelled; started when the server has all subscriptions and the store was read."""
        async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
            self._tasks = tasks
            await self._subscribe(stack)
            store = await self._bus.key_value(subjects.state_bucket(self._lattice))
            await self._watch(store, stack)
            await self._caught_up.wait()
            await self._call_the_roll()
            task_status.started()
            was_connected = True
            while True:
                self.apply(Tick())
                if self._bus.is_connected and not was_connected:
                    await self._hear_all_again()
                was_connected = self._bus.is_connected
                await anyio.sleep(TICK_SECONDS)

    def apply(self, event: Event) -> None:
        """Take an event and do what it asks for."""
        self.handle(self.state.apply(event, anyio.current_time()))

    def handle(self, effects: Iterable[Effect]) -> None:
        """Do what the state asks for."""
        for effect in effects:
            if isinstance(effect, FetchInventory):
                assert self._tasks is not None
                self._tasks.start_soon(self._fetch_inventory, effect.node)
            else:
                for listener in self._listeners:
                    listener(effect)
        if self.state.changes != self._seen_changes:
            self._seen_changes = self.state.changes
            self._changed.set()
            self._changed = anyio.Event()

    async def wait_for_change(self) -> None:
        """Return after the next change of desired or observed state."""
        await self._changed.wait()

    async def wait_for(self, predicate: Callable[[LatticeState], bool]) -> None:
        """Return when the predicate holds; it is asked at each change."""
        while not predicate(self.state):
            await self._changed.wait()

    # Reports of nodes

    async def _subscribe(self, stack: AsyncExitStack) -> None:
        handlers: Mapping[str, Callable[[str, Mapping[str, Any]], None]] = {
            subjects.heartbeats(self._lattice): self._heartbeat,
            subjects.deltas(self._lattice): self._delta,
        }
        for subject, handler in handlers.items():
            subscription = await self._bus.subscribe(subject, _decoding(handler))
            stack.push_async_callback(subscription.unsubscribe)
        self.has_advisories = await self._bus.watch_disconnects(self._disconnected)

    def _heartbeat(self, speaker: str, body: Mapping[str, Any]) -> None:
        heartbeat = Heartbeat.from_dict(body)
        _check_speaker(speaker, heartbeat.node)
        self.apply(NodeLeft(heartbeat.node, heartbeat.boot) if heartbeat.is_leaving else heartbeat)

    def _delta(self, speaker: str, body: Mapping[str, Any]) -> None:
        delta = Delta.from_dict(body)
        _check_speaker(speaker, delta.node)
        self.apply(delta)

    async def _call_the_roll(self) -> None:
        """Have all nodes speak, and return when the inventories of the first are here or time is up."""
        self._heard_at = anyio.current_time() + HEARD_SECONDS
        await self._bus.publish(subjects.event(self._lattice, ROLL_CALL))
        await self._bus.flush()
        with anyio.move_on_after(ROLL_SECONDS):
            while not (self.state.observed.nodes and self.state.is_informed):
                await self._changed.wait()

    async def _hear_all_again(self) -> None:
        """After an absence all others look silent: their next heartbeats would take up to a second."""
        try:
            await self._bus.publish(subjects.event(self._lattice, ROLL_CALL))
        except LatticeError as error:
            log.debug("roll.not-called", reason=error.message)

    def _disconnected(self, disconnect: Disconnect) -> None:
        self.apply(ConnectionEnded(disconnect.server_id, disconnect.client_id))

    def node_unresponsive(self, node: str) -> None:
        """Nobody answers to the node's own subject, twice."""
        self.apply(NodeUnresponsive(node))

    async def _fetch_inventory(self, node: str) -> None:
        page, pages = 0, 1
        try:
            while page < pages:
                reply = await self._bus.request(
                    subjects.inventory(self._lattice, node),
                    wire.encode_message({"page": page}),
                    timeout_seconds=REQUEST_SECONDS,
                )
                found = InventoryPage.from_dict(wire.decode_message(reply.data))
                _check_speaker(node, found.info.id)
                self.apply(found)
                page, pages = page + 1, found.pages
        except LatticeError as error:
            log.debug("inventory.not-fetched", of=node, reason=error.message)

    # The store

    async def _watch(self, store: KeyValue, stack: AsyncExitStack) -> None:
        subscription = await store.watch(self._entry, on_restart=self._watch_restarted)
        stack.push_async_callback(subscription.unsubscribe)

    def _watch_restarted(self, is_lost: bool) -> None:
        log.info("store.watched-anew", lost=is_lost)
        self._marker_seen = False

    def _entry(self, entry: Entry | None) -> None:
        if entry is None:
            self._replayed()
            return
        if entry.value is None:
            return  # tombstones are values; a key that is gone says nothing
        try:
            if entry.key.startswith(APPLICATION_PREFIX):
                self.apply(decode_application(entry.value))
            elif entry.key.startswith(descriptions.KEY_PREFIX):
                self._describe(entry.value)
            elif entry.key == MARKER_KEY:
                decode_marker(entry.value)
                self._marker_seen = True
        except Invalid as error:
            log.warning("store.unreadable", key=entry.key, reason=error.message)

    def _describe(self, value: bytes) -> None:
        if self.descriptions.add(descriptions.decode(value)):
            self.state.desired.changes += 1  # imports became known: plan again

    def _replayed(self) -> None:
        self._caught_up.set()
        if not self._marker_seen:
            for listener in self._store_lost:
                listener()


def _decoding(handler: Callable[[str, Mapping[str, Any]], None]) -> Callable[[Message], None]:
    def handle(message: Message) -> None:
        speaker = message.subject.rpartition(".")[2]
        try:
            handler(speaker, wire.decode_message(message.data))
        except (Invalid, ValueError, TypeError) as error:
            log.warning("message.unreadable", subject=message.subject, reason=str(error))

    return handle


def _check_speaker(speaker: str, node: str) -> None:
    """Raise `Invalid` for what speaks of another node than the one whose own subject it came on.

    Who may publish on a node's subject is decided by the server's permissions; the body decides nothing.
    """
    if node != speaker:
        raise Invalid(f"node {speaker!r} speaks for another one, {node!r}")
