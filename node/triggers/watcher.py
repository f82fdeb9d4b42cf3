"""Key-value triggers: a component's `wasi:keyvalue/watcher` is called with each change in a bucket.

One node of those with a replica watches: that with the least id. The changes are handed over one after the
other, in their order. A change is handed over at most once, except that while the watch moves from one node
to another some may be missed, and some handed over by both. Of several changes of one key made while the
connection was lost only the last one is seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio
import structlog
from anyio.abc import TaskGroup, TaskStatus

from lattice import subjects
from lattice.bus import Bus, Entry
from lattice.caller import CallRequest, new_call_id
from lattice.clock import now
from lattice.errors import Invalid, LatticeError
from lattice.imports import grant_line
from lattice.model import Link, Trigger, TriggerKind
from lattice.names import check_name, did_you_mean
from lattice.observer import Observer
from node.capabilities.keyvalue import Bucket
from node.links import covering_link
from providers.bindings import LinkSettings
from providers.keyvalue.nats import escape, unescape

INTERFACE = "wasi:keyvalue/watcher@0.2.0-draft"
STORE = "wasi:keyvalue/store"
PROVIDER_KIND = "keyvalue-nats"
KEYS = ("link", "bucket", "prefix")
LOOK_SECONDS = 0.25
RETRY_SECONDS = 1.0
MAX_WAITING = 4096
"""Changes that wait for the one before to be handled; more are dropped, and told of."""
CALL_SECONDS = 30.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """What is watched: keys that begin with a prefix, in a bucket over one of the component's links."""

    link: str = "default"
    bucket: str = ""
    prefix: str = ""


class ObjectCalls(Protocol):
    """A node's replicas; see `node.replicas.Replicas`."""

    def serves(self, component: str) -> bool: ...

    async def call(self, request: CallRequest, args: Any, *, takes_objects: bool = False) -> Any: ...


def check_trigger(trigger: Trigger) -> None:
    """Raise `Invalid` for a key-value trigger whose configuration is wrong."""
    parse_watch(trigger.configuration)


