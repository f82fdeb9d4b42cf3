"""Handlers inside the shim over real components, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lattice.http import HttpRequest
from node.capabilities.http.client import HttpClient
from node.capabilities.http.policy import OutgoingPolicy
from node.capabilities.http.shim_handler import ShimHandler
from node.capabilities.http.shim_host import ShimSettings, shim_interface
from node.engine.compiler import Compiler
from node.engine.engine import Engine
from node.engine.host import HostInterface
from node.engine.limits import InstanceLimits
from node.engine.pool import ComponentPool

ROOT = Path(__file__).parents[4]

HANDLER = """
  (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
    (canon lift (core func $guest "handle")))
  (component $naming
    (import "request" (type $request (sub resource)))
    (import "outparam" (type $outparam (sub resource)))
    (import "handle" (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))))
    (export $r "incoming-request" (type $request))
    (export $o "response-outparam" (type $outparam))
    (export "handle" (func $handle) (func (param "request" (own $r)) (param "response-out" (own $o)))))
  (instance $handler (instantiate $naming
    (with "request" (type $request)) (with "outparam" (type $outparam)) (with "handle" (func $handle))))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))
"""
"""The end of a component in text: exports `handle` of its `$guest` as the handler of requests."""


class Shims:
    """Makes handlers over components inside the shim, and keeps what their guests print."""

    def __init__(self, compiler: Compiler, engine: Engine, client: HttpClient | None) -> None:
        self.root = ROOT
        self.compiler = compiler
        self._engine = engine
        self._client = client
        self.pools: list[ComponentPool] = []
        self.allow_hosts: list[str] = []
        self.printed: list[tuple[str, bytes]] = []
        self.environment: Mapping[str, str] = {}

    async def make(
        self,
        component: str | Path | bytes,
        *,
        reuse: int = 1,
        slots: int = 4,
        imports: tuple[HostInterface, ...] = (),
        memory_bytes: int = 64 << 20,
    ) -> ShimHandler:
        """A handler over the component, which may be a file, relative to the repository."""
        binary = component if isinstance(component, bytes) else (ROOT / component).read_bytes()
        compiled = await self.compiler.compile(binary)
        assert compiled.is_shimmed
        settings = ShimSettings(
            environment=self.environment,
            arguments=("guest",),
            client=self._client,
            policy_of=lambda call: OutgoingPolicy.parse(self.allow_hosts),
        )
        pool = ComponentPool(
            self._engine,
            compiled,
            name="guest",
            limits=InstanceLimits(reuse=reuse, prewarm=0, memory_bytes=memory_bytes),
            slots=slots,
            imports=[shim_interface(settings), *imports],
            sink=lambda call, stream, data: self.printed.append((stream, data)),
        )
        self.pools.append(pool)
        return ShimHandler(pool)

    async def aclose(self) -> None:
        for pool in self.pools:
            await pool.aclose()


def request(method: str = "GET", path: str = "/", **fields: Any) -> HttpRequest:
    """A request as a listener makes it."""
    return HttpRequest(method=method, scheme="http", authority="example.com", path=path, **fields)
