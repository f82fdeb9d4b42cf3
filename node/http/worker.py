"""A further process of a node, which serves the node's HTTP port beside it: `python -m node.http.worker`.

    order on stdin -> connect, observe -> engine and replicas as the node's -> listen -> "ready" on stdout

It takes no orders of the controller and says nothing of itself to the lattice. It watches what its node runs
(`node.http.mirror`), runs the same from the same cache of compiled code, and sends everything else over the
bus. It ends with its standard input: however the node ended, the pipe is closed.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import struct
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskGroup

from lattice import logs, subjects
from lattice.assignments import Assignments
from lattice.bus import ObjectStore
from lattice.caller import new_call_id
from lattice.errors import LatticeError
from lattice.inventory import Delta
from lattice.nats_bus import NatsBus
from lattice.observer import Observer
from lattice.state import Effect, NodeLost, NodeSuspected
from lattice.tasks import open_tasks
from node.component_logs import ComponentLogs
from node.engine.compiled import CompiledComponent
from node.garbage import settle
from node.http.listener import Listener
from node.http.mirror import Mirror
from node.http.workers import DRAIN, READY, WorkerOrder
from node.identity import Identity, load_identity
from node.process import connection_beside
from node.runner import Runner, RunnerFiles, RunnerHooks, open_files

log = structlog.get_logger()

EXIT_ORPHANED, EXIT_FAILED = 3, 1


def main() -> int:
    """Run until the node says otherwise; returns the exit code."""
    order = _read_order()
    settings = order.settings
    logs.configure(level=settings.log_level, format=settings.log_format, lattice=settings.lattice)
    structlog.contextvars.bind_contextvars(node=order.name, worker=order.number)
    code = 0
    settle()
    try:
        anyio.run(_run, order, backend_options={"use_uvloop": True})
    except* LatticeError as group:
        log.error("http.worker-failed", reason=str(group.exceptions[0]))
        code = EXIT_FAILED
    return code


def _read_order() -> WorkerOrder:
    (size,) = struct.unpack("!I", _read(4))
    order = pickle.loads(_read(size))
    assert isinstance(order, WorkerOrder)
    return order


def _read(size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            sys.exit(EXIT_ORPHANED)
        data += more
    return data


async def _run(order: WorkerOrder) -> None:
    end = _End()
    end.watch()
    name = f"{order.name}-http-{order.number}"
    connection = await to_thread.run_sync(connection_beside, order.settings, name)
    async with NatsBus(connection) as bus:
        identity = await to_thread.run_sync(load_identity, order.folder)
        files = await to_thread.run_sync(_open_files, order, identity)
        objects = await bus.object_store(subjects.artifacts_bucket(order.settings.lattice))
        worker = Worker(order, bus, files, objects)
        async with open_tasks() as tasks, worker.runner:
            await worker.start(tasks)
            await to_thread.run_sync(os.write, 1, READY)
            await end.wanted.wait()
            await worker.stop(tasks)


class _End:
    """When to end: told by a line, or at once when nobody holds the other end of standard input any more."""

    def __init__(self) -> None:
        self.wanted = anyio.Event()

    def watch(self) -> None:
        """Read on a thread of its own, so that even a loop that hangs does not outlive its node."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(loop,), daemon=True).start()

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        while data := os.read(0, 4096):
            if DRAIN in data:
                loop.call_soon_threadsafe(self.wanted.set)
        os._exit(EXIT_ORPHANED)


def _open_files(order: WorkerOrder, identity: Identity) -> RunnerFiles:
    """The node's own cache, artifacts and keys; a folder beside them for copies of what the bus says."""
    files = open_files(order.folder, order.settings, identity)
    own = order.folder / f"http-worker-{order.number}"
    own.mkdir(mode=0o700, exist_ok=True)
    artifacts = own / "artifacts"
    if not artifacts.exists():
        artifacts.symlink_to(Path("..") / "artifacts")
    return replace(files, folder=own)


class Worker:
    """What the process is made of; the mutable state is in its parts."""

    def __init__(self, order: WorkerOrder, bus: NatsBus, files: RunnerFiles, objects: ObjectStore) -> None:
        self._order = order
        settings = order.settings
        self._observer = Observer(bus, settings.lattice)
        self._logs = ComponentLogs(bus, settings.lattice, order.name)
        self._mirror = Mirror(order.node, order.boot)
        hooks = RunnerHooks(
            report=_unreported, announce=_unannounced, describe=_described, sink=self._logs.sink
        )
        self.runner = Runner(
            bus,
            settings,
            files,
            self._observer,
            objects,
            node=order.node,
            name=order.name,
            caller_id=new_call_id(),
            assignments=Assignments(order.node, order.boot),
            hooks=hooks,
        )
        self.listener = Listener(
            settings,
            state=self._observer.state,
            local=self.runner.replicas,
            caller=self.runner.caller,
            name=order.name,
            reasons=dict,
        )

    async def start(self, tasks: TaskGroup) -> None:
        """Observe, run what the node runs, and listen."""
        self._observer.on_effect(self._effect)
        await tasks.start(self._observer.run)
        await self.runner.start(tasks)
        await tasks.start(self._logs.run)
        tasks.start_soon(self._follow)
        await self.listener.start(tasks)

    async def stop(self, tasks: TaskGroup) -> None:
        """Finish the requests that have begun, then end everything."""
        with anyio.move_on_after(self._order.settings.drain_timeout):
            await self.listener.drain()
        self.listener.close()
        tasks.cancel_scope.cancel()
        with anyio.move_on_after(2, shield=True):
            await self.runner.aclose()
        self._logs.close()

    async def _follow(self) -> None:
        """Order of the own replicas what the node runs, whenever that changes."""
        while True:
            for order in self._mirror.orders(self._observer.state):
                reply = self.runner.replicas.order(order)
                if not reply.is_accepted:
                    log.error("http.order-refused", component=order.component, reason=reply.reason)
            await self._observer.wait_for_change()

    def _effect(self, effect: Effect) -> None:
        if isinstance(effect, NodeSuspected | NodeLost):
            self.runner.caller.node_lost(effect.node)
        self.listener.effect(effect)
        self.runner.caller.placements_changed()


def _unreported(delta: Delta) -> None:
    """The node itself reports."""


def _unannounced(event: str, details: Mapping[str, Any]) -> None:
    log.debug(event, **details)


async def _described(compiled: CompiledComponent) -> None:
    """The node itself describes."""


if __name__ == "__main__":
    sys.exit(main())
