"""A provider's process as a member of the lattice: like a node that holds no components.

It sends heartbeats, says what it offers, takes calls that are routed to it and is noticed when it dies, all
as nodes are. Its identity is made anew with each process: nothing refers to it but what is in progress.
"""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

import anyio
import nkeys
import structlog
from anyio import AsyncContextManagerMixin, to_thread
from anyio.abc import TaskGroup

from lattice.announcer import Announcer
from lattice.assignments import Assignments
from lattice.bus import Bus
from lattice.caller import Caller
from lattice.configuration import Configurations
from lattice.configuration_sources import Sources
from lattice.errors import Conflict
from lattice.inventory import NodeInfo, Offer
from lattice.neighbours import Neighbours
from lattice.observer import Observer
from lattice.orders import Order, OrderReply
from lattice.sealing import SealKey
from lattice.secret_readers import linked_secrets
from lattice.secret_sources import SecretSources, plain_environment
from lattice.secrets import Secrets
from lattice.serving import Serving
from lattice.state import ApplicationChanged, Effect, NodeLost, NodeSuspected
from lattice.tasks import open_tasks
from providers.hosting import Providers, taken_name
from providers.named_settings import NamedSettings
from providers.registry import ProviderContext
from providers.sdk.settings import MakeOffer, MemberSettings

log = structlog.get_logger()

STOP_SECONDS = 2.0
SEALED_SECONDS = 3.0
"""How long the offer waits for the secrets of its links: some node must seal them to this process first."""


class _NoComponents:
    """Refuses the controller's orders, which none should give."""

    def __init__(self, node: str) -> None:
        self._node = node

    def order(self, order: Order) -> OrderReply:
        return OrderReply(node=self._node, is_accepted=False, reason="this process runs no components")

    def compile_ahead(self, component: str, digest: str) -> None:
        pass


