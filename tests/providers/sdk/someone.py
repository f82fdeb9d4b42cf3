"""Somebody who calls the provider of a test over links."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio

from lattice import subjects
from lattice.caller import Caller, CallRequest, new_call_id
from lattice.clock import now
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.model import Link, Marker, new_application
from lattice.observer import MARKER_KEY, Observer, application_key, encode_value
from lattice.state import Effect, LatticeState, NodeLost
from lattice.tasks import open_tasks
from tests.lattice.lattices import spec
from tests.providers.fakes import GREET

LATTICE = "default"
NAME = "greeter"


class Someone:
    """A program that observes the lattice and routes its own calls, over a link of `counter`."""

    def __init__(self, bus: Any) -> None:
        self._bus = bus
        self.observer = Observer(bus, LATTICE)
        self._caller = Caller(
            bus, LATTICE, self.observer.state, name="someone", knows_all=lambda: self.observer.has_heard_all
        )
        self.observer.on_effect(self._effect)

    def _effect(self, effect: Effect) -> None:
        if isinstance(effect, NodeLost):
            self._caller.node_lost(effect.node)
        self._caller.placements_changed()

    async def start(self, tasks: Any) -> None:
        await tasks.start(self.observer.run)
        self._caller.start(tasks)

    async def put(
        self, *, named: Sequence[str] = (), secrets: Mapping[str, str] | None = None, **configuration: str
    ) -> None:
        """The link, with such a configuration, configurations by name, and secrets."""
        link = Link(
            source="counter",
            interface=GREET,
            target=NAME,
            configuration=configuration,
            configuration_from=tuple(named),
            secrets=secrets or {},
        )
        store = await self._bus.key_value(subjects.state_bucket(LATTICE))
        previous = self.observer.state.desired.applications.get("counter")
        application = (
            new_application("counter", None, 1, components=[spec("counter")], links=[link])
            if previous is None
            else previous.changed(links=[link])
        )
        await store.put(application_key("counter"), encode_value(application))

    async def call(self, function: str, *args: Any, **changes: Any) -> Any:
        values = {
            "component": NAME,
            "interface": GREET,
            "caller": "counter",
            "link": "default",
            "deadline": now() + 5,
            **changes,
        }
        request = CallRequest(function=function, call_id=new_call_id(), **values)
        return await self._caller.call(request, args)

    async def sees(self, count: int, *, healthy: bool = True) -> None:
        """Return when so many offer the provider."""

        def is_so(state: LatticeState) -> bool:
            offers = state.observed.offers.get(NAME, {}).values()
            return len([offer for _, offer in offers if offer.is_healthy == healthy]) == count

        with anyio.fail_after(10):
            await self.observer.wait_for(is_so)


@asynccontextmanager
async def someone(server: MemoryBroker) -> AsyncGenerator[Someone]:
    """Somebody on a bus in memory."""
    async with MemoryBus(server) as bus, observing(bus) as found:
        yield found


@asynccontextmanager
async def observing(bus: Any) -> AsyncGenerator[Someone]:
    """Somebody on such a bus, in a lattice whose state is not lost."""
    async with open_tasks() as tasks:
        store = await bus.key_value(subjects.state_bucket(LATTICE))
        await store.put(MARKER_KEY, encode_value(Marker(incarnation=1)))
        found = Someone(bus)
        await found.start(tasks)
        yield found
        tasks.cancel_scope.cancel()
