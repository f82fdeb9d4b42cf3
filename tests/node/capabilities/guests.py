"""A pool of a guest with imports of the test's choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import wasmtime

from node.engine.compiled import CompiledComponent
from node.engine.compiler import Compiler
from node.engine.engine import Engine
from node.engine.host import HostInterface
from node.engine.limits import InstanceLimits
from node.engine.pool import ComponentPool
from tests.node.capabilities.sandboxes import context


class Guest:
    """One component named `guest`; what it writes is kept, limited in rate as on a node."""

    def __init__(
        self,
        engine: Engine,
        compiled: CompiledComponent,
        imports: Sequence[HostInterface],
        *,
        reuse: int = 1,
        bytes_per_second: int = 65536,
    ) -> None:
        self.written: list[tuple[str, bytes]] = []
        self._pool = ComponentPool(
            engine,
            compiled,
            name="guest",
            limits=InstanceLimits(reuse=reuse, log_bytes_per_second=bytes_per_second),
            slots=4,
            imports=imports,
            sink=lambda call, stream, data: self.written.append((stream, data)),
        )

    async def call(self, function: str, *args: Any, interface: str = "-") -> Any:
        return await self._pool.call(interface, function, args, context())

    async def __aenter__(self) -> Guest:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.aclose()


async def compile_text(compiler: Compiler, text: str) -> CompiledComponent:
    """A component of its text, through the compiler that nodes have."""
    return await compiler.compile(bytes(wasmtime.wat2wasm(text)))