class Member(AsyncContextManagerMixin):
    """An entered member takes calls. Leaving it lets calls in progress end, within the settings' time."""

    def __init__(self, settings: MemberSettings, name: str, bus: Bus, make_offer: MakeOffer) -> None:
        self._seed = bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_SERVER))
        self.id = nkeys.from_seed(bytearray(self._seed)).public_key.decode()
        self.name = name
        self._settings = settings
        self._bus = bus
        self._make_offer = make_offer
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"<Member {self.name} {self.id[:8]} of {self._settings.lattice!r}>"

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Member]:
        seal_key = SealKey.generate()
        info = await to_thread.run_sync(self._info, seal_key.announcement(self._seed))
        self._compose(info, seal_key)
        async with open_tasks() as tasks:
            try:
                await self._observe(tasks)
            except BaseException:
                self.announcer.close()
                raise
            try:
                await self._start(tasks)
                yield self
            finally:
                with anyio.CancelScope(shield=True):
                    await self._stop(tasks)

    def _compose(self, info: NodeInfo, seal_key: SealKey) -> None:
        """Make all parts; nothing runs before `_start`."""
        settings, bus, lattice = self._settings, self._bus, self._settings.lattice
        self.observer = Observer(bus, lattice)
        self.assignments = Assignments(self.id, info.boot)
        self.announcer = Announcer(
            bus, lattice, info, assignments=self.assignments, observer=self.observer, load=self._load
        )
        variables = plain_environment(os.environ, settings.secret_source)
        self._configurations = Configurations(
            bus, lattice, sources=Sources(settings.config_source, variables)
        )
        self._secrets = Secrets(
            bus,
            lattice,
            node=self.id,
            key=seal_key,
            provider=self.name,
            sources=SecretSources(settings.secret_source),
        )
        self.providers = Providers(
            [self._make_offer(ProviderContext(name=self.name, lattice=lattice, bus=bus))],
            links_of=self.observer.state.links_of,
            wait_for_news=self.observer.wait_for_change,
            settings=NamedSettings(self._configurations, self._secrets),
            on_change=self._offer,
            is_component=self.observer.state.desired.components.__contains__,
        )
        self._caller = Caller(
            bus,
            lattice,
            self.observer.state,
            name=info.name,
            node=self.id,
            zone=info.labels.get("zone"),
            local=self.providers,
            knows_all=lambda: self.observer.has_heard_all,
        )
        self.serving = Serving(
            bus,
            lattice,
            self.id,
            local=self.providers,
            caller=self._caller,
            max_calls=settings.max_calls,
            is_quiet=lambda: False,
        )

    def _info(self, seal_key: str) -> NodeInfo:
        """Reads files, of the installed package."""
        return NodeInfo(
            id=self.id,
            name=f"{self.name[:50]}-{self.id[-6:].lower()}",
            boot=int(time.time() * 1000),
            labels=dict(self._settings.label),
            version=version("lattice-runtime"),
            capacity=0,
            address=f"{socket.gethostname()}, process {os.getpid()}, Python {platform.python_version()}",
            started_at=time.time(),
            seal_key=seal_key,
            provider=self.name,
        )

    async def _observe(self, tasks: TaskGroup) -> None:
        """See what there is. Raises `Conflict` for a taken name, before anybody has heard of this process."""
        self.observer.on_effect(self._effect)
        await tasks.start(self.observer.run)
        if self.name in self.observer.state.desired.components:
            raise Conflict(taken_name(self.name))

    async def _start(self, tasks: TaskGroup) -> None:
        await tasks.start(self._configurations.run)
        await tasks.start(self._secrets.run)
        self._caller.start(tasks)
        await self.announcer.start(_NoComponents(self.id), tasks, self._stack)
        await self.serving.start(tasks, is_entrance=False)
        await tasks.start(self.announcer.run)
        await tasks.start(Neighbours(self._bus, self._settings.lattice, self.id, self.observer).run)
        self._bus.on_connection_change(self._connection_changed)
        await self._wait_for_secrets()
        await tasks.start(self.providers.run)
        log.info("member.ready", provider=self.name, id=self.id)

    async def _wait_for_secrets(self) -> None:
        """So that others of the name, or nobody, get the calls that this process would have to refuse."""
        with anyio.move_on_after(SEALED_SECONDS):
            while any(self._secrets.is_awaited(name) for name in self._secrets_of_links()):
                await self._secrets.wait_for_change()
            return
        hint = f"`--secrets-for` of the nodes is a list: add `provider:{self.name}` to it"
        log.warning("member.secrets-missing", provider=self.name, hint=hint)

    def _secrets_of_links(self) -> frozenset[str]:
        return linked_secrets(self.observer.state, [self.name])[self.name]

    async def _stop(self, tasks: TaskGroup) -> None:
        with anyio.move_on_after(self._settings.drain_timeout):
            self.announcer.is_draining = True
            await self.announcer.beat()
            await self.serving.drain()
        with anyio.move_on_after(self._settings.drain_timeout):
            await self.providers.stop()
        with anyio.move_on_after(STOP_SECONDS):
            await self.announcer.leave()
        with anyio.move_on_after(STOP_SECONDS):
            await self._stack.aclose()
        tasks.cancel_scope.cancel()
        self.announcer.close()

    def _offer(self, offers: Sequence[Offer]) -> None:
        self.assignments.offer(offers)
        delta = self.assignments.take_delta()
        if delta is not None:
            self.announcer.report(delta)

    def _load(self) -> tuple[float, int]:
        calls = self.serving.in_progress
        return calls / self._settings.max_calls, calls

    def _effect(self, effect: Effect) -> None:
        match effect:
            case NodeLost(node) | NodeSuspected(node) if node != self.id:
                self._caller.node_lost(node)
            case ApplicationChanged():
                self.announcer.beat_soon()  # whoever changed a link waits until all know of it
        self._caller.placements_changed()

    def _connection_changed(self, is_connected: bool) -> None:
        log.info("bus.connected" if is_connected else "bus.lost", server=self._bus.server_id)
        if is_connected:
            self.announcer.beat_soon()
