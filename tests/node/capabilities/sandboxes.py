"""Pools of real sandboxes with the built-in interfaces."""

from __future__ import annotations

from typing import Any

import anyio

from node.capabilities.wasi import WasiSettings, wasi_interfaces
from node.engine.compiled import CompiledComponent
from node.engine.engine import Engine
from node.engine.host import CallContext
from node.engine.limits import InstanceLimits
from node.engine.pool import ComponentPool


def context(seconds: float = 5, call_id: str = "1") -> CallContext:
    """The context of a call with that much budget."""
    return CallContext(deadline=anyio.current_time() + seconds, call_id=call_id)


class Sandboxes:
    """Makes pools with WASI settings of the test's choice, and keeps what their guests print."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pools: list[ComponentPool] = []
        self.printed: list[tuple[str, str, bytes]] = []

    def pool(
        self,
        compiled: CompiledComponent,
        *,
        slots: int = 8,
        limits: InstanceLimits | None = None,
        **settings: Any,
    ) -> ComponentPool:
        pool = ComponentPool(
            self._engine,
            compiled,
            name="guest",
            limits=limits or InstanceLimits(),
            slots=slots,
            imports=wasi_interfaces(WasiSettings(**settings)),
            sink=lambda call, stream, data: self.printed.append((call.call_id, stream, data)),
        )
        self._pools.append(pool)
        return pool

    async def aclose(self) -> None:
        for pool in self._pools:
            await pool.aclose()
