"""Control operations on jobs: whoever is asked asks all nodes, as nothing is written down of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import structlog

from lattice import subjects, wire
from lattice.bus import Bus
from lattice.errors import LatticeError, NotFound
from lattice.observer import Observer
from node.jobs.jobs import Jobs
from node.operations import Operation

log = structlog.get_logger()

ASK_SECONDS = 1.0


class JobOperations:
    """Holds no state of its own."""

    def __init__(self, bus: Bus, lattice: str, node: str, observer: Observer, jobs: Jobs) -> None:
        self._bus = bus
        self._lattice = lattice
        self._node = node
        self._observer = observer
        self._jobs = jobs

    def table(self) -> dict[str, Operation]:
        """What may be asked of any node."""
        return {"get.jobs": self.all_jobs, "job.stop": self.stop}

    def own_table(self) -> dict[str, Operation]:
        """What is asked of this node by name."""
        return {"own-jobs": self.own_jobs, "own-job-stop": self.own_stop}

    async def own_jobs(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The jobs of this node."""
        return {"jobs": [dict(job) for job in self._jobs.list()]}

    async def all_jobs(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The jobs of all nodes that answer, oldest first."""
        found = [job for reply in await self._ask_all("own-jobs", {}) for job in reply.get("jobs", [])]
        return {"jobs": sorted(found, key=lambda job: -float(job.get("since_seconds", 0.0)))}

    async def own_stop(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Whether a job of this node was there to be stopped."""
        try:
            self._jobs.stop(str(request.get("job", "")))
        except NotFound:
            return {"stopped": False}
        return {"stopped": True, "node": self._node}

    async def stop(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """End a job, wherever it runs. Raises `NotFound` when no node has it."""
        job = str(request.get("job", ""))
        for reply in await self._ask_all("own-job-stop", {"job": job}):
            if reply.get("stopped"):
                return {"job": job, "node": reply.get("node", "")}
        raise NotFound(
            f"no job {job!r} runs on any node: it may be over; `latticectl get jobs` lists what runs"
        )

    async def _ask_all(self, operation: str, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
        body, replies = wire.encode_message(fields), []

        async def ask(node: str) -> None:
            subject = subjects.node_control(self._lattice, node, operation)
            try:
                reply = await self._bus.request(subject, body, timeout_seconds=ASK_SECONDS)
                replies.append(wire.decode_message(reply.data))
            except LatticeError as error:
                log.debug("jobs.unanswered", of=node, reason=error.message)

        async with anyio.create_task_group() as tasks:
            for view in list(self._observer.state.observed.live()):
                tasks.start_soon(ask, view.id)
        return replies
