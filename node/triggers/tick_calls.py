"""The calls of one cron trigger's ticks, and what is told of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import structlog

from lattice import schedule, wit
from lattice.caller import Caller, CallRequest
from lattice.clock import now
from lattice.errors import Failed, LatticeError, NotFound
from lattice.failures import internal_failure
from lattice.model import Trigger
from lattice.observer import Observer
from lattice.schedule import CronSettings, Delivery
from node.replicas import Announce

log = structlog.get_logger()


class TickCalls:
    """The mutable state is the number of calls in progress that may not overlap."""

    def __init__(
        self, trigger: Trigger, settings: CronSettings, observer: Observer, caller: Caller, announce: Announce
    ) -> None:
        self.identity = f"{trigger.component}/{trigger.name}"
        self._trigger = trigger
        self._settings = settings
        self._observer = observer
        self._caller = caller
        self._announce = announce
        self.running = 0
        """Kept by whoever begins calls, for those that may not overlap."""

    async def make(self, tick: int, *, attempt: int = 1, is_final: bool = True) -> bool:
        """Make the tick's call; whether it succeeded. Only cancellation is raised."""
        name = schedule.tick_id(self.identity, tick)
        began = time.monotonic()
        try:
            await self._call(name)
        except LatticeError as error:
            self._failed(name, error, attempt, is_final)
            return False
        except Exception:
            self._failed(name, internal_failure("trigger.broken", name), attempt, is_final)
            return False
        self._tell("trigger.fired", name, attempt=attempt, seconds=round(time.monotonic() - began, 6))
        return True

    async def make_counted(self, tick: int) -> None:
        """Make the call, which was counted as running before."""
        try:
            await self.make(tick)
        finally:
            self.running -= 1

    def skipped(self, tick: int, reason: str) -> None:
        """Tell that this tick, and those missed before it, are not done."""
        name = schedule.tick_id(self.identity, tick)
        log.info("trigger.skipped", tick=name, reason=reason)
        self._tell("trigger.skipped", name, reason=reason)

    async def _call(self, tick: str) -> None:
        desired = self._observer.state.desired.components.get(self._trigger.component)
        description = self._observer.descriptions.get(desired.spec.digest) if desired else None
        if desired is None or description is None:
            raise NotFound(f"{self._trigger.component!r} is not deployed: nothing to call")
        interface, function = schedule.find_target(self._settings, description.type)
        type_ = description.type.exports[interface].functions[function]
        budget = self._settings.budget_seconds or desired.spec.limits.budget_seconds
        request = CallRequest(
            component=self._trigger.component,
            interface=interface,
            function=function,
            deadline=now() + budget,
            call_id=schedule.call_id(tick),
            idempotent=self._settings.delivery is Delivery.AT_LEAST_ONCE,
            traceparent=schedule.traceparent(tick),
        )
        result = await self._caller.call(request, schedule.arguments_of(self._settings, type_, tick))
        if isinstance(type_.result, wit.Result) and isinstance(result, Mapping) and "err" in result:
            raise Failed(f"{function} returned an error: {str(result['err'])[:500]}")

    def _failed(self, tick: str, error: LatticeError, attempt: int, is_final: bool) -> None:
        log.warning("trigger.failed", tick=tick, attempt=attempt, reason=error.message, final=is_final)
        reason = {"code": error.code, "reason": error.message, "error_id": error.error_id}
        self._tell("trigger.failed", tick, attempt=attempt, final=is_final, **reason)

    def _tell(self, event: str, tick: str, **details: Any) -> None:
        trigger = {"component": self._trigger.component, "kind": "cron", "name": self._trigger.name}
        self._announce(event, {**trigger, "tick": tick, "call_id": schedule.call_id(tick), **details})
