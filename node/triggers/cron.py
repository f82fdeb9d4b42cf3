"""Cron triggers, run by whichever node leads.

At most once: a tick is claimed in the store, then its call is made; whoever leads next finds it claimed.
At least once: the call is made until it succeeds, then the tick is claimed; a leader that ends before that
leaves it to the next one. Two nodes that both believe to lead for a moment can't both claim a tick.

Error handling: a call that fails is told of; a store that does not answer is asked again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskGroup, TaskStatus

from lattice import schedule, subjects
from lattice.bus import Bus, KeyValue
from lattice.caller import Caller
from lattice.errors import Invalid, LatticeError
from lattice.model import Trigger, TriggerKind
from lattice.observer import Observer
from lattice.schedule import CronSettings, Delivery, Overlap, parse_cron
from node.replicas import Announce
from node.triggers.tick_calls import TickCalls
from node.triggers.ticks import MAX_AHEAD_MS, Held, Ticks, new_claim

log = structlog.get_logger()

LOOK_SECONDS = 0.25
"""How soon a change of leadership is seen."""
BURST_SECONDS = 0.02
RETRY_SECONDS = 0.25
MAX_SLEEP_SECONDS = 30.0
"""The clock of the day may be set meanwhile."""
NOTABLE_AHEAD_SECONDS = 10.0
"""Clocks of nodes that are kept synchronous differ by less."""
BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 1.0, 60.0
MAX_RUNNING = 16
"""Calls of one trigger that may run side by side where overlap is allowed."""

Clock = Callable[[], float]


def check_trigger(trigger: Trigger) -> None:
    """Raise `Invalid` for a cron trigger whose configuration is wrong. Reads files of time zones."""
    parse_cron(trigger.configuration)


def key_of(trigger: Trigger) -> str:
    """Of its progress in the store."""
    return f"{trigger.component}.{trigger.name}"


@dataclass(slots=True)
class _Followed:
    trigger: Trigger
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class CronTriggers:
    """The mutable state is the triggers that this node follows while it leads, each in a task of its own."""

    def __init__(
        self,
        bus: Bus,
        lattice: str,
        observer: Observer,
        caller: Caller,
        *,
        is_leading: Callable[[], bool],
        announce: Announce,
        clock: Clock = time.time,
    ) -> None:
        self._bus = bus
        self._lattice = lattice
        self._observer = observer
        self._caller = caller
        self._is_leading = is_leading
        self._announce = announce
        self._clock = clock
        self._followed: dict[str, _Followed] = {}
        self._ticks: Ticks | None = None

    def __repr__(self) -> str:
        return f"<CronTriggers {len(self._followed)} followed>"

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the triggers whenever this node leads, until cancelled."""
        async with anyio.create_task_group() as tasks:
            task_status.started()
            self._ticks = Ticks(await self._open())
            was_leading = False
            while True:
                is_leading = self._is_leading()
                if is_leading and not was_leading:
                    tasks.start_soon(self._forget_the_gone)
                if was_leading and not is_leading:
                    self._ticks.forget_all()
                was_leading = is_leading
                self._follow(self._wanted() if is_leading else {}, tasks, is_leading=is_leading)
                with anyio.move_on_after(LOOK_SECONDS):
                    await self._observer.wait_for_change()
                    await anyio.sleep(BURST_SECONDS)

    async def _open(self) -> KeyValue:
        while True:
            try:
                return await self._bus.key_value(subjects.ticks_bucket(self._lattice))
            except LatticeError as error:
                log.info("ticks.awaited", reason=error.message)
                await anyio.sleep(RETRY_SECONDS)

    def _wanted(self) -> dict[str, Trigger]:
        return {
            key_of(trigger): trigger
            for item in self._observer.state.desired.components.values()
            for trigger in item.triggers
            if trigger.kind is TriggerKind.CRON
        }

    def _follow(self, wanted: dict[str, Trigger], tasks: TaskGroup, *, is_leading: bool) -> None:
        for key, followed in list(self._followed.items()):
            if wanted.get(key) != followed.trigger:
                followed.scope.cancel()
                del self._followed[key]
                if is_leading and key not in wanted:
                    tasks.start_soon(self._forget, key)
        for key in wanted.keys() - self._followed.keys():
            self._followed[key] = _Followed(wanted[key])
            tasks.start_soon(self._run_trigger, self._followed[key], tasks)

    async def _run_trigger(self, followed: _Followed, tasks: TaskGroup) -> None:
        assert self._ticks is not None
        trigger = followed.trigger
        with followed.scope:
            try:
                settings = await to_thread.run_sync(parse_cron, trigger.configuration)
            except Invalid as error:
                log.warning(
                    "trigger.invalid", component=trigger.component, name=trigger.name, reason=error.message
                )
                return
            calls = TickCalls(trigger, settings, self._observer, self._caller, self._announce)
            follower = _Follower(key_of(trigger), settings, calls, self._ticks, tasks, self._clock)
            await follower.run()

    async def _forget(self, key: str) -> None:
        assert self._ticks is not None
        if self._observer.state.desired.is_complete and key not in self._wanted():
            await self._ticks.forget(key)

    async def _forget_the_gone(self) -> None:
        """Drop the progress of triggers that were deleted while nobody led."""
        assert self._ticks is not None
        try:
            entries = await self._ticks.store.entries()
        except LatticeError as error:
            log.debug("ticks.unreadable", reason=error.message)
            return
        for entry in entries:
            await self._forget(entry.key)


