"""Fixtures of the tests of HTTP: handlers over real components, and servers for the client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lattice.clock import now
from node.capabilities.http.client import HttpClient
from node.capabilities.http.host_handler import HostHandler, make_host_handler
from node.capabilities.http.interfaces import HttpSettings, http_interfaces
from node.capabilities.http.policy import OutgoingPolicy
from node.capabilities.wasi import WasiSettings, wasi_interfaces
from node.engine.compiled import Form
from node.engine.compiler import Compiler
from node.engine.engine import Engine
from node.engine.host import CallContext
from node.engine.limits import InstanceLimits
from node.engine.pool import ComponentPool
from tests.node.capabilities.http.shims import Shims

ROOT = Path(__file__).parents[4]


class Handlers:
    """Makes handlers by host functions over components, and keeps what their guests print."""

    def __init__(self, compiler: Compiler, engine: Engine, client: HttpClient) -> None:
        self._compiler = compiler
        self._engine = engine
        self._client = client
        self.pools: list[ComponentPool] = []
        self.allow_hosts: list[str] = []
        """What the guests may reach; may be changed between calls."""
        self.printed: list[tuple[str, bytes]] = []

    async def make(self, path: str | Path, *, reuse: int = 1, slots: int = 4) -> HostHandler:
        """A handler over the component in that file, relative to the repository."""
        return make_host_handler(await self.pool(path, reuse=reuse, slots=slots))

    async def pool(self, path: str | Path, *, reuse: int = 1, slots: int = 4) -> ComponentPool:
        compiled = await self._compiler.compile((ROOT / path).read_bytes(), form=Form.PLAIN)
        settings = HttpSettings(
            client=self._client, policy_of=lambda call: OutgoingPolicy.parse(self.allow_hosts)
        )
        pool = ComponentPool(
            self._engine,
            compiled,
            name="guest",
            limits=InstanceLimits(reuse=reuse, prewarm=0),
            slots=slots,
            imports=[*wasi_interfaces(WasiSettings()), *http_interfaces(settings)],
            sink=lambda call, stream, data: self.printed.append((stream, data)),
        )
        self.pools.append(pool)
        return pool

    async def aclose(self) -> None:
        for pool in self.pools:
            await pool.aclose()


def context(seconds: float = 10, traceparent: str | None = None) -> CallContext:
    """The context of a request with that much budget."""
    return CallContext(deadline=now() + seconds, call_id="test", traceparent=traceparent)


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    async with HttpClient() as client:
        yield client


@pytest.fixture
async def handlers(compiler: Compiler, engine: Engine, client: HttpClient) -> AsyncIterator[Handlers]:
    handlers = Handlers(compiler, engine, client)
    try:
        yield handlers
    finally:
        await handlers.aclose()


@pytest.fixture
async def shims(compiler: Compiler, engine: Engine) -> AsyncIterator[Shims]:
    """Makes handlers inside the shim, without a network."""
    shims = Shims(compiler, engine, None)
    try:
        yield shims
    finally:
        await shims.aclose()
