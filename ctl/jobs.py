"""Runs a command on some node and follows it to its end. `latticectl run` is built on this."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio

from ctl.client import ControlClient
from ctl.exchange import decoded
from ctl.models import Node
from lattice import subjects
from lattice.bus import Bus
from lattice.caller import Caller, CallRequest, new_call_id
from lattice.clock import now
from lattice.errors import Failed, Invalid, LatticeError, NotFound, Unreachable
from lattice.jobs import (
    COMPONENT,
    FUNCTION,
    INTERFACE,
    JobSpec,
    Outcome,
    OutputReader,
    Started,
    outcome_of,
)
from lattice.names import did_you_mean
from lattice.state import LatticeState
from lattice.streams import ByteReceiver
from lattice.tasks import open_tasks

BEGIN_SECONDS = 120.0
"""For fetching and compiling, which the node bounds itself."""
PING_SECONDS = 0.5
MISSES = 2
"""Unanswered pings in a row after which the node is lost."""
CLIENT_NAME = "client"


class RunningJob:
    """A job that has begun. Iterate over its output, then ask for its `outcome`."""

    def __init__(self, started: Started, body: ByteReceiver | None) -> None:
        self.started = started
        self._body = body

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Pieces of `STDOUT` and `STDERR` as they come. Raises `Interrupted` when the node is lost."""
        reader = OutputReader()
        if self._body is not None:
            async for chunk in self._body:
                for piece in reader.feed(chunk):
                    yield piece

    @property
    def outcome(self) -> Outcome:
        """How it ended; known once the output has ended. Raises `Failed` if the node did not say."""
        try:
            return outcome_of(self._body.trailers if self._body else {})
        except Invalid as error:
            raise Failed(f"{error.message}: is the node's version another?") from None


def fitting(nodes: Sequence[Node], labels: Mapping[str, str], name: str | None) -> list[str]:
    """Ids of nodes to ask, the least loaded first. Raises `NotFound`, or `Unreachable` when none fits."""
    ready = [node for node in nodes if node.state == "ready"]
    if name is not None:
        ready = [node for node in nodes if name == node.name or (len(name) >= 4 and node.id.startswith(name))]
        if not ready:
            raise NotFound(f"there is no node `{name}`{did_you_mean(name, [node.name for node in nodes])}")
    fit = [node for node in ready if labels.items() <= node.labels.items()]
    if not fit and ready:
        wanted = ", ".join(f"{key}={value}" for key, value in labels.items())
        raise Unreachable(f"no node that is ready has the labels {wanted}; `latticectl get nodes` shows them")
    return [node.id for node in sorted(fit, key=lambda node: (node.load, random.random()))]


@asynccontextmanager
async def running(
    client: ControlClient,
    spec: JobSpec,
    *,
    labels: Mapping[str, str] | None = None,
    node: str | None = None,
    source: ByteReceiver | None = None,
) -> AsyncIterator[RunningJob]:
    """Begin a job whose file was uploaded; leaving the context early ends it, unless it is detached.

    `source` is its input, and is closed at the end. Raises what kept it from beginning.
    """
    nodes = fitting(await client.nodes(), labels or {}, node)
    caller = Caller(client.bus, client.lattice, LatticeState(), name=CLIENT_NAME, knows_all=lambda: True)
    async with open_tasks() as tasks:
        caller.start(tasks)
        async with await caller.exchange_at(nodes, _request(), [spec.to_dict()], source) as exchange:
            started = decoded(Started, exchange.value)
            if exchange.body is not None:
                tasks.start_soon(_watch, client.bus, client.lattice, started.node, caller)
            yield RunningJob(started, exchange.body)
        tasks.cancel_scope.cancel()


def _request() -> CallRequest:
    return CallRequest(
        component=COMPONENT,
        interface=INTERFACE,
        function=FUNCTION,
        deadline=now() + BEGIN_SECONDS,
        call_id=new_call_id(),
    )


async def _watch(bus: Bus, lattice: str, node: str, caller: Caller) -> None:
    """End what waits for a node that is gone: a client does not observe the lattice as nodes do."""
    misses = 0
    while misses < MISSES:
        await anyio.sleep(PING_SECONDS)
        try:
            await bus.request(subjects.ping(lattice, node), timeout_seconds=PING_SECONDS * 10)
            misses = 0
        except Unreachable:
            misses += bus.is_connected
        except LatticeError:
            continue
    caller.node_lost(node)