@dataclass(slots=True, eq=False)
class _Attempt:
    """One call of a tick that must be done at least once."""

    tick: int
    number: int
    is_last: bool
    is_done: bool = False
    ended: anyio.Event = field(default_factory=anyio.Event)


class _Follower:
    """Does the ticks of one trigger in order.

    The mutable state is what it holds of the store, the last claim (its name, its tick, whether its outcome
    is still unknown), and whether it waits for a clock that was set back.
    """

    def __init__(
        self,
        key: str,
        settings: CronSettings,
        calls: TickCalls,
        ticks: Ticks,
        tasks: TaskGroup,
        clock: Clock,
    ) -> None:
        self._key = key
        self._settings = settings
        self._calls = calls
        self._ticks = ticks
        self._tasks = tasks
        self._clock = clock
        self._held: Held | None = None
        self._claim, self._claimed, self._is_open = "", 0, False
        self._is_waiting = False

    async def run(self) -> None:
        """Until cancelled; calls that were begun go on in the task group beside."""
        while True:
            try:
                await self._turn(self._held or await self._load())
            except LatticeError as error:
                log.info("trigger.waits", trigger=self._key, reason=error.message)
                self._held = None
                await anyio.sleep(RETRY_SECONDS)

    async def _load(self) -> Held:
        held = await self._ticks.load(self._key, self._settings.fingerprint, self._now_ms())
        self._held = held
        if self._is_open and held.progress.claim == self._claim:
            self._is_open = False  # the store had not answered, but done it
            self._begin(self._claimed)
        return held

    async def _turn(self, held: Held) -> None:
        if held.progress.tick > self._now_ms() + MAX_AHEAD_MS:
            self._held = None
            return
        self._tell_of_wait(held.progress.tick)
        due = schedule.due(self._settings, held.progress.tick, self._now_ms(), self._calls.identity)
        if due.dropped is not None:
            await self._drop(due.dropped)
        for tick in due.ticks:
            await (self._claim_and_call(tick) if self._is_careful else self._call_and_claim(tick))
        if not due.ticks:
            seconds = (due.next_ms - self._now_ms()) / 1000
            await anyio.sleep(min(max(seconds, 0.001), MAX_SLEEP_SECONDS))

    def _tell_of_wait(self, done: int) -> None:
        """Say once that the clock was set back, and nothing is due before it is where it was."""
        ahead = (done - self._now_ms()) / 1000
        if ahead > NOTABLE_AHEAD_SECONDS and not self._is_waiting:
            reason = f"the clock was set back: ticks are done until {ahead:.0f} s from now"
            log.warning("trigger.waits", trigger=self._key, reason=reason)
        self._is_waiting = ahead > NOTABLE_AHEAD_SECONDS

    @property
    def _is_careful(self) -> bool:
        return self._settings.delivery is Delivery.AT_MOST_ONCE

    async def _drop(self, tick: int) -> None:
        if await self._move_on(tick):
            self._calls.skipped(tick, "it was missed while no node led, or came too late")

    # At most once

    async def _claim_and_call(self, tick: int) -> None:
        if await self._move_on(tick):
            self._begin(tick)

    def _begin(self, tick: int) -> None:
        if not self._is_careful:
            return
        most = MAX_RUNNING if self._settings.overlap is Overlap.ALLOW else 1
        if self._calls.running >= most:
            self._calls.skipped(tick, "the call of the tick before is still running")
            return
        self._calls.running += 1
        self._tasks.start_soon(self._calls.make_counted, tick)

    # At least once

    async def _call_and_claim(self, tick: int) -> None:
        """Repeat until it succeeds or its time is over; cancelled, it leaves a call that has begun alone."""
        number = 0
        while self._held is not None:
            number += 1
            pause = min(BACKOFF_SECONDS * 2.0 ** min(number - 1, 10), MAX_BACKOFF_SECONDS)
            last_ms = tick + (self._settings.retry_seconds - pause) * 1000
            attempt = _Attempt(tick, number, is_last=self._now_ms() > last_ms)
            self._tasks.start_soon(self._make, attempt)
            await attempt.ended.wait()
            if attempt.is_done or attempt.is_last:
                return
            await anyio.sleep(pause)

    async def _make(self, attempt: _Attempt) -> None:
        try:
            attempt.is_done = await self._calls.make(
                attempt.tick, attempt=attempt.number, is_final=attempt.is_last
            )
            if attempt.is_done or attempt.is_last:
                await self._claim_until_answered(attempt.tick)
        finally:
            attempt.ended.set()

    async def _claim_until_answered(self, tick: int) -> None:
        while True:
            try:
                await self._move_on(tick)
                return
            except LatticeError as error:
                log.info("trigger.waits", trigger=self._key, reason=error.message)
                await anyio.sleep(RETRY_SECONDS)

    # Claims

    async def _move_on(self, tick: int) -> bool:
        """Claim the tick; when somebody else was faster, the progress is read anew before anything else."""
        if self._held is None:
            return False
        if not (self._is_open and self._claimed == tick):
            self._claim, self._claimed, self._is_open = new_claim(), tick, True
        self._held = await self._ticks.claim(self._key, self._held, tick, self._claim)
        self._is_open = False
        return self._held is not None

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
