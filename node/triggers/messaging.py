"""Messaging triggers, run by every node that has a replica of their component, for the messages it gets.

Plain messages: the nodes are a queue group; each message is handled at most once, by a replica here. Messages
of a stream: the nodes share a durable queue; each message is handled at least once, and again until the
handler returned well or the message is given up.

Error handling: what a handler returns or fails with ends nothing. A subscription or queue that
can't be had is tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
import structlog
from anyio.abc import TaskGroup, TaskStatus

from lattice.bus import Bus
from lattice.caller import Caller
from lattice.errors import Invalid, LatticeError
from lattice.model import Trigger, TriggerKind
from lattice.observer import Observer
from node.capabilities.messaging import Replies
from node.triggers.message_calls import MessageCalls, MessageCounts
from node.triggers.message_settings import MessageSettings, parse_messages
from node.triggers.plain_messages import PlainMessages
from node.triggers.stream_messages import StreamMessages

LOOK_SECONDS = 0.25
"""How soon a replica that came or went here is seen."""
RETRY_SECONDS = 1.0

log = structlog.get_logger()

Identity = tuple[str, TriggerKind, str]


def check_trigger(trigger: Trigger) -> None:
    """Raise `Invalid` for a messaging trigger whose configuration is wrong."""
    settings_of(trigger)


def settings_of(trigger: Trigger) -> MessageSettings:
    """What its configuration says. Raises `Invalid`."""
    return parse_messages(trigger.component, trigger.name, trigger.configuration)


@dataclass(slots=True, eq=False)
class _Followed:
    trigger: Trigger
    counts: MessageCounts
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class MessagingTriggers:
    """The mutable state is the triggers that this node follows now, each in a task of its own."""

    def __init__(
        self,
        bus: Bus,
        lattice: str,
        observer: Observer,
        caller: Caller,
        *,
        serves: Callable[[str], bool],
        replies: Replies,
    ) -> None:
        """`serves` tells whether a replica of a component takes calls on this node."""
        self._bus = bus
        self._lattice = lattice
        self._observer = observer
        self._caller = caller
        self._serves = serves
        self._replies = replies
        self._followed: dict[Identity, _Followed] = {}

    def __repr__(self) -> str:
        return f"<MessagingTriggers {len(self._followed)} followed>"

    def counts(self) -> dict[str, MessageCounts]:
        """Of each trigger that runs here, by component and name."""
        return {
            f"{item.trigger.component}.{item.trigger.name}": item.counts for item in self._followed.values()
        }

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Follow the triggers until cancelled, which breaks off what is being handled."""
        async with anyio.create_task_group() as tasks:
            task_status.started()
            while True:
                self._follow(tasks)
                with anyio.move_on_after(LOOK_SECONDS):
                    await self._observer.wait_for_change()

    def stop_taking(self) -> None:
        """Take no more messages; those in progress are handled. For a node that leaves."""
        self._serves = lambda component: False
        for followed in self._followed.values():
            followed.scope.cancel()
        self._followed.clear()

    def _wanted(self) -> dict[Identity, Trigger]:
        return {
            trigger.identity: trigger
            for name, item in self._observer.state.desired.components.items()
            if self._serves(name)
            for trigger in item.triggers
            if trigger.kind is TriggerKind.MESSAGING
        }

    def _follow(self, tasks: TaskGroup) -> None:
        wanted = self._wanted()
        for identity, followed in list(self._followed.items()):
            if wanted.get(identity) != followed.trigger:
                followed.scope.cancel()
                del self._followed[identity]
        for identity in wanted.keys() - self._followed.keys():
            self._begin(wanted[identity], tasks)

    def _begin(self, trigger: Trigger, tasks: TaskGroup) -> None:
        calls = MessageCalls(trigger, self._caller, self._replies)
        followed = self._followed[trigger.identity] = _Followed(trigger, calls.counts)
        try:
            settings = settings_of(trigger)
        except Invalid as error:
            _warn("trigger.invalid", trigger, error)
            return
        tasks.start_soon(self._take, followed, settings, calls, tasks)

    async def _take(
        self, followed: _Followed, settings: MessageSettings, calls: MessageCalls, tasks: TaskGroup
    ) -> None:
        """Take messages until the trigger changes; what was begun goes on in the task group."""
        with followed.scope:
            while True:
                try:
                    if settings.stream is None:
                        await PlainMessages(self._bus, settings, calls, tasks).run()
                    else:
                        stream = settings.stream
                        await StreamMessages(self._bus, self._lattice, settings, stream, calls, tasks).run()
                except LatticeError as error:
                    _warn("trigger.waits", followed.trigger, error)
                await anyio.sleep(RETRY_SECONDS)


def _warn(event: str, trigger: Trigger, error: LatticeError) -> None:
    log.warning(event, component=trigger.component, name=trigger.name, reason=error.message)
