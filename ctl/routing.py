"""Calls of a long-lived program that routes by itself: straight to a node that has a replica.

It observes the lattice as nodes do, so it costs a few subscriptions and a heartbeat of each node a second; in
return a call makes one hop, and calls to a node that dies end, or go elsewhere, at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio

from ctl.calling import Caller, CallOptions, SubjectCaller
from ctl.functions import Function
from lattice import caller, values
from lattice.bus import Bus
from lattice.neighbours import Neighbours
from lattice.observer import Observer
from lattice.state import Effect, NodeLost, NodeSuspected
from lattice.tasks import open_tasks

CLIENT_NAME = "client"
"""How nodes know the caller, in their logs."""


class RoutingCaller:
    """Calls through a `lattice.caller.Caller`; over a node's subject where a call names the node."""

    def __init__(self, routed: caller.Caller, direct: Caller) -> None:
        self._routed = routed
        self._direct = direct

    async def call(self, function: Function, args: Sequence[Any], options: CallOptions) -> Any:
        if options.node is not None:
            return await self._direct.call(function, args, options)
        request = caller.CallRequest(
            component=function.component,
            interface=function.interface,
            function=function.name,
            deadline=anyio.current_time() + options.budget_seconds,
            call_id=caller.new_call_id(),
            idempotent=options.idempotent,
            traceparent=options.traceparent,
        )
        return values.check_result(function.type, await self._routed.call(request, args))


@asynccontextmanager
async def routing(bus: Bus, lattice: str) -> AsyncIterator[RoutingCaller]:
    """Observe the lattice for as long as the context lasts; entered when the desired state was read."""
    observer = Observer(bus, lattice)
    routed = caller.Caller(
        bus, lattice, observer.state, name=CLIENT_NAME, knows_all=lambda: observer.has_heard_all
    )

    def on_effect(effect: Effect) -> None:
        if isinstance(effect, NodeSuspected | NodeLost):
            routed.node_lost(effect.node)

    async def wake() -> None:
        while True:
            await observer.wait_for_change()
            routed.placements_changed()

    observer.on_effect(on_effect)
    async with open_tasks() as tasks:
        await tasks.start(observer.run)
        await tasks.start(Neighbours(bus, lattice, None, observer).run)
        tasks.start_soon(wake)
        routed.start(tasks)
        yield RoutingCaller(routed, SubjectCaller(bus, lattice))
        tasks.cancel_scope.cancel()
