"""The jobs of this node: takes what a caller asks to be run, and runs it for as long as the caller listens.

Error handling: what keeps a job from beginning is the error of the call; how a job ended, well or not, is
told at the end of its output. A job's end never concerns the node.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup

from lattice import streams, wit
from lattice.caller import CallRequest
from lattice.clock import now
from lattice.errors import Denied, Invalid, NotFound, Overloaded, TimedOut, Unreachable
from lattice.exchange import Exchange
from lattice.jobs import COMPONENT, FUNCTION, JobSpec, Started
from lattice.model import ComponentSpec, Link
from lattice.streams import ByteReceiver
from lattice.tasks import own_task
from node.artifacts import Artifacts
from node.engine.binary import Kind, identify
from node.engine.compiler import Compiler
from node.engine.engine import Engine
from node.engine.host import LogSink
from node.engine.modules import ModuleCompiler
from node.engine.preview1 import ModuleRun
from node.jobs.component_program import InterfacesFor, open_component, run_export
from node.jobs.job import Job, JobOutput
from node.jobs.module_program import ModuleProgram
from node.jobs.program import LoggedOutput, Program, StreamedOutput
from node.settings import OpenFolder

log = structlog.get_logger()

REMEMBERED = 100
"""Jobs that ended whose logs are kept."""

COMPONENTS_ONLY: Mapping[str, str] = {
    "network": "--network",
    "allow_hosts": "--allow-host",
    "configuration": "--config",
    "configuration_from": "--config-from",
    "secrets": "--secret",
    "links": "--link",
}
"""What a core module has no way to use, and the options that give it."""

Check = Callable[[JobSpec, wit.ComponentType], Awaitable[Sequence[str]]]
"""Raises what keeps such a component from being run so; returns what it will find wanting."""

Announce = Callable[[str, Mapping[str, Any]], None]


class Jobs:
    """An `ExchangeTarget`. The mutable state is the jobs prepared or running, and their number so far."""

    def __init__(
        self,
        node: str,
        node_name: str,
        *,
        artifacts: Artifacts,
        compiler: Compiler,
        modules: ModuleCompiler,
        engine: Engine,
        interfaces: InterfacesFor,
        folders: Sequence[OpenFolder],
        sink: LogSink,
        announce: Announce,
        check: Check,
        on_links: Callable[[str, Sequence[Link]], None],
        max_jobs: int,
    ) -> None:
        """`on_links` is told of a job's links before it runs, and that there are none when it has ended."""
        self._node = node
        self._node_name = node_name
        self._artifacts = artifacts
        self._compiler = compiler
        self._modules = modules
        self._engine = engine
        self._interfaces = interfaces
        self._folders = {folder.name: folder for folder in folders}
        self._sink = sink
        self._announce = announce
        self._check_component = check
        self._on_links = on_links
        self._max_jobs = max_jobs
        self._jobs: dict[str, Job] = {}
        self._ended: deque[str] = deque(maxlen=REMEMBERED)
        self._started = 0
        self._is_draining = False
        self._idle = anyio.Event()
        self._tasks: TaskGroup | None = None

    def __repr__(self) -> str:
        return f"<Jobs {len(self._jobs)}/{self._max_jobs}>"

    def start(self, tasks: TaskGroup) -> None:
        """Run jobs in `tasks` from now on."""
        self._tasks = tasks

    # Running

    async def exchange(
        self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any], body: ByteReceiver | None
    ) -> Exchange:
        """Begin a job; the value is a `Started`, the body its output. `Overloaded` when too many run.

        `request.deadline` bounds its preparation. Raises `Unreachable` for a folder that this node lacks.
        """
        await own_task()
        try:
            return await self._begin(request, _spec(request, args), body)
        except BaseException:
            if body is not None:
                with anyio.CancelScope(shield=True):
                    await body.aclose()
            raise

    async def _begin(self, request: CallRequest, spec: JobSpec, body: ByteReceiver | None) -> Exchange:
        assert self._tasks is not None
        self._check(spec)
        job = Job(spec)
        self._jobs[job.id] = job
        try:
            program = await self._prepare_in_time(job, request.deadline)
        except BaseException:
            self._forget(job)
            raise
        self._started += 1
        started = Started(
            job=job.id, node=self._node, node_name=self._node_name, warnings=job.warnings
        ).to_dict()
        if spec.is_detached:
            output = LoggedOutput(job.id, self._sink)
            self._tasks.start_soon(self._run, job, program, body, output)
            return Exchange(started)
        sender, receiver = streams.pair()
        self._tasks.start_soon(self._run, job, program, body, StreamedOutput(sender))
        return Exchange(started, JobOutput(receiver, job.stop))

    def _check(self, spec: JobSpec) -> None:
        if self._is_draining:
            raise Unreachable("this node is leaving and begins no jobs")
        if len(self._jobs) >= self._max_jobs:
            raise Overloaded(
                f"node {self._node_name!r} runs {self._max_jobs} jobs already; wait for one to end, start "
                "another node, or let this one run more with `lattice-node start --max-jobs N`"
            )
        for grant in spec.component.folders:
            folder = self._folders.get(grant.folder)
            if folder is None or (grant.writable and not folder.is_writable):
                how = "for writing " if grant.writable else ""
                suffix = ":rw" if grant.writable else ""
                raise Unreachable(
                    f"folder {grant.folder!r} is not open {how}on node {self._node_name!r}; "
                    f"`lattice-node start --folder {grant.folder}=PATH{suffix}` opens it"
                )

    async def _run(
        self,
        job: Job,
        program: Program,
        source: ByteReceiver | None,
        output: StreamedOutput | LoggedOutput,
    ) -> None:
        details = {"job": job.id, "name": job.spec.component.name}
        self._announce("job.started", details)
        if job.links:
            self._on_links(job.id, job.links)
        try:
            outcome = await job.run(program, source, output)
            self._announce("job.ended", {**details, "exit_code": outcome.exit_code, "reason": outcome.reason})
        finally:
            with anyio.CancelScope(shield=True):
                if source is not None:
                    await source.aclose()
                await program.aclose()
            self._forget(job)

    def _forget(self, job: Job) -> None:
        del self._jobs[job.id]
        if job.links:
            self._on_links(job.id, ())
        self._ended.append(job.id)
        if not self._jobs:
            self._idle.set()

    # Preparing

    async def _prepare_in_time(self, job: Job, deadline: float) -> Program:
        try:
            with anyio.fail_after(max(0.0, deadline - now())):
                return await self._prepare(job)
        except TimeoutError:
            raise TimedOut("the job was not prepared in time: compiling it takes longer") from None

    async def _prepare(self, job: Job) -> Program:
        artifact = await self._artifacts.get(job.spec.component.digest)
        if identify(artifact) is Kind.MODULE:
            return await self._module(job.spec, artifact)
        compiled = await self._compiler.compile(artifact)
        export = run_export(compiled.type)
        job.warnings = tuple(await self._check_component(job.spec, compiled.type))
        return await open_component(
            self._engine, compiled, job, export=export, interfaces=self._interfaces, sink=self._sink
        )

    async def _module(self, spec: JobSpec, artifact: bytes) -> Program:
        component = spec.component
        _check_module(spec)
        module = await self._modules.compile(artifact)
        folders = [
            (str(self._folders[grant.folder].path), grant.path, grant.writable) for grant in component.folders
        ]
        run = ModuleRun(
            module=module,
            arguments=(component.name, *spec.arguments),
            environment=component.environment,
            folders=tuple(folders),
            memory_bytes=component.limits.memory_bytes,
        )
        return ModuleProgram(run, self._engine.settings, spec.timeout_seconds)

    # What there is

    def spec_of(self, name: str) -> ComponentSpec | None:
        """What the job of that id was granted."""
        job = self._jobs.get(name)
        return None if job is None else job.component

    def links_of(self, name: str) -> Sequence[Link] | None:
        """The links of the job of that id; None if there is none."""
        job = self._jobs.get(name)
        return None if job is None else job.links

    def remembers(self, name: str) -> bool:
        """Whether that is the id of a job that runs, or is one of the last that ended."""
        return name in self._jobs or name in self._ended

    def list(self) -> list[Mapping[str, Any]]:
        """Those that are prepared or run, oldest first."""
        here = {"node": self._node, "node_name": self._node_name}
        return [{**job.description(), **here} for job in self._jobs.values()]

    def stop(self, job_id: str) -> None:
        """End a job; raises `NotFound` for one that is over or unknown."""
        job = self._jobs.get(job_id)
        if job is None:
            raise NotFound(f"no job {job_id!r} runs on node {self._node_name!r}: it may be over")
        log.info("job.stopped", job=job_id)
        job.stop()

    def statistics(self) -> dict[str, int]:
        """Counts for the node's statistics."""
        return {"running": len(self._jobs), "started": self._started, "most": self._max_jobs}

    # Leaving

    async def drain(self) -> None:
        """Begin no more jobs; returns when the last one has ended."""
        self._is_draining = True
        while self._jobs:
            self._idle = anyio.Event()
            await self._idle.wait()

    async def aclose(self) -> None:
        """Stop all that run, and wait for their end."""
        self._is_draining = True
        for job in list(self._jobs.values()):
            job.stop()
        await self.drain()


def _check_module(spec: JobSpec) -> None:
    given = spec.component.to_dict() | {"links": spec.links}
    useless = [option for field, option in COMPONENTS_ONLY.items() if given[field]]
    if useless:
        raise Invalid(
            f"a core module can't use {', '.join(useless)}: WASI 0.1 knows files, the environment and the "
            "standard streams alone; build it as a component"
        )


def _spec(request: CallRequest, args: Sequence[Any] | Mapping[str, Any]) -> JobSpec:
    if request.component != COMPONENT:
        raise Denied(f"a job is begun by a call that names {COMPONENT!r}: `latticectl run` makes one")
    if request.function != FUNCTION or isinstance(args, Mapping) or len(args) != 1:
        raise Invalid(f"jobs are begun by `{FUNCTION}` with one argument: what to run")
    return JobSpec.from_dict(args[0], "job")
