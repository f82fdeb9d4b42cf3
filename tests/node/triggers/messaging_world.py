"""Nodes that run messaging triggers on one broker, with a component whose handler is the test's."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from lattice.bus import Bus, Message
from lattice.caller import CallBatch, CallRequest
from lattice.model import Trigger, TriggerKind
from lattice.outcome import Done, Outcome, failed
from lattice.tasks import own_task
from node.capabilities.messaging import Replies
from node.triggers.messaging import MessagingTriggers

WAIT_SECONDS = 10.0

PROBE = b"probe"
"""The body of a message that asks only whether it arrives: no handler gets it, so it may come late."""

MOST_OF_A_BATCH = 20
"""The rest of one has not been begun, as when it takes too long."""

Behave = Callable[[dict[str, Any], int], Awaitable[Any]]


async def well(message: dict[str, Any], count: int) -> Any:
    """A handler that has nothing to complain about."""
    return {"ok": None}


@dataclass(slots=True)
class Handled:
    """One call of the handler."""

    node: str
    message: dict[str, Any]
    request: CallRequest

    @property
    def text(self) -> str:
        return str(self.message["body"].decode())


class Observed:
    """What triggers need of an observer: components with triggers, and news of them."""

    def __init__(self) -> None:
        self.components: dict[str, Any] = {}
        self.state = SimpleNamespace(desired=SimpleNamespace(components=self.components))
        self._changed = anyio.Event()

    def put(self, *triggers: Trigger) -> None:
        """Have the component bear exactly these triggers."""
        self.components["orders"] = SimpleNamespace(triggers=triggers)
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def wait_for_change(self) -> None:
        await self._changed.wait()


@dataclass
class World:
    """The mutable state is what was handled, and how the handler behaves."""

    tasks: TaskGroup
    behave: Behave = well
    answers_at_once: bool = False
    """Whether a handler that does not wait has returned when its call has been begun."""
    takes_batches: bool = False
    """Whether messages that wait in numbers are handled one after the other, by one call of the node."""
    handled: list[Handled] = field(default_factory=list)
    probed: set[tuple[str, str]] = field(default_factory=set)
    """Nodes that got a probe, each with its subject."""
    running: int = 0
    most_running: int = 0
    observed: Observed = field(default_factory=Observed)
    nodes: dict[str, Node] = field(default_factory=dict)
    lattice: str = "test"

    async def start(self, name: str, bus: Bus) -> Node:
        """A node with a replica of the component."""
        node = self.nodes[name] = Node(name, bus, self)
        await self.tasks.start(node.run)
        return node

    def put(self, **configuration: str) -> None:
        """Have the component called by one trigger."""
        self.observed.put(
            Trigger(component="orders", kind=TriggerKind.MESSAGING, configuration=configuration)
        )

    def texts(self) -> list[str]:
        """What was handled, in order."""
        return [item.text for item in self.handled]

    async def until(self, condition: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
        """Poll until it holds."""
        with anyio.fail_after(seconds):
            while not condition():  # noqa: ASYNC110 - what it asks tells nobody
                await anyio.sleep(0.005)


class Node:
    """One node: the caller and the replicas of its triggers."""

    def __init__(self, name: str, bus: Bus, world: World) -> None:
        self.name = name
        self.bus = bus
        self.serves = True
        self._world = world
        self._scope = anyio.CancelScope()
        self._lock = anyio.Lock()
        self._batches = self._stopped = 0
        self.replies = Replies()
        self.triggers = MessagingTriggers(
            bus,
            world.lattice,
            world.observed,  # type: ignore[arg-type]  # of an observer they need no more
            self,  # type: ignore[arg-type]  # nor of a caller
            serves=lambda component: self.serves,
            replies=self.replies,
        )

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        with self._scope:
            await self.triggers.run(task_status=task_status)

    def kill(self) -> None:
        """End it at once, with whatever it has begun."""
        self._scope.cancel()

    def budget_seconds(self, component: str) -> float:
        return 5.0

    def begin(self, request: CallRequest, args: Any) -> Outcome[Any]:
        call = self._call(request, args)
        return _begun(call) if self._world.answers_at_once else call

    def begin_batch(self, batch: CallBatch) -> Awaitable[list[Outcome[Any]]] | None:
        if not self._world.takes_batches:
            return None
        self._batches += 1
        return self._make_calls(batch, self._batches)

    async def _make_calls(self, batch: CallBatch, number: int) -> list[Outcome[Any]]:
        await own_task()
        outcomes: list[Outcome[Any]] = []
        async with self._lock:
            await anyio.lowlevel.checkpoint()
            if number <= self._stopped:
                return outcomes
            spare = int(batch.may_overlap)
            for nth in range(min(batch.size, MOST_OF_A_BATCH)):
                outcomes.append(_begun(self._call(batch.request(nth), batch.args(nth))))
                if not isinstance(outcomes[-1], Done) and (spare := spare - 1) < 0:
                    break
        if len(outcomes) < batch.size:  # those behind have to wait
            self._stopped = self._batches
        return outcomes

    async def _call(self, request: CallRequest, args: Any) -> Any:
        world = self._world
        if args[0]["body"] == PROBE:
            world.probed.add((self.name, args[0]["subject"]))
            return {"ok": None}
        world.handled.append(Handled(self.name, args[0], request))
        world.running += 1
        world.most_running = max(world.most_running, world.running)
        try:
            return await world.behave(args[0], world.texts().count(args[0]["body"].decode()))
        finally:
            world.running -= 1


def _begun(call: Coroutine[Any, Any, Any]) -> Outcome[Any]:
    try:
        waits_for = call.send(None)
    except StopIteration as end:
        return Done(end.value)
    except Exception as error:
        return failed(error)
    return _rest(call, waits_for)


@types.coroutine
def _rest(call: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    while True:
        try:
            yield waits_for
        except BaseException as error:
            step = partial(call.throw, error)
        else:
            step = partial(call.send, None)
        try:
            waits_for = step()
        except StopIteration as end:
            return end.value


async def listened(bus: Bus, subject: str) -> list[Message]:
    """What comes on a subject from now on."""
    found: list[Message] = []
    await bus.subscribe(subject, found.append)
    return found
