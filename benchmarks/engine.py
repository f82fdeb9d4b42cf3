"""The engine in this process beside stock `wasmtime-py`: fresh instances, warm calls, and bytes.

Stock means what its documentation shows: `Linker.instantiate`, `Instance.get_func` and a call of it,
on a default engine, with the component compiled once. Ours is what a node does for a call that has arrived.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import wasmtime
from wasmtime import component as stock

from benchmarks import guests
from benchmarks.measurement import Effort, Row, Target, compare
from lattice import wit
from node.engine.compiled import CompiledComponent
from node.engine.compiler import Compiler
from node.engine.engine import Engine
from node.engine.host import CallContext
from node.engine.limits import InstanceLimits
from node.engine.pool import ComponentPool

KIBIBYTE = 1024
BYTE_SIZES = {"1 KB": KIBIBYTE, "64 KB": 64 * KIBIBYTE, "1 MB": 1024 * KIBIBYTE}
STOCK_BYTES_PER_ROUND = 200_000
"""Stock conversion takes about 2 us a byte."""

Call = Callable[..., Coroutine[Any, Any, Any]]


class Pools:
    """Compiles components and makes pools of them."""

    def __init__(self, engine: Engine, compiler: Compiler) -> None:
        self._engine = engine
        self._compiler = compiler
        self._pools: list[ComponentPool] = []

    async def compile(self, data: bytes) -> CompiledComponent:
        """Compile as a node does, adapter included."""
        return await self._compiler.compile(data)

    def caller(self, compiled: CompiledComponent, *, slots: int = 64, **limits: Any) -> Call:
        """A function that calls a function of the component in a new pool: interface, name, arguments."""
        pool = ComponentPool(
            self._engine,
            compiled,
            name="guest",
            limits=InstanceLimits(**limits),
            slots=slots,
            imports=(),
        )
        self._pools.append(pool)

        async def call(interface: str, function: str, *args: Any, seconds: float = 60.0) -> Any:
            context = CallContext(deadline=anyio.current_time() + seconds)
            return await pool.call(interface, function, args, context)

        return call

    async def aclose(self) -> None:
        """Close all pools."""
        for pool in self._pools:
            await pool.aclose()


@asynccontextmanager
async def open_pools() -> AsyncIterator[Pools]:
    """An engine like a node's, with a compiler of its own."""
    with tempfile.TemporaryDirectory(prefix="lattice-bench-") as folder:
        async with Engine() as engine:
            pools = Pools(engine, Compiler(Path(folder), bytes(32)))
            try:
                yield pools
            finally:
                await pools.aclose()


class Stock:
    """A component in stock wasmtime-py."""

    def __init__(self, data: bytes) -> None:
        self._engine = wasmtime.Engine()
        self._component = stock.Component(self._engine, data)
        self._linker = stock.Linker(self._engine)

    def open(self, interface: str, function: str) -> Callable[..., Any]:
        """A fresh instance's function."""
        store = wasmtime.Store(self._engine)
        instance = self._linker.instantiate(store, self._component)
        parent = None if interface == wit.WORLD else self._component.get_export_index(interface)
        index = self._component.get_export_index(function, parent)
        assert index is not None
        found = instance.get_func(store, index)
        assert found is not None

        def call(*args: Any) -> Any:
            result = found(store, *args)
            found.post_return(store)
            return result

        return call


def calls(effort: Effort) -> Iterator[Row]:
    """Cold and warm calls."""
    yield from anyio.run(_calls, effort, backend_options={"use_uvloop": True})


async def _calls(effort: Effort) -> list[Row]:
    async with open_pools() as pools:
        compiled = await pools.compile(guests.spin())
        cold = pools.caller(compiled, prewarm=0)
        prewarmed = pools.caller(compiled)
        reused = pools.caller(compiled, prewarm=0, reuse=1_000_000)
        theirs = Stock(guests.spin())
        warm = theirs.open(wit.WORLD, "add")
        results: list[list[float]] = [[] for _ in range(5)]
        for _ in range(effort.rounds):
            for figures, measure in zip(
                results,
                (
                    _awaited(cold, effort.calls),
                    _awaited(prewarmed, effort.calls),
                    _awaited(reused, effort.calls),
                    _direct(lambda: theirs.open(wit.WORLD, "add")(1, 2), effort.calls),
                    _direct(lambda: warm(1, 2), effort.calls),
                ),
                strict=True,
            ):
                figures.append(await measure)
        ours_cold, ours_prewarmed, ours_reused, stock_cold, stock_warm = map(statistics.median, results)
    cold_target = Target(at_most=60.0, ratio_at_most=1.0)
    return [
        compare("cold call: fresh instance and first call", ours_cold, stock_cold, "us", cold_target),
        compare("call into a fresh instance made ahead", ours_prewarmed, stock_cold, "us"),
        compare("call of an instance that is used again", ours_reused, stock_warm, "us"),
    ]


async def _awaited(call: Call, calls: int) -> float:
    seconds = []
    for _ in range(calls + 1):
        began = time.perf_counter()
        assert await call(wit.WORLD, "add", 1, 2) == 3
        seconds.append(time.perf_counter() - began)
        await (
            anyio.lowlevel.checkpoint()
        )  # what a call leaves to be done after it, is done outside of what is measured
    return statistics.median(seconds[1:]) * 1e6


async def _direct(call: Callable[[], Any], calls: int) -> float:
    seconds = []
    for _ in range(calls + 1):
        began = time.perf_counter()
        assert call() == 3
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:]) * 1e6


def byte_lists(effort: Effort) -> Iterator[Row]:
    """`list<u8>` there and back."""
    yield from anyio.run(_byte_lists, effort, backend_options={"use_uvloop": True})


async def _byte_lists(effort: Effort) -> list[Row]:
    rows = []
    async with open_pools() as pools:
        call = pools.caller(await pools.compile(guests.echo()))
        theirs = Stock(guests.echo())
        for text, size in BYTE_SIZES.items():
            body = bytes(range(256)) * (size // 256)
            ours_seconds, stock_seconds = [], []
            for _ in range(effort.rounds):
                times = max(2, min(effort.calls, 20_000_000 // size))
                ours_seconds.append(await _echo(call, body, times))
                stock_seconds.append(_stock_echo(theirs, body, max(1, STOCK_BYTES_PER_ROUND // size)))
            target = Target(at_most=0.5, ratio_at_most=1.0) if text == "64 KB" else None
            ours = statistics.median(ours_seconds) * 1e3
            rows.append(
                compare(
                    f"list<u8> of {text} there and back",
                    ours,
                    statistics.median(stock_seconds) * 1e3,
                    "ms",
                    target,
                )
            )
    return rows


async def _echo(call: Call, body: bytes, times: int) -> float:
    seconds = []
    for _ in range(times + 1):
        began = time.perf_counter()
        result = await call(guests.ECHO_INTERFACE, "echo", body)
        seconds.append(time.perf_counter() - began)
        assert result == body
        await anyio.lowlevel.checkpoint()
    return statistics.median(seconds[1:])


def _stock_echo(theirs: Stock, body: bytes, times: int) -> float:
    seconds = []
    for _ in range(times):
        call = theirs.open(guests.ECHO_INTERFACE, "echo")
        began = time.perf_counter()
        result = call(body)
        seconds.append(time.perf_counter() - began)
        assert bytes(result) == body
    return statistics.median(seconds)
