"""Fixtures of the engine's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from node.engine.compiled import CompiledComponent
from node.engine.configuration import EngineSettings
from node.engine.engine import Engine
from node.engine.host import CallContext, GuestCall, HostInterface
from node.engine.limits import InstanceLimits
from node.engine.pool import ComponentPool
from tests.node.engine.components import compile_wat

SMALL = EngineSettings(max_instances=100)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    """An engine; after the test no instance may be left."""
    async with Engine(SMALL) as engine:
        yield engine
    assert engine.instances == 0


def context(seconds: float = 10.0) -> CallContext:
    """The context of a call with that much budget."""
    return CallContext(deadline=anyio.current_time() + seconds, call_id="test")


class Bench:
    """Makes pools of components written in WAT."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.pools: list[ComponentPool] = []
        self.output: list[tuple[str, bytes]] = []
        self._folder = folder

    def pool(
        self,
        wat: str,
        *,
        imports: Sequence[HostInterface] = (),
        slots: int = 10,
        adapted: bool = False,
        **limits: Any,
    ) -> ComponentPool:
        """A pool; `adapted` says that bytes cross all its interfaces as latin-1 strings."""
        compiled = self.compile(wat, adapted=adapted)
        pool = ComponentPool(
            self.engine,
            compiled,
            name="guest",
            limits=InstanceLimits(**limits),
            slots=slots,
            imports=imports,
            sink=self._record,
        )
        self.pools.append(pool)
        return pool

    def compile(self, wat: str, *, adapted: bool = False) -> CompiledComponent:
        """The component as its pools load it."""
        return compile_wat(wat, self._folder, is_adapted=adapted)

    def _record(self, call: GuestCall, stream: str, data: bytes) -> None:
        self.output.append((stream, data))


@pytest.fixture
async def bench(engine: Engine, tmp_path: Path) -> AsyncIterator[Bench]:
    """Makes pools, which are closed after the test."""
    bench = Bench(engine, tmp_path)
    yield bench
    for pool in bench.pools:
        await pool.aclose()