def parse_watch(given: Mapping[str, str]) -> WatchSettings:
    """The settings of a trigger. Raises `Invalid` that names the key."""
    for key in given:
        if key not in KEYS:
            near = did_you_mean(key, KEYS) or f": use {', '.join(KEYS)}"
            raise Invalid(f"a keyvalue trigger has no key `{key}`{near}")
    link = check_name(given.get("link", "default"), "`link`")
    return WatchSettings(link=link, bucket=given.get("bucket", ""), prefix=given.get("prefix", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What a trigger asks for now, or the reason why it can't be had."""

    trigger: Trigger
    watched: WatchSettings
    namespace: str = ""
    reason: str = ""


@dataclass(slots=True, eq=False)
class _Followed:
    wish: _Wish
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class WatcherTriggers:
    """The mutable state is the triggers that this node follows now, each in a task of its own."""

    def __init__(
        self,
        bus: Bus,
        lattice: str,
        observer: Observer,
        replicas: ObjectCalls,
        *,
        node: str,
        settings: LinkSettings,
    ) -> None:
        self._bus = bus
        self._lattice = lattice
        self._observer = observer
        self._replicas = replicas
        self._node = node
        self._settings = settings
        self._followed: dict[Any, _Followed] = {}

    def __repr__(self) -> str:
        return f"<WatcherTriggers {len(self._followed)} followed>"

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Follow the triggers until cancelled."""
        async with anyio.create_task_group() as tasks:
            task_status.started()
            while True:
                self._follow(tasks, await self._wanted())
                with anyio.move_on_after(LOOK_SECONDS):
                    await self._observer.wait_for_change()

    def _follow(self, tasks: TaskGroup, wanted: Mapping[Any, _Wish]) -> None:
        for identity, followed in list(self._followed.items()):
            if wanted.get(identity) != followed.wish:
                followed.scope.cancel()
                del self._followed[identity]
        for identity in wanted.keys() - self._followed.keys():
            followed = self._followed[identity] = _Followed(wanted[identity])
            tasks.start_soon(self._watch, followed)

    async def _wanted(self) -> dict[Any, _Wish]:
        return {
            trigger.identity: await self._wish(trigger, item.links)
            for name, item in list(self._observer.state.desired.components.items())
            if self._is_chosen(name)
            for trigger in item.triggers
            if trigger.kind is TriggerKind.KEYVALUE
        }

    async def _wish(self, trigger: Trigger, links: Sequence[Link]) -> _Wish:
        watched = parse_watch(trigger.configuration)
        try:
            namespace = await self._namespace(trigger.component, links, watched.link)
        except LatticeError as error:
            return _Wish(trigger=trigger, watched=watched, reason=error.message)
        return _Wish(trigger=trigger, watched=watched, namespace=namespace)

    async def _namespace(self, component: str, links: Sequence[Link], name: str) -> str:
        """Where the link leads now, by all that it refers to. Raises `LatticeError`."""
        link = covering_link(links, STORE, name)
        if link is None:
            line = grant_line(component, STORE, name)
            raise Invalid(f"{component!r} has no link of {STORE} named {name!r}; make it with `{line}`")
        self._check_kind(link)
        configuration, _ = await self._settings.resolve(link)
        return configuration.get("bucket") or component

    def _is_chosen(self, component: str) -> bool:
        nodes = [placement.node for placement in self._observer.state.placements(component)]
        return self._replicas.serves(component) and min(nodes, default=self._node) == self._node

    async def _watch(self, followed: _Followed) -> None:
        wish = followed.wish
        with followed.scope:
            if wish.reason:
                self._log_waiting(wish.trigger, wish.reason)
                return  # until something else is wished for
            while True:
                try:
                    await self._watch_once(wish)
                except LatticeError as error:
                    self._log_waiting(wish.trigger, error.message)
                await anyio.sleep(RETRY_SECONDS)

    def _log_waiting(self, trigger: Trigger, reason: str) -> None:
        log.warning("trigger.waits", component=trigger.component, name=trigger.name, reason=reason)

    async def _watch_once(self, wish: _Wish) -> None:
        watched = wish.watched
        store = await self._bus.key_value(subjects.keyvalue_bucket(self._lattice, wish.namespace))
        changes = Changes(escape(watched.bucket), watched.prefix)
        subscription = await store.watch(changes.receive, on_restart=changes.restart)
        try:
            while True:
                key, value = await changes.next()
                await self._hand_over(
                    wish.trigger, Bucket(link=watched.link, name=watched.bucket), key, value
                )
        finally:
            with anyio.CancelScope(shield=True):
                await subscription.unsubscribe()

    def _check_kind(self, link: Link) -> None:
        state = self._observer.state
        offers = {} if link.target in state.desired.components else state.observed.offers.get(link.target, {})
        kinds = {offer.kind for _, offer in offers.values()}
        if kinds and PROVIDER_KIND not in kinds:
            raise Invalid(
                f"provider {link.target!r} is of kind {', '.join(sorted(kinds))}, which tells nobody of "
                f"changes: link to one of kind {PROVIDER_KIND}"
            )

    async def _hand_over(self, trigger: Trigger, bucket: Bucket, key: str, value: bytes | None) -> None:
        request = CallRequest(
            component=trigger.component,
            interface=INTERFACE,
            function="on-delete" if value is None else "on-set",
            deadline=now() + CALL_SECONDS,
            call_id=new_call_id(),
            caller=f"trigger {trigger.name}",
        )
        args = [bucket, key] if value is None else [bucket, key, value]
        try:
            await self._replicas.call(request, args, takes_objects=True)
        except LatticeError as error:
            log.warning("change.failed", component=trigger.component, name=trigger.name, reason=error.message)
        except Exception:
            log.exception("change.broke", component=trigger.component, name=trigger.name)


class Changes:
    """What happens in one bucket of a namespace, from the moment it is first looked at.

    The mutable state is what waits, the last revision seen, and whether all that was there before has passed.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        """`bucket` as it stands in keys."""
        self._bucket = bucket
        self._prefix = prefix
        self._waiting: deque[tuple[str, bytes | None]] = deque()
        self._seen = 0
        self._is_caught_up = False
        self._came = anyio.Event()

    def receive(self, entry: Entry | None) -> None:
        """Take an entry of the watch; those of the first replay are no changes."""
        if entry is None:
            self._is_caught_up = True
            return
        is_new = entry.revision > self._seen
        self._seen = max(self._seen, entry.revision)
        bucket, _, key = entry.key.partition(".")
        if not self._is_caught_up or not is_new or bucket != self._bucket:
            return
        name = unescape(key)
        if not name.startswith(self._prefix):
            return
        if len(self._waiting) >= MAX_WAITING:
            log.warning("change.dropped", key=name, waiting=len(self._waiting))
            return
        self._waiting.append((name, entry.value))
        self._came.set()

    def restart(self, is_lost: bool) -> None:
        """The watch begins anew: what was missed is among what comes now."""
        if is_lost:
            self._seen = 0

    async def next(self) -> tuple[str, bytes | None]:
        """The next change: a key and its value, None if it was deleted."""
        while not self._waiting:
            self._came = anyio.Event()
            await self._came.wait()
        return self._waiting.popleft()
