"""Lets go of the durable queues of triggers that are gone; done by whichever node leads.

A queue bears the lattice that it was made for, so it is found whoever made it and whoever leads. It goes when
no trigger of the store names it any more, which is asked after the queue was found: a queue is made for a
trigger that is there already, so nothing is taken for gone that is only not known yet. What was decided is
not done at once: the server is told to end the queue when it has not been in use for a while. So whatever a
late decision meets, a trigger that was put again or a node that has not heard yet, keeps its queue and its
place, and the next look puts right what the decision has changed.

Error handling: what can't be asked or told is tried again at the next look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

import anyio
import structlog

from lattice.bus import Bus, OwnedQueue
from lattice.errors import Invalid, LatticeError
from lattice.model import Application, Trigger
from lattice.observer import APPLICATION_PREFIX, MARKER_KEY, Observer, decode_application
from lattice.subjects import state_bucket
from node.triggers.message_settings import parse_messages, queue_named_by, queue_of

LOOK_SECONDS = 0.25
"""How soon a change of leadership is seen."""
RETIRE_SECONDS = 30.0
"""So long a queue without a trigger is still there for whoever comes back to it."""
BUSY_SECONDS = 10.0
"""Until the next look while something is on its way out; well below the above."""
IDLE_SECONDS = 300.0
"""Until the next look in any case: a node that was cut off may have made a queue again."""

log = structlog.get_logger()

Named = dict[tuple[str, str], Trigger]


class StreamQueues:
    """The mutable state is which triggers were looked at last, and when to look again."""

    def __init__(
        self,
        bus: Bus,
        lattice: str,
        observer: Observer,
        *,
        is_leading: Callable[[], bool],
        retire_seconds: float = RETIRE_SECONDS,
        busy_seconds: float = BUSY_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._bus = bus
        self._lattice = lattice
        self._observer = observer
        self._is_leading = is_leading
        self._retire_seconds = retire_seconds
        self._busy_seconds = busy_seconds
        self._idle_seconds = idle_seconds
        self._seen_changes = -1
        self._named: Named = {}
        self._look_at = 0.0

    def __repr__(self) -> str:
        return f"<StreamQueues {len(self._named)} named>"

    async def run(self) -> None:
        """Look after every change of triggers that may have left a queue behind, until cancelled."""
        was_leading = False
        while True:
            is_leading = self._is_leading() and self._observer.state.desired.is_complete
            if is_leading and (self._notice() or not was_leading):
                self._look_at = 0.0
            was_leading = is_leading
            if is_leading and anyio.current_time() >= self._look_at:
                await self._look()
            with anyio.move_on_after(LOOK_SECONDS):
                await self._observer.wait_for_change()

    def _notice(self) -> bool:
        """Take in what the triggers name now; whether something is no longer named."""
        desired = self._observer.state.desired
        if desired.changes == self._seen_changes:
            return False
        self._seen_changes = desired.changes
        before, self._named = self._named, _named_by(desired.applications.values())
        return bool(before.keys() - self._named.keys())

    async def _look(self) -> None:
        self._look_at = anyio.current_time() + self._busy_seconds
        try:
            if not await self._tend():
                self._look_at = anyio.current_time() + self._idle_seconds
        except LatticeError as error:
            log.info("queues.not-tended", reason=error.message)

    async def _tend(self) -> bool:
        """Retire what nobody names, keep what somebody does; whether anything is on its way out."""
        owned = await self._bus.owned_queues(self._lattice)
        if not any(_key(queue) not in self._named or queue.is_retired for queue in owned):
            return False
        named = await self._stored() | self._named
        for queue in owned:
            trigger = named.get(_key(queue))
            if trigger is None and not queue.is_retired:
                await self._bus.retire_queue(queue, idle_seconds=self._retire_seconds)
                log.info("queue.retired", stream=queue.stream, queue=queue.name)
            elif trigger is not None and queue.is_retired:
                await self._keep(trigger)
        return True

    async def _stored(self) -> Named:
        """What triggers name in the store itself, which knows of a change before its watch tells of it."""
        store = await self._bus.key_value(state_bucket(self._lattice))
        entries = {entry.key: entry.value for entry in await store.entries() if entry.value is not None}
        if MARKER_KEY not in entries:
            raise Invalid("the store has no marker: what it lacks may only be lost")
        return _named_by(
            decode_application(value) for key, value in entries.items() if key.startswith(APPLICATION_PREFIX)
        )

    async def _keep(self, trigger: Trigger) -> None:
        """Open the queue as its trigger says, which makes it stay."""
        with suppress(Invalid):  # its nodes can't open it either, and say so
            settings = parse_messages(trigger.component, trigger.name, trigger.configuration)
            assert settings.stream is not None
            queue = await self._bus.work_queue(queue_of(settings, settings.stream, self._lattice))
            await queue.aclose()


def _key(queue: OwnedQueue) -> tuple[str, str]:
    return queue.stream, queue.name


def _named_by(applications: Iterable[Application]) -> Named:
    return {
        named: trigger
        for application in applications
        for trigger in application.triggers
        if (named := queue_named_by(trigger)) is not None
    }
