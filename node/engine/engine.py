"""The engine of a node: what all components share, and the room there is for instances."""

from __future__ import annotations

import asyncio
import resource
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio
import anyio.to_thread
from anyio import AsyncContextManagerMixin
from anyio.abc import TaskGroup

from lattice.errors import Invalid, Overloaded
from node.engine import capi, store
from node.engine.batches import Batches
from node.engine.channels import Doorbell
from node.engine.compiled import CompiledComponent
from node.engine.configuration import (
    MAX_ADDRESS_SPACE_BYTES,
    EngineSettings,
    address_space_bytes,
    make_engine,
)
from node.engine.driver import Absence, Maker, NativeTicker
from node.engine.stopwatch import Stopwatch
from node.engine.ticker import TICK_SECONDS, Ticker
from node.engine.traps import root_cause
from node.engine.workers import Workers

SWEEP_SECONDS = 5.0
"""How often components are looked over for instances that have been kept ready for nothing."""


class Spares(Protocol):
    """A pool, as far as the engine reclaims room from it."""

    def drop_spare(self) -> bool:
        """End one instance that is kept ready; false if there is none."""

    def drop_idle(self) -> None:
        """End the instances kept ready if the component has not been called for a while."""


class Engine(AsyncContextManagerMixin):
    """Loads components and holds what their instances need; an async context manager.

    On leaving, pools must have been closed. Not thread-safe: it belongs to one event loop.
    """

    # The mutable state is the count of living instances, the loaded components and the pools with spares.

    def __init__(
        self,
        settings: EngineSettings | None = None,
        *,
        workers: int | None = None,
        has_spare_core: bool = True,
    ) -> None:
        """`workers` are the threads for long slices, as many as cores when None.

        `has_spare_core`: whether there is one for a thread that makes sandboxes ahead of calls, beside this
        event loop and those of other processes.

        Raises `Invalid` when the process may not reserve the address space for so many instances.
        """
        self.settings = settings or EngineSettings()
        _check_address_space(self.settings)
        self._wasm = make_engine(self.settings)
        self.address = capi.engine_address(self._wasm)
        self.stopwatch = Stopwatch()
        self.instances = 0
        """Living instances, those kept ready included."""
        self._components: dict[str, tuple[capi.Component, int]] = {}
        self._spares: OrderedDict[Spares, None] = OrderedDict()
        self._threads = workers
        self._has_spare_core = has_spare_core
        self._tasks: TaskGroup | None = None

    def __repr__(self) -> str:
        return f"<Engine instances={self.instances}/{self.settings.max_instances}>"

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Engine]:
        self.workers = Workers(self._threads)
        self.ticker = self._start_ticker()
        self.maker = None if store.DRIVER is None else Maker(store.DRIVER, has_thread=self._has_spare_core)
        self.doorbell = None if store.DRIVER is None else Doorbell(store.DRIVER, asyncio.get_running_loop())
        self.batches = self._new_batches()
        try:
            async with _body_errors_as_they_are(), anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(self._sweep)
                try:
                    yield self
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            self._tasks = None
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._stop_threads)
            if self.doorbell is not None:
                self.doorbell.close()
            if self.batches is not None:
                self.batches.close()

    @property
    def handicap(self) -> Absence | None:
        """What makes calls slower here than they could be."""
        return store.NO_DRIVER

    def _start_ticker(self) -> Ticker | NativeTicker:
        if store.DRIVER is not None:
            return NativeTicker(store.DRIVER, self.address, TICK_SECONDS)
        return Ticker(lambda: capi.increment_epoch(self.address))

    def _new_batches(self) -> Batches | None:
        if self.maker is None or not self.maker.has_thread:
            return None
        return Batches(self.maker, asyncio.get_running_loop())

    def _stop_threads(self) -> None:
        self.workers.close()
        if self.maker is not None:
            self.maker.stop()
        self.ticker.close()
        for component, _ in self._components.values():
            component.close()
        self._components.clear()
        self._wasm.close()  # its address space is taken until then

    def start_soon(self, function: Callable[..., Any], *args: Any) -> None:
        """Run something that no call waits for, in the engine's task group."""
        if self._tasks is None:
            raise RuntimeError("the engine has not been entered, or has been left")
        self._tasks.start_soon(function, *args)

    @property
    def is_running(self) -> bool:
        return self._tasks is not None

    # Loaded code

    async def prepare(self, compiled: CompiledComponent) -> None:
        """Load a component's code on a thread, so that making its pool does not block; then `unload` it."""
        if str(compiled.path) not in self._components:
            component = await self.workers.run(lambda: self._read(compiled))
            if str(compiled.path) not in self._components:
                self._components[str(compiled.path)] = (component, 1)
                return
            component.close()
        self.load(compiled)

    def load(self, compiled: CompiledComponent) -> capi.Component:
        """The component's code, shared by all who load it; follow with `unload`. Raises `Invalid`."""
        component, users = self._components.get(str(compiled.path)) or (self._read(compiled), 0)
        self._components[str(compiled.path)] = (component, users + 1)
        return component

    def unload(self, compiled: CompiledComponent) -> None:
        """Give back what `load` or `prepare` gave; the last one frees it."""
        component, users = self._components[str(compiled.path)]
        if users > 1:
            self._components[str(compiled.path)] = (component, users - 1)
        else:
            del self._components[str(compiled.path)]
            component.close()

    def _read(self, compiled: CompiledComponent) -> capi.Component:
        try:
            return capi.Component(self.address, str(compiled.path))
        except capi.WasmError as error:
            raise Invalid(
                f"the compiled component can't be loaded: {root_cause(str(error))}; compile it again"
            ) from error

    # Room for instances

    def admit(self) -> None:
        """Count one more instance, in place of a spare one if need be; raises `Overloaded` without room."""
        if self.instances >= self.settings.max_instances and not self._reclaim():
            raise Overloaded(
                f"all {self.settings.max_instances} instances of this node are in use; ask another replica"
            )
        self.instances += 1

    def dismiss(self) -> None:
        """Give back the room of an instance that has been ended."""
        self.instances -= 1

    def end(self, sandbox: store.Store, *, is_slow: bool) -> None:
        """Free an instance and its room; `is_slow`: on a worker, as it may have touched much memory."""
        if not is_slow or self.maker is not None or self._tasks is None:
            sandbox.close()
            self.instances -= 1
            return
        self._tasks.start_soon(self._end_away, sandbox)

    async def _end_away(self, sandbox: store.Store) -> None:
        with anyio.CancelScope(shield=True):
            await self.workers.run(lambda: sandbox.close(is_slow=True))
        self.instances -= 1

    def make_room(self) -> bool:
        """End an instance that is kept ready; false if there is none."""
        return self._reclaim()

    @property
    def has_room_for_spares(self) -> bool:
        """Spare instances may take up half of the room, so that calls need not wait for reclaiming."""
        return self.instances * 2 < self.settings.max_instances

    def keep_spares(self, pool: Spares) -> None:
        """Note that a pool has spare instances and was used just now."""
        self._spares[pool] = None
        self._spares.move_to_end(pool)

    def forget_spares(self, pool: Spares) -> None:
        self._spares.pop(pool, None)

    def _reclaim(self) -> bool:
        while self._spares:
            pool = next(iter(self._spares))
            if pool.drop_spare():
                return True
            del self._spares[pool]
        return False

    async def _sweep(self) -> None:
        """End spare instances of idle components; nothing here can fail."""
        while True:
            await anyio.sleep(SWEEP_SECONDS)
            for pool in list(self._spares):
                pool.drop_idle()


@asynccontextmanager
async def _body_errors_as_they_are() -> AsyncGenerator[None]:
    """The engine's own tasks don't fail: a group of one is the error of the body."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise


def _check_address_space(settings: EngineSettings) -> None:
    needed = address_space_bytes(settings)
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed == resource.RLIM_INFINITY:
        allowed = MAX_ADDRESS_SPACE_BYTES
    if needed > allowed:
        raise Invalid(
            f"{settings.max_instances} instances need {needed >> 30} GiB of address space (not memory), and "
            f"this process may have {allowed >> 30}: lower max_instances, or raise the limit (`ulimit -v`)"
        )
