"""A node: composes its parts, and starts and stops them in order.

    connect -> identity and data -> observer -> engine, replicas, serving, control -> heartbeats -> ready
    drain: resign, close the entrance, hand over replicas, finish calls, say goodbye -> leave

Each part owns one piece of state; this module owns none but the node's own phase.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import anyio
import structlog
from anyio import AsyncContextManagerMixin, to_thread
from anyio.abc import TaskGroup

from lattice import jobs, subjects
from lattice.announcer import Announcer
from lattice.assignments import Assignments
from lattice.bus import Bus, KeyValue, ObjectStore
from lattice.controller import Controller
from lattice.descriptions import Description
from lattice.edits import Editor
from lattice.errors import Conflict, LatticeError, TimedOut, Unreachable
from lattice.imports import Catalog
from lattice.inventory import NodeInfo, Offer
from lattice.model import Link, TriggerKind
from lattice.neighbours import Neighbours
from lattice.observer import Observer
from lattice.secret_readers import candidates
from lattice.serving import Serving
from lattice.state import ApplicationChanged, Effect, NodeJoined, NodeLost, NodeSuspected
from lattice.tasks import open_tasks
from node.capabilities.config.operations import ConfigurationOperations
from node.capabilities.secrets.operations import SecretOperations
from node.component_checks import ComponentChecks
from node.component_logs import ComponentLogs
from node.control import Control
from node.copies import Copies
from node.data_folder import next_boot
from node.engine.compiled import CompiledComponent
from node.handover import Handover
from node.http import routes
from node.http.listener import Listener
from node.http.workers import Workers
from node.identity import Identity, default_name
from node.jobs.checks import JobChecks
from node.jobs.jobs import Jobs
from node.jobs.operations import JobOperations
from node.link_checks import LinkChecks
from node.micro import EndpointStatistics, MicroService
from node.object_upkeep import ObjectUpkeep
from node.operations import Operations
from node.own_operations import OwnOperations
from node.reports import Reports
from node.runner import Runner, RunnerHooks, open_files
from node.settings import NodeSettings
from node.stall import StallGuard
from node.triggers import cron, messaging, watcher
from node.triggers.cron import CronTriggers
from node.triggers.messaging import MessagingTriggers
from node.triggers.stream_queues import StreamQueues
from node.triggers.watcher import WatcherTriggers
from node.upkeep import Upkeep
from node.world import check_grants, is_builtin
from providers.named_settings import NamedSettings

log = structlog.get_logger()

NAME_CHECK_SECONDS = 1.5
"""A little more than a heartbeat: whoever else has this node's name has been heard by then."""
STORE_RETRY_SECONDS = 0.5


def package_version() -> str:
    """Of the installed program."""
    return version("lattice-runtime")


