"""The further processes that serve the HTTP port of a node, as their node sees them.

Error handling: a worker that ends is started again, later each time it ends soon; the node goes on meanwhile.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import structlog
from anyio.abc import Process, TaskGroup

from node.http.address import Address
from node.settings import NodeSettings

log = structlog.get_logger()

FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 0.5, 30.0
STEADY_SECONDS = 60.0
"""A worker that has run for so long is started again at once."""
END_SECONDS = 5.0
"""From the end of its drain, or of its node, until a worker is killed."""
DRAIN = b"drain\n"
READY = b"ready\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOrder:
    """What a worker is told at its start, through its standard input."""

    number: int
    settings: NodeSettings
    """With the port that the node got."""
    node: str
    name: str
    boot: int
    folder: Path
    """The node's data folder."""


def encode_order(order: WorkerOrder) -> bytes:
    """Both ends are the same program, and nobody else has the pipe."""
    data = pickle.dumps(order)
    return struct.pack("!I", len(data)) + data


class Workers:
    """The mutable state is the processes that run."""

    def __init__(self, settings: NodeSettings, *, node: str, name: str, boot: int, folder: Path) -> None:
        self._settings = settings
        self._node = node
        self._name = name
        self._boot = boot
        self._folder = folder
        self._processes: dict[int, Process] = {}
        self._ready: set[int] = set()
        self._is_ending = False

    def __repr__(self) -> str:
        return f"<Workers {len(self._ready)} ready of {self._settings.http_workers - 1}>"

    @property
    def ready(self) -> int:
        """How many serve requests now."""
        return len(self._ready)

    def start(self, tasks: TaskGroup, address: Address) -> None:
        """Run all but the node's own; `address` is what the node listens at."""
        settings = replace(self._settings, http=address, http_admin=None)
        for number in range(1, self._settings.http_workers):
            order = WorkerOrder(
                number=number,
                settings=settings,
                node=self._node,
                name=self._name,
                boot=self._boot,
                folder=self._folder,
            )
            tasks.start_soon(self._keep, order)

    async def _keep(self, order: WorkerOrder) -> None:
        delay = FIRST_DELAY_SECONDS
        while True:
            began = anyio.current_time()
            code = await self._run(order)
            if self._is_ending:
                return
            if anyio.current_time() - began > STEADY_SECONDS:
                delay = FIRST_DELAY_SECONDS
            log.warning("http.worker-ended", worker=order.number, code=code, again_in=delay)
            await anyio.sleep(delay)
            delay = min(delay * 2, LAST_DELAY_SECONDS)

    async def _run(self, order: WorkerOrder) -> int | None:
        """The exit code of one process, which ends with this task."""
        command = [sys.executable, "-m", "node.http.worker"]
        try:
            process = await anyio.open_process(command, stderr=None, env=dict(os.environ))
        except OSError as error:
            log.error("http.worker-failed", worker=order.number, reason=str(error))
            return None
        self._processes[order.number] = process
        try:
            assert process.stdin is not None
            await process.stdin.send(encode_order(order))
            await self._follow(order, process)
            return await process.wait()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return await process.wait()
        finally:
            self._ready.discard(order.number)
            self._processes.pop(order.number, None)
            with anyio.CancelScope(shield=True):
                await _end(process)

    async def _follow(self, order: WorkerOrder, process: Process) -> None:
        assert process.stdout is not None
        async for data in process.stdout:
            if READY in data:
                self._ready.add(order.number)
                log.info("http.worker-ready", worker=order.number, process=process.pid)

    async def drain(self) -> None:
        """Have all finish what they began; returns when they have ended."""
        self._is_ending = True
        for process in list(self._processes.values()):
            assert process.stdin is not None
            try:
                await process.stdin.send(DRAIN)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                continue  # it has ended by itself
        for process in list(self._processes.values()):
            await process.wait()


async def _end(process: Process) -> None:
    """A worker ends by itself when its standard input does; a hung one is killed."""
    if process.returncode is not None:
        await process.aclose()
        return
    assert process.stdin is not None
    await process.stdin.aclose()
    with anyio.move_on_after(END_SECONDS):
        await process.wait()
    if process.returncode is None:
        process.kill()
    await process.aclose()
