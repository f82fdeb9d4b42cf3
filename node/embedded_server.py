"""The NATS server that nodes of one machine share when they are told of no other.

Three locks in its folder decide everything, and the kernel frees them however a node ends:

    users.lock   shared by every node that uses the server; who can take it alone is the last and stops it
    start.lock   held while the server is looked for or started, so that nodes that start at once start one
    keeper.lock  held by the node that restarts the server when it ends; another takes over when it leaves

The server itself holds `server.lock` as long as it lives (see `server_process`). It belongs to no node: its
session is its own, and its file (`server.json`) leads nodes and clients to it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import structlog
from anyio import AsyncContextManagerMixin, to_thread

from lattice.connection import DEFAULT_PORT, ConnectionSettings, ServerFile
from lattice.errors import Failed, LatticeError, TimedOut
from lattice.tasks import open_tasks
from node.data_folder import make_private_folder
from node.file_lock import FileLock
from node.server_process import ensure_running, stop_server, wait_until_ended

LOCK_SECONDS = 60.0
LOCK_POLL_SECONDS = 0.02
KEEPER_POLL_SECONDS = 0.2
RETRY_SECONDS = 1.0
STEADY_SECONDS = 5.0
QUICK_ENDS = 3
"""A server that has so often ended so soon after its start is not restarted at once."""

log = structlog.get_logger()


class EmbeddedServer(AsyncContextManagerMixin):
    """A node's share in its machine's server: started on entry if need be, stopped on exit by the last.

    Entering raises `Failed` when the server does not start and `Invalid` when the folder cannot be used.
    Inside, the server is restarted whenever it ends, by one of the nodes; failures of that are logged and
    retried.
    """

    # The mutable state is the file of the server last seen and the locks that this node holds.

    def __init__(self, folder: Path, *, preferred_port: int = DEFAULT_PORT) -> None:
        self.folder = folder
        self._preferred_port = preferred_port
        self._file: ServerFile | None = None
        self._is_keeper = False
        self._quick_ends = 0

    def __repr__(self) -> str:
        url = self._file.url if self._file else "not started"
        return f"<EmbeddedServer {url}{' as keeper' if self._is_keeper else ''}>"

    def connection(self, *, name: str = "lattice") -> ConnectionSettings:
        """The settings to connect to the server; inside the context only."""
        if self._file is None:
            raise RuntimeError("the embedded server has not been started")
        return self._file.connection(self.folder, name=name)

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[EmbeddedServer]:
        users = await to_thread.run_sync(self._open_folder)
        try:
            await _take(users, shared=True)
            self._file = await self._ensure_running()
            async with open_tasks() as tasks:
                tasks.start_soon(self._keep)
                try:
                    yield self
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._leave(users)

    def _open_folder(self) -> FileLock:
        make_private_folder(self.folder)
        return FileLock(self.folder / "users.lock")

    async def _leave(self, users: FileLock) -> None:
        try:
            if users.take():
                await to_thread.run_sync(stop_server, self.folder)
                log.info("server.stopped", folder=str(self.folder))
        finally:
            users.close()

    async def _ensure_running(self) -> ServerFile:
        start = await to_thread.run_sync(FileLock, self.folder / "start.lock")
        try:
            await _take(start)
            return await to_thread.run_sync(ensure_running, self.folder, self._preferred_port)
        except OSError as error:
            raise Failed(
                f"cannot start a NATS server in {self.folder} ({error.strerror}): make room and see that the "
                "folder can be written"
            ) from error
        finally:
            start.close()

    async def _keep(self) -> None:
        """Become the keeper as soon as nobody else is, then restart the server whenever it ends."""
        keeper = await to_thread.run_sync(FileLock, self.folder / "keeper.lock")
        try:
            while not keeper.take():  # noqa: ASYNC110 - held by another process: there is no event
                await anyio.sleep(KEEPER_POLL_SECONDS)
            self._is_keeper = True
            while True:
                await self._keep_once()
        finally:
            self._is_keeper = False
            keeper.close()

    async def _keep_once(self) -> None:
        try:
            self._file = await self._ensure_running()
        except LatticeError as error:
            log.error("server.start_failed", reason=error.message)
            await anyio.sleep(RETRY_SECONDS)
            return
        started = anyio.current_time()
        await wait_until_ended(self._file)
        log.warning("server.ended", url=self._file.url, process=self._file.pid)
        is_steady = anyio.current_time() - started > STEADY_SECONDS
        self._quick_ends = 0 if is_steady else self._quick_ends + 1
        if self._quick_ends >= QUICK_ENDS:
            await anyio.sleep(RETRY_SECONDS)


async def _take(lock: FileLock, *, shared: bool = False) -> None:
    """Wait for a lock that is held briefly; raises `TimedOut` when it is not."""
    with anyio.move_on_after(LOCK_SECONDS):
        while not lock.take(shared=shared):  # noqa: ASYNC110 - held by another process: there is no event
            await anyio.sleep(LOCK_POLL_SECONDS)
        return
    raise TimedOut(f"another node has held {lock.path} for over {LOCK_SECONDS:g} s: is it stopped?")
