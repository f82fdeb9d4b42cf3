"""A guest that uses sockets, and servers for it to talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc

from node.capabilities.wasi import parse_grants
from node.capabilities.wasi.sockets.access import SocketAccess
from tests.node.capabilities.wasi.bare_guest import BareGuest, plain

LOOPBACK = (127, 0, 0, 1)
CLOSED = {"closed": None}

Handle = Callable[[anyio.abc.SocketStream], Awaitable[None]]


def at(port: int, address: tuple[int, ...] = LOOPBACK) -> dict[str, Any]:
    if len(address) == 4:
        return {"ipv4": {"port": port, "address": address}}
    return {"ipv6": {"port": port, "flow-info": 0, "address": address, "scope-id": 0}}


class Networked(BareGuest):
    """A guest with grants."""

    def __init__(self, *grants: str, **settings: Any) -> None:
        super().__init__(network=parse_grants(grants), **settings)

    async def tcp(self, method: str, *args: Any) -> Any:
        return await self._method("tcp", "tcp-socket", method, args)

    async def udp(self, method: str, *args: Any) -> Any:
        return await self._method("udp", "udp-socket", method, args)

    async def incoming(self, method: str, *args: Any) -> Any:
        return await self._method("udp", "incoming-datagram-stream", method, args)

    async def outgoing(self, method: str, *args: Any) -> Any:
        return await self._method("udp", "outgoing-datagram-stream", method, args)

    async def open(self, protocol: str = "tcp", family: str = "ipv4") -> Any:
        return plain(await self(f"sockets/{protocol}-create-socket", f"create-{protocol}-socket", family))

    async def bound(self, protocol: str, port: int = 0) -> Any:
        found = await self.open(protocol)
        method = self.tcp if protocol == "tcp" else self.udp
        assert await method("start-bind", found, None, at(port)) is None
        assert await method("finish-bind", found) is None
        return found

    async def listening(self) -> tuple[Any, int]:
        found = await self.bound("tcp")
        assert await self.tcp("start-listen", found) is None
        assert await self.tcp("finish-listen", found) is None
        return found, (await self.tcp("local-address", found))["ipv4"]["port"]

    async def connected(self, port: int) -> tuple[Any, Any, Any]:
        found = await self.open()
        assert await self.tcp("start-connect", found, None, at(port)) is None
        await self.wait("tcp", "tcp-socket", found)
        streams = await self.tcp("finish-connect", found)
        return found, *streams

    async def wait(self, interface: str, resource: str, found: Any) -> None:
        pollable = await self(f"sockets/{interface}", f"[method]{resource}.subscribe", found)
        with anyio.fail_after(5):
            await self("io/poll", "[method]pollable.block", pollable)
        self.drop("io/poll", "pollable", pollable)

    async def accepted(self, listener: Any) -> tuple[Any, Any, Any]:
        await self.wait("tcp", "tcp-socket", listener)
        found: tuple[Any, Any, Any] = await self.tcp("accept", listener)
        return found

    async def read(self, stream: Any, length: int = 100_000) -> Any:
        with anyio.fail_after(5):
            return await self.stream("input-stream.blocking-read", stream, length)

    async def write(self, stream: Any, contents: bytes) -> Any:
        with anyio.fail_after(5):
            return await self.stream("output-stream.blocking-write-and-flush", stream, contents)

    async def look_up(self, name: str) -> Any:
        """All addresses, or the code of what went wrong."""
        stream = plain(await self("sockets/ip-name-lookup", "resolve-addresses", None, name))
        if isinstance(stream, str):
            return stream
        await self.wait("ip-name-lookup", "resolve-address-stream", stream)
        method = "[method]resolve-address-stream.resolve-next-address"
        found = []
        while not isinstance(
            address := plain(await self("sockets/ip-name-lookup", method, stream)), str | None
        ):
            found.append(address)
        self.drop("sockets/ip-name-lookup", "resolve-address-stream", stream)
        return address or found

    async def _method(self, interface: str, resource: str, method: str, args: tuple[Any, ...]) -> Any:
        return plain(await self(f"sockets/{interface}", f"[method]{resource}.{method}", *args))

    @property
    def open_sockets(self) -> int:
        return len(self.state[SocketAccess]) if SocketAccess in self.state else 0


@asynccontextmanager
async def serving(handle: Handle) -> AsyncIterator[int]:
    """A TCP server; its port."""
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, handle)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


async def echo(stream: anyio.abc.SocketStream) -> None:
    async with stream:
        async for data in stream:
            await stream.send(data)
        await stream.send_eof()
