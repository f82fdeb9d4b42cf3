"""Nodes that run cron triggers on one store, with a component that records its calls."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import anyio

from lattice import wit
from lattice.caller import CallRequest
from lattice.descriptions import Description
from lattice.errors import Failed
from lattice.faulty_bus import Faults, FaultyBus
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.model import ComponentSpec, Trigger, TriggerKind, new_application
from lattice.observer import Observer
from node.triggers.cron import CronTriggers

LATTICE = "test"
DIGEST = "sha256:" + "0" * 64
INTERFACE = "demo:jobs/nightly@1.0.0"
TYPE = wit.ComponentType(
    {},
    {
        INTERFACE: wit.Interface(
            INTERFACE,
            {
                "tick": wit.Function((("id", wit.STRING),), None),
                "attempt": wit.Function((("id", wit.STRING),), wit.Result(None, wit.STRING)),
            },
        )
    },
)


class Member:
    """One node: it observes, and runs triggers while the test says that it leads."""

    def __init__(self, name: str, world: World, faults: Faults, seed: int) -> None:
        self.name = name
        self.is_leading = False
        self.world = world
        self._faults = faults
        self._seed = seed
        self._scope = anyio.CancelScope()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        with self._scope:
            async with MemoryBus(self.world.broker) as inner, anyio.create_task_group() as tasks:
                bus = FaultyBus(inner, self._faults, seed=self._seed)
                self.cron = CronTriggers(
                    bus,
                    LATTICE,
                    self.world.observer,
                    self,  # type: ignore[arg-type]  # of a caller it needs `call`
                    is_leading=lambda: self.is_leading,
                    announce=lambda event, details: self.world.events.append((event, dict(details))),
                    clock=lambda: time.time() + self.world.clock_ahead,
                )
                await tasks.start(self.cron.run)
                task_status.started()
                await anyio.sleep_forever()

    def kill(self) -> None:
        """End it at once, with whatever it has begun."""
        self.is_leading = False
        self._scope.cancel()

    async def call(self, request: CallRequest, args: Any) -> Any:
        self.world.begun[args[0]] += 1
        self.world.requests.append(request)
        outcome = await self.world.behave(request, args[0])
        self.world.done[args[0]] += 1
        return outcome


class World:
    """The mutable state is what was called, and how the component behaves."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.broker = MemoryBroker()
        self.begun: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.requests: list[CallRequest] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.seconds = 0.0
        self.failures = 0
        self.clock_ahead = 0.0
        """Seconds by which the nodes' clocks are wrong."""
        self.observer = Observer(MemoryBus(self.broker), LATTICE)
        """Not running: it is told what is wanted by `put`."""
        self.observer.state.desired.is_complete = True
        self.observer.descriptions.add(Description(digest=DIGEST, size=1, type=TYPE))
        self._tasks = tasks
        self._generation = 0
        self._members = 0

    async def behave(self, request: CallRequest, tick: str) -> Any:
        await anyio.sleep(self.seconds)
        if self.failures:
            self.failures -= 1
            if request.function == "attempt":
                return {"err": "not now"}
            raise Failed("not now")
        return {"ok": None} if request.function == "attempt" else None

    async def join(self, *, is_leading: bool = True, faults: Faults | None = None) -> Member:
        self._members += 1
        member = Member(f"n{self._members}", self, faults or Faults(), self._members)
        await self._tasks.start(member.run)
        member.is_leading = is_leading
        return member

    def put(self, configuration: Mapping[str, str] | None, component: str = "shop") -> None:
        """Deploy the component with one trigger, or none."""
        self._generation += 1
        trigger = Trigger(component=component, kind=TriggerKind.CRON, configuration=configuration or {})
        application = new_application(
            component,
            None,
            self._generation,
            components=[ComponentSpec(name=component, digest=DIGEST)],
            triggers=[trigger] if configuration is not None else [],
        )
        self.observer.apply(application)

    def kinds(self) -> Counter[str]:
        return Counter(event for event, _ in self.events)

    def ticks(self) -> list[int]:
        """The ticks whose calls ended well, as hundredths of a second, in order."""
        return sorted(round(_moment(tick) * 100) for tick in self.done)


def _moment(tick: str) -> float:
    return datetime.fromisoformat(tick.rpartition("/")[2]).timestamp()
