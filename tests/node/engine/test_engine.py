"""The engine that all components of a node share."""

from __future__ import annotations

from pathlib import Path

import pytest

from lattice.errors import Invalid, Overloaded, TimedOut
from node.engine.capi import WasmError
from node.engine.configuration import EngineSettings
from node.engine.engine import Engine
from node.engine.host import CallContext
from node.engine.limits import InstanceLimits
from node.engine.linker import Bindings
from node.engine.pool import ComponentPool
from node.engine.store import Store
from node.engine.traps import explain
from tests.node.engine.components import ADD, compile_wat
from tests.node.engine.conftest import context


def test_more_instances_than_there_are_addresses_are_refused() -> None:
    with pytest.raises(Invalid, match="lower max_instances"):
        Engine(EngineSettings(max_instances=100_000))


async def test_error_of_the_body_leaves_the_engine_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with Engine(EngineSettings(max_instances=10)):
            raise ZeroDivisionError


async def test_code_that_is_not_compiled_code_is_invalid(engine: Engine, tmp_path: Path) -> None:
    compiled = compile_wat(ADD, tmp_path)
    compiled.path.write_bytes(b"not compiled code")

    with pytest.raises(Invalid, match="can't be loaded"):
        engine.load(compiled)


async def test_prepared_code_is_shared_and_freed_by_the_last(engine: Engine, tmp_path: Path) -> None:
    compiled = compile_wat(ADD, tmp_path)
    await engine.prepare(compiled)
    compiled.path.unlink()

    pool = ComponentPool(engine, compiled, name="add", limits=InstanceLimits(), slots=1, imports=[])
    engine.unload(compiled)

    assert await pool.call("-", "add", [1, 2], context()) == 3
    await pool.aclose()
    await pool.aclose()
    with pytest.raises(Invalid):
        engine.load(compiled)


async def test_call_whose_budget_is_over_does_not_begin(engine: Engine, tmp_path: Path) -> None:
    compiled = compile_wat(ADD, tmp_path)
    pool = ComponentPool(engine, compiled, name="add", limits=InstanceLimits(), slots=1, imports=[])

    with pytest.raises(TimedOut):
        await pool.call("-", "add", [1, 2], CallContext(deadline=0.0))
    await pool.aclose()


async def test_allocator_without_room_is_an_overload_and_no_trap(engine: Engine, tmp_path: Path) -> None:
    compiled = compile_wat(ADD, tmp_path)
    component, bindings = engine.load(compiled), Bindings(engine.address, compiled, [])
    stores: list[Store] = []

    def make_too_many() -> None:
        for _ in range(4 * engine.settings.max_instances):
            stores.append(Store(engine.address, (-1, -1, -1, -1, -1)))
            stores[-1].instantiate(bindings.linker, component.pointer)
            engine.ticker.note()
            stores[-1].poll(100)
            stores[-1].finish()

    with pytest.raises(WasmError) as raised:  # the engine admits fewer
        make_too_many()

    assert isinstance(explain(str(raised.value)), Overloaded)
    for store in stores:
        store.close()
    bindings.close()
    engine.unload(compiled)
