"""What runs components and calls them: engine, compiler, artifacts, capabilities, replicas, caller.

A node has one, and so has each of the processes that share its HTTP port. It says nothing of itself to the
lattice: who runs it does.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyio import AsyncContextManagerMixin
from anyio.abc import TaskGroup

from lattice.assignments import Assignments
from lattice.bus import Bus, ObjectStore
from lattice.caller import Caller, CallRequest
from lattice.configuration import Configurations
from lattice.configuration_sources import Sources
from lattice.errors import Unreachable
from lattice.exchange import Exchange
from lattice.inventory import Delta, Offer
from lattice.model import ComponentSpec, Link
from lattice.observer import Observer
from lattice.record_copies import FolderCopies
from lattice.secret_sources import SecretSources, plain_environment
from lattice.secrets import Secrets
from lattice.streams import ByteReceiver
from node.artifacts import Artifacts
from node.capabilities.http.client import HttpClient
from node.capabilities.http.connector import HttpClientSettings
from node.capabilities.messaging import Replies
from node.engine.compile_process import CompileLimits
from node.engine.compiler import Compiler
from node.engine.configuration import EngineSettings
from node.engine.engine import Engine
from node.engine.host import LogSink
from node.engine.modules import ModuleCompiler
from node.http import remote
from node.identity import SEED_FILE, Identity
from node.links import Links, LinksOf
from node.provider_host import make_providers
from node.replicas import Announce, Describe, Replicas
from node.seal_key import NodeSealKey, load_seal_key
from node.settings import NodeSettings
from node.targets import Targets
from node.world import SpecOf, World
from providers.hosting import Providers
from providers.named_settings import NamedSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerFiles:
    """What a runner keeps in the node's folder."""

    folder: Path
    compiler: Compiler
    modules: ModuleCompiler
    engine_settings: EngineSettings
    seal_key: NodeSealKey


