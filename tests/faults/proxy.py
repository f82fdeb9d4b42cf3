"""A TCP proxy that cuts, stalls and mends the way between a node and its NATS server."""

from __future__ import annotations

from types import TracebackType

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, SocketAttribute, SocketStream

from lattice.tasks import open_tasks

CHUNK_BYTES = 65536


class Proxy:
    """Forwards connections to `port`; both directions may be stalled, or the whole way cut.

    A stalled direction loses nothing and says nothing: TCP holds it back, as on a line that has gone dead.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._flows = {"to server": anyio.Event(), "to node": anyio.Event()}
        self._connections: set[SocketStream] = set()
        self._is_cut = False
        for flow in self._flows.values():
            flow.set()

    async def __aenter__(self) -> Proxy:
        self._listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        self._owner = open_tasks()
        tasks = await self._owner.__aenter__()
        self._tasks = tasks
        tasks.start_soon(self._listener.serve, self._serve)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        await self._owner.__aexit__(None, None, None)
        await self._listener.aclose()

    @property
    def port(self) -> int:
        """Where nodes are to connect."""
        return int(self._listener.extra(SocketAttribute.local_port))

    async def cut(self) -> None:
        """End all connections, and every new one at once."""
        self._is_cut = True
        for connection in list(self._connections):
            await anyio.aclose_forcefully(connection)

    def stall(self, *directions: str) -> None:
        """Hold back what is sent in these directions, `to server` and `to node`; all when none is named."""
        for direction in directions or tuple(self._flows):
            self._flows[direction] = anyio.Event()

    def heal(self) -> None:
        """Forward everything again, also what was held back."""
        self._is_cut = False
        for flow in self._flows.values():
            flow.set()

    async def _serve(self, client: SocketStream) -> None:
        async with client:
            if self._is_cut:
                return
            async with await anyio.connect_tcp("127.0.0.1", self._target) as server:
                self._connections |= {client, server}
                try:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(self._forward, client, server, "to server", tasks.cancel_scope)
                        tasks.start_soon(self._forward, server, client, "to node", tasks.cancel_scope)
                finally:
                    self._connections -= {client, server}

    async def _forward(
        self, source: ByteReceiveStream, sink: ByteSendStream, direction: str, scope: anyio.CancelScope
    ) -> None:
        try:
            while True:
                data = await source.receive(CHUNK_BYTES)
                await self._flows[direction].wait()
                await sink.send(data)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            scope.cancel()
