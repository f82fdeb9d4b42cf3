"""A node as a process: server and connection, data folder, signals, exit code."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import click
import structlog

from lattice import logs
from lattice.connection import ConnectionSettings, server_folder, server_of, state_folder
from lattice.errors import LatticeError
from lattice.nats_bus import NatsBus
from node.data_folder import open_data_folder
from node.embedded_server import EmbeddedServer
from node.garbage import settle
from node.identity import default_name, load_identity
from node.node import Node
from node.settings import NodeSettings

log = structlog.get_logger()

END_SIGNALS = (signal.SIGTERM, signal.SIGINT)
EXIT_DRAINED, EXIT_FAILED, EXIT_STOPPED = 0, 1, 130


def run_node(settings: NodeSettings) -> int:
    """Run a node until a signal or an operator ends it; returns the exit code."""
    settle()
    try:
        return anyio.run(_run, settings, backend_options={"use_uvloop": True})
    except* LatticeError as group:
        error = _first(group)
        click.echo(f"error: {error.message}", err=True)
    return EXIT_FAILED


def _first(group: BaseExceptionGroup[LatticeError]) -> LatticeError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _run(settings: NodeSettings) -> int:
    logs.configure(level=settings.log_level, format=settings.log_format, lattice=settings.lattice)
    with open_data_folder(state_folder() / settings.lattice, settings.data) as folder:
        identity = load_identity(folder)
        name = settings.name or default_name(identity.id)
        structlog.contextvars.bind_contextvars(node=name)
        async with anyio.create_task_group() as tasks:
            phase = _Phase()
            tasks.start_soon(phase.listen, tasks.cancel_scope)
            async with (
                _connection(settings, name) as connection,
                NatsBus(connection) as bus,
                Node(settings, bus, identity, folder) as node,
            ):
                phase.is_ready = True
                await phase.wait_for_end(node)
                await node.drain()
            phase.is_over = True
            tasks.cancel_scope.cancel()
    return EXIT_DRAINED if phase.is_over else EXIT_STOPPED


class _Phase:
    """Turns signals into the end of the node: the first drains it if it is ready, else all is cancelled."""

    def __init__(self) -> None:
        self.is_ready = False
        self.is_over = False
        self._end = anyio.Event()

    async def listen(self, scope: anyio.CancelScope) -> None:
        """Take signals until cancelled."""
        with anyio.open_signal_receiver(*END_SIGNALS) as signals:
            async for received in signals:
                if self._end.is_set() or not self.is_ready:
                    log.warning("node.stopped", signal=received.name)
                    scope.cancel()
                    return
                log.info("node.ending", signal=received.name, hint="a second signal stops at once")
                self._end.set()

    async def wait_for_end(self, node: Node) -> None:
        """Return when the node is to drain: after a signal, or when an operator asks for it."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow, node)
            await self._end.wait()
            tasks.cancel_scope.cancel()

    async def _follow(self, node: Node) -> None:
        await node.drain_requested.wait()
        self._end.set()


@asynccontextmanager
async def _connection(settings: NodeSettings, name: str) -> AsyncGenerator[ConnectionSettings]:
    """The settings to connect with; starts or joins the machine's embedded server when no server is named."""
    if settings.nats is None:
        async with EmbeddedServer(server_folder(settings.lattice)) as server:
            yield server.connection(name=name)
        return
    yield connection_beside(settings, name)


def connection_beside(settings: NodeSettings, name: str) -> ConnectionSettings:
    """The settings to connect with beside a node that runs: its embedded server is there."""
    return server_of(
        settings, name, connect_seconds=settings.connect_timeout, system_creds=settings.system_creds
    )