class Node(AsyncContextManagerMixin):
    """An entered node is ready: it takes orders and calls. Leaving it without `drain` is abrupt but clean."""

    def __init__(self, settings: NodeSettings, bus: Bus, identity: Identity, folder: Path) -> None:
        self.settings = settings
        self.lattice = settings.lattice
        self.id = identity.id
        self.name = settings.name or default_name(identity.id)
        self._bus = bus
        self._identity = identity
        self._folder = folder
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.id[:8]} of {self.lattice!r}>"

    @property
    def drain_requested(self) -> anyio.Event:
        """Set when an operator asks the node to leave; who runs the node then calls `drain`."""
        return self.own.drain_requested

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Node]:
        await to_thread.run_sync(self._open_folder)
        self.info = await to_thread.run_sync(self._make_info)
        self._compose(*await self._open_stores())
        async with open_tasks() as tasks, self.runner:
            try:
                await self._start(tasks)
                yield self
            finally:
                with anyio.CancelScope(shield=True):
                    await self._stop(tasks)

    # Composition

    def _make_info(self) -> NodeInfo:
        labels = {"arch": platform.machine(), "os": platform.system().lower(), **dict(self.settings.label)}
        return NodeInfo(
            id=self.id,
            name=self.name,
            boot=next_boot(self._folder),
            labels=labels,
            version=package_version(),
            capacity=self.settings.capacity,
            address=f"{platform.node()}, process {os.getpid()}",
            started_at=time.time(),
            folders={folder.name: folder.mode for folder in self.settings.folder},
            seal_key=self._files.seal_key.announcement,
        )

    def _open_folder(self) -> None:
        """Make the parts that live in the data folder; reads and writes files."""
        self._files = open_files(self._folder, self.settings, self._identity)
        self.copies = Copies(self._folder / "applications")
        self._known_applications = self.copies.load()

    async def _open_stores(self) -> tuple[KeyValue, ObjectStore]:
        """A JetStream cluster that has just started needs seconds to elect its leaders."""
        deadline = anyio.current_time() + self.settings.connect_timeout
        while True:
            try:
                return (
                    await self._bus.key_value(subjects.state_bucket(self.lattice)),
                    await self._bus.object_store(subjects.artifacts_bucket(self.lattice)),
                )
            except (Unreachable, TimedOut) as error:
                if anyio.current_time() > deadline:
                    raise
                log.info("store.awaited", reason=error.message)
            await anyio.sleep(STORE_RETRY_SECONDS)

    def _compose(self, store: KeyValue, objects: ObjectStore) -> None:
        """Make all parts; nothing runs before `_start`."""
        bus, lattice = self._bus, self.lattice
        self.observer = Observer(bus, lattice)
        self.state = self.observer.state
        self.catalog = Catalog(imports=self.observer.descriptions.imports, is_builtin=is_builtin)
        self.assignments = Assignments(self.id, self.info.boot)
        self.logs = ComponentLogs(bus, lattice, self.name)
        self.stall = StallGuard()
        self.announcer = Announcer(
            bus,
            lattice,
            self.info,
            assignments=self.assignments,
            observer=self.observer,
            load=self._load,
        )
        self.controller = Controller(
            bus,
            lattice,
            self.id,
            self.observer,
            catalog=lambda: self.catalog,
            announce=self.announcer.announce,
        )
        self.editor = Editor(store, self.observer)
        self._compose_calls(objects)
        self._compose_control()
        self.upkeep = Upkeep(
            self.observer,
            artifacts=self.runner.artifacts,
            editor=self.editor,
            copies=self.copies,
            logs=self.logs,
            evict=self.replicas.evict,
            is_connected=lambda: bus.is_connected,
        )
        self.objects = ObjectUpkeep(bus, lattice, is_leading=lambda: self.controller.is_leading)

    def _compose_calls(self, objects: ObjectStore) -> None:
        """What runs components, calls them and takes calls."""
        bus, lattice = self._bus, self.lattice
        hooks = RunnerHooks(
            report=self.announcer.report,
            announce=self.announcer.announce,
            describe=self._describe,
            sink=self.logs.sink,
            offer=self._offer,
        )
        self.runner = Runner(
            bus,
            self.settings,
            self._files,
            self.observer,
            objects,
            node=self.id,
            name=self.name,
            assignments=self.assignments,
            hooks=hooks,
        )
        self.replicas, self.caller = self.runner.replicas, self.runner.caller
        self.checks = ComponentChecks(
            self.observer,
            catalog=self.catalog,
            configurations=self.runner.configurations,
            secrets=self.runner.secrets,
            check_grants=check_grants,
            check_configurations=LinkChecks(self.caller, self.observer, self.runner.configurations).check,
        )
        self.jobs = Jobs(
            self.id,
            self.name,
            artifacts=self.runner.artifacts,
            compiler=self.runner.compiler,
            modules=self.runner.modules,
            engine=self.runner.engine,
            interfaces=self.runner.world.interfaces,
            folders=self.settings.folder,
            sink=self.logs.sink,
            announce=self.announcer.announce,
            check=JobChecks(self.checks, self.state, self.runner.configurations).check,
            on_links=self._job_linked,
            max_jobs=self.settings.max_jobs,
        )
        self.runner.know(self.jobs.spec_of, self.jobs.links_of)
        self.logs.also_keep(self.jobs.remembers)
        self.runner.targets.add(jobs.INTERFACE, self.jobs)
        self.serving = Serving(
            bus,
            lattice,
            self.id,
            local=self.runner.targets,
            caller=self.caller,
            max_calls=self.settings.max_calls,
            is_quiet=lambda: self.stall.is_quiet,
        )
        self._compose_triggers()

    def _compose_triggers(self) -> None:
        """What calls components when something happens."""
        self.http = Listener(
            self.settings,
            state=self.state,
            local=self.replicas,
            caller=self.caller,
            name=self.name,
            reasons=self._reasons_not_ready,
            workers=Workers(
                self.settings, node=self.id, name=self.name, boot=self.info.boot, folder=self._folder
            ),
        )
        self.cron = CronTriggers(
            self._bus,
            self.lattice,
            self.observer,
            self.caller,
            is_leading=lambda: self.controller.is_leading,
            announce=self.announcer.announce,
        )
        self.messaging = MessagingTriggers(
            self._bus,
            self.lattice,
            self.observer,
            self.caller,
            serves=self.replicas.serves,
            replies=self.runner.replies,
        )
        self.queues = StreamQueues(
            self._bus, self.lattice, self.observer, is_leading=lambda: self.controller.is_leading
        )
        self.watchers = WatcherTriggers(
            self._bus,
            self.lattice,
            self.observer,
            self.replicas,
            node=self.id,
            settings=NamedSettings(self.runner.configurations, self.runner.secrets),
        )

    def _compose_control(self) -> None:
        """What answers operators and tools."""
        bus, lattice = self._bus, self.lattice
        self.operations = Operations(
            self.editor,
            self.observer,
            artifacts=self.runner.artifacts,
            compiler=self.runner.compiler,
            announce=self.announcer.announce,
            checks=self.checks,
            trigger_checks={
                TriggerKind.HTTP: routes.check_trigger,
                TriggerKind.CRON: cron.check_trigger,
                TriggerKind.MESSAGING: messaging.check_trigger,
                TriggerKind.KEYVALUE: watcher.check_trigger,
            },
        )
        self.reports = Reports(
            bus, lattice, self.observer, self.operations, catalog=self.catalog, controller=self.controller
        )
        self.own = OwnOperations(
            bus,
            lattice,
            self.id,
            self.observer,
            assignments=self.assignments,
            replicas=self.replicas,
            engine=self.runner.engine,
            logs=self.logs,
            reports=self.reports,
            controller=self.controller,
            jobs=self.jobs,
            drain_seconds=self.settings.drain_timeout,
        )
        configurations = ConfigurationOperations(self.runner.configurations, self.announcer.announce)
        sealed = SecretOperations(
            bus, self.runner.secrets, self.observer, self.settings.secrets_for, self.announcer.announce
        )
        of_jobs = JobOperations(bus, lattice, self.id, self.observer, self.jobs)
        tables = [part.table() for part in (self.operations, self.reports, configurations, sealed, of_jobs)]
        shared = {name: item for table in tables for name, item in table.items()} | self.own.shared_table()
        own = self.own.own_table() | of_jobs.own_table() | sealed.own_table()
        self.control = Control(bus, lattice, self.id, shared, own, is_quiet=lambda: self.stall.is_quiet)
        self.micro = MicroService(
            node_id=self.id,
            version=self.info.version,
            metadata={"lattice": lattice, "name": self.name},
            started=datetime.fromtimestamp(self.info.started_at, UTC).isoformat().replace("+00:00", "Z"),
            endpoints=self._endpoints,
        )

    # Start and stop

    async def _start(self, tasks: TaskGroup) -> None:
        for application in self._known_applications:
            self.observer.apply(application)
        tasks.start_soon(self.copies.run)
        self.observer.on_effect(self._effect)
        self.observer.on_effect(self.http.effect)
        await tasks.start(self.observer.run)
        await self._refuse_taken_name()
        await self.runner.start(tasks)
        self.jobs.start(tasks)
        await tasks.start(self.logs.run)
        await self.announcer.start(self.replicas, tasks, self._stack)
        await self.control.start(tasks, self._stack)
        await self.micro.start(self._bus, tasks, self._stack)
        await self.serving.start(tasks)
        await tasks.start(self.announcer.run)
        await tasks.start(Neighbours(self._bus, self.lattice, self.id, self.observer).run)
        await tasks.start(
            lambda **started: self.controller.run(is_candidate=self.settings.controller, **started)
        )
        tasks.start_soon(
            self.runner.secrets.keep_sealed,
            lambda: candidates(self.state, self.settings.secrets_for),
            lambda: self.controller.holder,
            self.settings.secrets_for,
            self.announcer.announce,
        )
        tasks.start_soon(self.stall.run, self._settle)
        tasks.start_soon(self.upkeep.run)
        self.upkeep.restore_soon()  # the store may have been lost while no node ran
        self.observer.on_store_lost(self.upkeep.restore_soon)
        self._bus.on_connection_change(self._connection_changed)
        await tasks.start(self.cron.run)
        await tasks.start(self.messaging.run)
        tasks.start_soon(self.queues.run)
        tasks.start_soon(self.objects.run)
        await tasks.start(self.watchers.run)
        await self.http.start(tasks)
        self.announcer.announce("node.joined", {})
        if (handicap := self.runner.engine.handicap) is not None:
            tell = log.info if handicap.is_wanted else log.warning
            tell("engine.slower", reason=handicap.reason, cure=handicap.cure)
        hint = "latticectl deploy FILE.wasm"
        log.info("node.ready", name=self.name, id=self.id, capacity=self.info.capacity, next=hint)

    async def _stop(self, tasks: TaskGroup) -> None:
        """Undo `_start`: what runs is ended, in the reverse order. Nothing here waits for long."""
        with anyio.move_on_after(2):
            await self.announcer.leave()
        self.http.close()
        with anyio.move_on_after(2):
            await self._stack.aclose()  # before the tasks end: what came in until now is still answered
        with anyio.move_on_after(2):
            await self.runner.stop_providers()
        tasks.cancel_scope.cancel()
        with anyio.move_on_after(5):
            await self.jobs.aclose()
            await self.runner.aclose()
        self.logs.close()
        self.announcer.close()

    async def _refuse_taken_name(self) -> None:
        """Raise `Conflict` when another living node has this node's name."""
        await anyio.sleep(NAME_CHECK_SECONDS if self.settings.name else 0)
        for view in self.state.observed.live():
            if view.info is not None and view.info.name == self.name and view.id != self.id:
                raise Conflict(
                    f"lattice {self.lattice!r} has a node named {self.name!r} already ({view.id}); "
                    "give this one another --name"
                )

    # What the parts need of each other

    def _effect(self, effect: Effect) -> None:
        match effect:
            case NodeJoined(self.id) | NodeSuspected(self.id) | NodeLost(self.id):
                pass  # of itself a node knows more than its own heartbeats tell it
            case NodeSuspected(node):
                self._peer_lost(node)
            case NodeLost(node, _, "left"):
                log.info("node.left", of=node)
                self._peer_lost(node)
            case NodeLost(node, _, reason):
                log.warning("node.lost", of=node, reason=reason)
                self._peer_lost(node)
                if self.controller.is_leading:
                    name = self.state.observed.nodes[node].name
                    self.announcer.announce("node.lost", {"node": node, "node_name": name, "reason": reason})
            case NodeJoined(node):
                log.info("node.seen", of=node)
            case ApplicationChanged(application):
                self.copies.keep(application)
                self.announcer.beat_soon()  # the controller compares who knows what
        self.caller.placements_changed()

    def _peer_lost(self, node: str) -> None:
        """Its calls and ours to it end; nobody waits for the other half any more."""
        self.caller.node_lost(node)
        self.serving.node_lost(node)

    def _offer(self, offers: Sequence[Offer]) -> None:
        self.assignments.offer(offers)
        self._report()

    def _job_linked(self, job: str, links: Sequence[Link]) -> None:
        """Providers elsewhere learn by the inventory what a job may use: nothing of it is desired state."""
        self.assignments.link_job(job, links)
        self._report()

    def _report(self) -> None:
        if (delta := self.assignments.take_delta()) is not None:
            self.announcer.report(delta)

    def _reasons_not_ready(self) -> Mapping[str, str]:
        """For whoever asks over HTTP."""
        reasons = {
            "bus": "" if self._bus.is_connected else "not connected to NATS",
            "lattice": "" if self.observer.is_caught_up else "desired state is not read yet",
            "stall": "the node stood still and waits for its orders" if self.stall.is_quiet else "",
            "drain": "the node is leaving" if self.assignments.is_draining else "",
        }
        return {name: reason for name, reason in reasons.items() if reason}

    def _load(self) -> tuple[float, int]:
        statistics = [item.statistics for item in self.replicas.components()]
        slots = sum(item.slots for item in statistics)
        busy = sum(item.in_flight + item.queued for item in statistics)
        return (busy / slots if slots else 0.0), self.serving.in_progress

    def _connection_changed(self, is_connected: bool) -> None:
        log.info("bus.connected" if is_connected else "bus.lost", server=self._bus.server_id)
        if is_connected:
            self.announcer.beat_soon()  # be heard at once over the new connection
            self.upkeep.restore_soon()

    async def _describe(self, compiled: CompiledComponent) -> None:
        """A store that was lost while all nodes were down no longer knows what it holds."""
        if self.observer.descriptions.get(compiled.digest) is not None:
            return
        description = Description(digest=compiled.digest, size=compiled.size, type=compiled.type)
        try:
            await self.editor.describe(description)
        except LatticeError as error:
            log.warning("artifact.not-described", digest=compiled.digest, reason=error.message)

    def _endpoints(self) -> list[EndpointStatistics]:
        return [
            EndpointStatistics(
                name=item.component,
                subject=subjects.node_calls(self.lattice, self.id).replace("*", item.component, 1),
                requests=item.statistics.calls,
                errors=sum(item.statistics.errors.values()),
                last_error=max(item.statistics.errors, default=""),
                processing_seconds=item.statistics.busy_seconds,
            )
            for item in self.replicas.components()
        ]

    async def _settle(self) -> bool:
        await self.announcer.beat()
        return await self.own.settle()

    # Leaving

    async def drain(self) -> None:
        """Hand over what runs here and finish the calls in flight, within the settings' time. Then leave."""
        log.info("node.draining")
        self.announcer.is_draining = self.assignments.is_draining = True
        self.announcer.announce("node.draining", {})
        with anyio.move_on_after(self.settings.drain_timeout):
            await self.controller.resign()
            self.messaging.stop_taking()
            await self.http.drain()
            await self.serving.close_entrance()
            await self.announcer.beat()
            await Handover(self.id, self.state, self.assignments).wait()
            await self.jobs.drain()
            await self.serving.drain()
        self.own.drained.set()
        await anyio.sleep(0.05)  # the reply to whoever asked for the drain goes out first
        log.info("node.drained", replicas=self.assignments.replicas)