def open_files(folder: Path, settings: NodeSettings, identity: Identity) -> RunnerFiles:
    """Open what there is in the folder, and make what there is not. Reads and writes files."""
    engine_settings = EngineSettings(max_instances=settings.max_instances)
    limits = CompileLimits(memory_bytes=settings.compile_memory, wall_seconds=settings.compile_timeout)
    (folder / "artifacts").mkdir(mode=0o700, exist_ok=True)
    return RunnerFiles(
        folder=folder,
        compiler=Compiler(folder / "compiled", identity.secret, limits, engine_settings),
        modules=ModuleCompiler(folder / "modules", identity.secret, limits, engine_settings),
        engine_settings=engine_settings,
        seal_key=load_seal_key(folder, folder / SEED_FILE),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerHooks:
    """What a runner tells whoever runs it; nothing of it waits, but for `describe`."""

    report: Callable[[Delta], None]
    announce: Announce
    describe: Describe
    sink: LogSink
    offer: Callable[[Sequence[Offer]], None] | None = None
    """Told of all providers after each change; None where none are to run."""


class Runner(AsyncContextManagerMixin):
    """An entered runner can be started; leave it when it is closed.

    The mutable state is whether it was started, and who knows of jobs, which are in no application.
    """

    def __init__(
        self,
        bus: Bus,
        settings: NodeSettings,
        files: RunnerFiles,
        observer: Observer,
        objects: ObjectStore,
        *,
        node: str,
        name: str,
        assignments: Assignments,
        hooks: RunnerHooks,
        caller_id: str | None = None,
    ) -> None:
        """`caller_id` is that of a process beside the node: to it, the node's own replicas are elsewhere."""
        lattice, folder = settings.lattice, files.folder
        self._observer = observer
        self._state = observer.state
        self._job_spec_of: SpecOf = lambda name: None
        self._job_links_of: LinksOf = lambda name: None
        self._is_started = False
        self.compiler, self.modules = files.compiler, files.modules
        self.engine = Engine(
            files.engine_settings,
            workers=settings.workers,
            has_spare_core=settings.http_workers < len(os.sched_getaffinity(0)),
        )
        self.artifacts = Artifacts(folder / "artifacts", objects)
        self.configurations = _configurations(bus, settings, folder)
        self.secrets = _secrets(bus, settings, files, node)
        self.http_client = HttpClient(HttpClientSettings(ca_bundle=settings.outgoing_ca))
        self.replies = Replies()
        self.replicas = Replicas(
            assignments,
            artifacts=self.artifacts,
            compiler=self.compiler,
            engine=self.engine,
            imports_for=lambda step, component: self.world.interfaces(step, component),
            sink=hooks.sink,
            report=hooks.report,
            announce=hooks.announce,
            describe=hooks.describe,
        )
        self.providers = self._make_providers(bus, settings, hooks)
        services = {remote.INTERFACE: HttpReplicas(self.replicas)}
        self.targets = Targets(self.replicas, services, self.providers)
        self.caller = Caller(
            bus,
            lattice,
            self._state,
            name=name,
            node=caller_id or node,
            zone=dict(settings.label).get("zone"),
            local=self.targets,
            knows_all=lambda: observer.has_heard_all,
        )
        self.links = Links(self.caller, self._links_of, self._exports_of, self._is_job)
        self.world = World(
            self.links,
            spec_of=self.spec_of,
            configurations=self.configurations,
            secrets=self.secrets,
            http_client=self.http_client,
            replies=self.replies,
            folders=settings.folder,
        )

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Runner]:
        async with self.engine, self.http_client:
            yield self

    async def start(self, tasks: TaskGroup) -> None:
        """Run what runs in the background; returns when configurations and secrets are known."""
        await tasks.start(self.configurations.run)
        await tasks.start(self.secrets.run)
        if self.providers is not None:
            await tasks.start(self.providers.run)
        self._is_started = True
        await tasks.start(self.world.run)
        self.replicas.start(tasks)
        self.caller.start(tasks)

    async def stop_providers(self) -> None:
        """Let calls of providers end, and close them: before the tasks end in which they run."""
        if self.providers is not None and self._is_started:
            await self.providers.stop()

    async def aclose(self) -> None:
        """Drain all replicas."""
        await self.replicas.aclose()

    def _make_providers(self, bus: Bus, settings: NodeSettings, hooks: RunnerHooks) -> Providers | None:
        if hooks.offer is None:
            return None
        return make_providers(
            bus,
            settings.lattice,
            settings.provider,
            links_of=self._links_of,
            wait_for_news=self._observer.wait_for_change,
            on_change=hooks.offer,
            settings=NamedSettings(self.configurations, self.secrets),
            is_component=self._state.desired.components.__contains__,
        )

    def know(self, spec_of: SpecOf, links_of: LinksOf) -> None:
        """Ask there what this node's jobs were given."""
        self._job_spec_of, self._job_links_of = spec_of, links_of

    def spec_of(self, component: str) -> ComponentSpec | None:
        """What is wanted of a component now, as far as this node has heard of it."""
        if (job := self._job_spec_of(component)) is not None:
            return job
        desired = self._state.desired.components.get(component)
        return desired.spec if desired else None

    def _links_of(self, component: str) -> Sequence[Link] | None:
        """The own jobs come before what nodes report of theirs: this node knows first, and best."""
        desired = self._state.desired.components.get(component)
        if desired is not None:
            return desired.links
        own = self._job_links_of(component)
        return self._state.links_of(component) if own is None else own

    def _is_job(self, name: str) -> bool:
        return self._job_spec_of(name) is not None

    def _exports_of(self, component: str) -> Sequence[str] | None:
        desired = self._state.desired.components.get(component)
        description = self._observer.descriptions.get(desired.spec.digest) if desired else None
        return tuple(description.type.exports) if description else None


def _configurations(bus: Bus, settings: NodeSettings, folder: Path) -> Configurations:
    return Configurations(
        bus,
        settings.lattice,
        copies=FolderCopies(folder / "configurations"),
        sources=Sources(settings.config_source, plain_environment(os.environ, settings.secret_source)),
    )


def _secrets(bus: Bus, settings: NodeSettings, files: RunnerFiles, node: str) -> Secrets:
    return Secrets(
        bus,
        settings.lattice,
        node=node,
        key=files.seal_key.key,
        copies=FolderCopies(files.folder / "secrets"),
        sources=SecretSources(settings.secret_source),
    )


class HttpReplicas:
    """Requests of HTTP that came over the lattice, for the replicas of this node: an `ExchangeTarget`."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas

    def exchange(
        self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any], body: ByteReceiver | None
    ) -> Coroutine[Any, Any, Exchange]:
        """Have it handled; raises `Unreachable` if no replica of the component is here."""
        handler = self._replicas.http(request.component)
        if handler is None:
            return _refused(request, body)
        return remote.serve(handler, request, args, body)


async def _refused(request: CallRequest, body: ByteReceiver | None) -> Exchange:
    if body is not None:
        await body.aclose()
    raise Unreachable(f"no replica of {request.component!r} that answers HTTP requests is here")
