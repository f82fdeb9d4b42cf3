"""The sandboxes of one component that are ready for a call, are being made, or have served one.

With the native helper most of them are on a shelf, where they serve one call after the other without an
object of Python. The first ones, those of a component that takes long to start, those that serve more than
one call, and all without the helper, are instances, made on the event loop.

    shelf:      made --call--> used --maker--> made       (no object, as long as nothing needs one)
                 |       \\--host call, long run, failure--> instance --> ended
    instances:  made --call--> used --> ended, or kept for another call
"""

from __future__ import annotations

import asyncio
import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias, cast

import anyio
import structlog

from lattice.clock import now
from lattice.errors import LatticeError, Overloaded
from node.engine.capi import BYTES_OFFSET
from node.engine.converter import Converter
from node.engine.driver import Batch, NativeTicker, Outcome, Recipe
from node.engine.engine import Engine
from node.engine.host import CallContext, GuestCall
from node.engine.instance import LOOP_TICKS, Instance
from node.engine.limits import InstanceLimits
from node.engine.linker import Bindings
from node.engine.pace import Pace, Standing, Trial
from node.engine.store import DrivenStore, Shelf, Store

log = structlog.get_logger()

IDLE_SECONDS = 10.0
"""After so long without a call a component keeps no instance ready."""
USED_INSTANCES = 8
"""So many that have served their last call may wait to be ended."""
USED_SECONDS = 0.002
"""So long they wait at the most: they may hold much memory."""
MAKE_AT_ONCE = 8
"""Instances made ahead in one go, some 20 us each, before others have the event loop."""
RETRY_SECONDS = (0.002, 0.01, 0.05)
"""When the allocator has no room although the totals say so: a slot is being returned just now."""
NOTE_SECONDS = 0.25
"""How often the engine is told that a component is in use."""

MakeCall: TypeAlias = Callable[[CallContext, Instance], GuestCall]


@dataclass(slots=True, eq=False)
class BatchEnd:
    """What a batch of calls has come to."""

    begun: int
    """How many calls have begun: the first ones."""
    results: bytes
    """Of those that are over, each in the place of its call."""
    computed_seconds: float
    has_begun: bool
    """False: it had to wait for a batch before, which has left calls."""
    under_way: dict[int, Instance] = field(default_factory=dict)
    """Those that are not over, by their place: two at the most."""
    last: Instance | None = None
    """That of the last call, if that is over and its result has parts: give it back."""


class Stock:
    """Belongs to the engine's event loop. Every instance that it gives comes back by `give_back`."""

    # The mutable state is the instances, ready and used, those that are starting, and the shelf.

    def __init__(
        self,
        engine: Engine,
        bindings: Bindings,
        component: int,
        limits: InstanceLimits,
        *,
        name: str,
        trial: Trial,
        make_call: MakeCall,
    ) -> None:
        """`component` is the address of the loaded code; it and `bindings` must outlive the stock."""
        self._engine = engine
        self._bindings = bindings
        self._component = component
        self._limits = limits
        self._name = name
        self._make_call = make_call
        self._pace = Pace(trial)
        self._store_limits = (
            limits.memory_bytes,
            limits.max_table_elements,
            limits.max_core_instances,
            limits.max_tables,
            limits.max_memories,
        )
        self._recipe = Recipe(
            engine=engine.address,
            linker=bindings.linker,
            component=component,
            limits=self._store_limits,
            ticks=LOOP_TICKS,
        )
        self._recipe_address = ctypes.addressof(self._recipe)
        self._idle: list[Instance] = []
        self._used: list[Instance] = []
        self._starting = 0
        self._made = 0
        self._noted = 0.0
        self._last_used = time.monotonic()
        self._tidying: asyncio.Handle | None = None
        self._is_tidied_soon = False
        self._on_free: Callable[[], None] | None = None
        self._batch: Batch | None = None
        """The last one that is under way."""
        self.wanted = 0
        """How many are to be ready; none once the stock closes."""
        self.shelf = self._new_shelf()

    def _new_shelf(self) -> Shelf | None:
        maker, ticker, limits = self._engine.maker, self._engine.ticker, self._limits
        if maker is None or limits.reuse > 1 or not limits.prewarm:
            return None
        assert isinstance(ticker, NativeTicker)
        return Shelf(maker, self._recipe_address, ticker, limits.prewarm, self._own)

    def __len__(self) -> int:
        """Those that are ready, or soon will be without anybody's doing."""
        return len(self._idle) + (len(self.shelf) if self.shelf is not None else 0)

    @property
    def made(self) -> int:
        """Instances made so far, those that only the driver knows included."""
        return self._made + (self.shelf.served + len(self.shelf) if self.shelf is not None else 0)

    # For a call

    def take(self) -> Instance | None:
        """An instance that is ready, if there is one."""
        self._last_used = time.monotonic()
        while not self._idle and self.shelf is not None and (store := self.shelf.take()) is not None:
            self._arrive(store)
        return self._idle.pop() if self._idle else None

    def service(self, export: int, converter: Converter) -> int:
        """By which the shelf, if there is one, serves an export."""
        return 0 if self.shelf is None else self.shelf.service(export, converter.count, converter.results)

    def ask(self, service: int, text: bytes) -> bytes | Instance | None:
        """A call on the shelf, from text to text: its answer, or the instance that it is in."""
        assert self.shelf is not None
        answer = self.shelf.ask(service, text)
        if answer.__class__ is bytes:
            return answer
        return self._left(cast("DrivenStore | None", answer))

    def serve(self, service: int, values: bytes) -> memoryview | Instance | None:
        """A call on the shelf: its result, which is there until the next one, or the instance that it is in.

        `values`, the lowered arguments, must be kept until the call has ended.
        """
        assert self.shelf is not None
        found = self.shelf.serve(service, id(values) + BYTES_OFFSET)
        return found if isinstance(found, memoryview) else self._left(found)

    def begin_batch(
        self,
        service: int,
        values: bytes,
        calls: int,
        *,
        may_overlap: bool,
        on_end: Callable[[BatchEnd], None],
    ) -> bool:
        """Have calls made beside the event loop; false if that can't be now.

        They keep their order: none is begun while one of a batch before has not been, and will not be.
        `values`: the lowered arguments of all. With `may_overlap` one call may be left under way while others
        follow.
        """
        batches, shelf = self._engine.batches, self.shelf
        if batches is None or shelf is None:
            return False
        batch = Batch(may_overlap=may_overlap)
        shelf.fill_in(batch, service)
        sandboxes = 1 + may_overlap
        if not self._admit(sandboxes):
            return False

        def ended(batch: Batch, results: bytes) -> None:
            on_end(self._batch_ended(batch, results, sandboxes))

        if batches.begin(batch, values, calls, ended, before=self._batch):
            self._batch = batch
            return True
        self._dismiss(sandboxes)
        return False

    def _admit(self, sandboxes: int) -> bool:
        for admitted in range(sandboxes):
            try:
                self._engine.admit()
            except Overloaded:
                self._dismiss(admitted)
                return False
        return True

    def _dismiss(self, sandboxes: int) -> None:
        for _ in range(sandboxes):
            self._engine.dismiss()

    def _batch_ended(self, batch: Batch, results: bytes, sandboxes: int) -> BatchEnd:
        assert self.shelf is not None
        if batch is self._batch:
            self._batch = None
        given, waiting = self.shelf.left_by(batch)
        left = (given is not None) + (waiting is not None)
        self._dismiss(sandboxes - left)
        self._made += batch.begun + (batch.left == Outcome.BADLY_MADE) - left
        self.served(now())
        end = BatchEnd(batch.begun, results, batch.computed / 1e9, has_begun=batch.left != Outcome.NONE)
        if waiting is not None:
            end.under_way[batch.waiting_at] = cast("Instance", waiting.owner)
        if given is None:
            return end
        if batch.left == Outcome.DONE:
            end.last = cast("Instance", given.owner)
            end.last.calls += 1
        elif (instance := self._left(given)) is not None:
            end.under_way[batch.begun - 1] = instance
        return end

    def _left(self, store: DrivenStore | None) -> Instance | None:
        """The instance of a sandbox that has left the shelf, if a call is under way in it."""
        if store is None:
            return None
        if not store.is_under_way:
            self._arrive(store)
            return None
        return cast("Instance", store.owner)

    def keep_last(self) -> Instance:
        """The instance of the last call on the shelf, which has ended; its result is still there."""
        assert self.shelf is not None
        instance = cast("Instance", self.shelf.keep_last().owner)
        instance.calls += 1
        return instance

    def _arrive(self, store: DrivenStore) -> None:
        """Keep a sandbox that has left the shelf without a call; its start may have yet to be finished."""
        instance = cast("Instance", store.owner)
        self._starting += 1
        try:
            is_ready = instance.arrive(self._starting_call(instance), self._pace)
        except LatticeError as error:
            self._prewarm_failed(error)
            return
        self._started(instance, is_ready=is_ready)

    async def make(self, context: CallContext) -> Instance:
        """A new instance; raises `Overloaded`, or what its start failed with."""
        for seconds in RETRY_SECONDS:
            try:
                return await self._make_once(context)
            except Overloaded:
                if now() + seconds > context.deadline:
                    raise
            if not self._engine.make_room():
                await anyio.sleep(seconds)
        return await self._make_once(context)

    async def _make_once(self, context: CallContext) -> Instance:
        instance = self._new()
        call = self._make_call(context, instance)
        if not instance.start_now(self._bindings.linker, self._component, call, self._pace):
            await instance.finish_start()
        return instance

    def _new(self) -> Instance:
        engine = self._engine
        engine.admit()
        maker = engine.maker
        if maker is None:
            return self._own(Store(engine.address, self._store_limits))
        return self._own(DrivenStore(maker, self._recipe_address))

    def _own(self, store: Store) -> Instance:
        self._made += 1
        return Instance(self._engine, store, self._bindings.resources)

    def give_back(self, instance: Instance, *, is_urgent: bool = False) -> None:
        """Keep an instance or end it; if that is urgent, ending it waits until the answer has left."""
        if instance.is_usable and instance.calls < self._limits.reuse and not self._is_closing:
            self._idle.append(instance)
            self._engine.keep_spares(self)
        elif is_urgent and not self._is_closing:
            self._used.append(instance)
            self._engine.keep_spares(self)
        else:
            instance.close()
        # In batches, so that of calls one after the other most meet neither the making nor the ending.
        wanted = self.wanted
        if (wanted and len(self) + self._starting <= wanted // 2) or len(self._used) > USED_INSTANCES:
            if self.shelf is not None and not self._idle:
                self._tidy()  # calls come one upon the other: the next one can't wait for it
            else:
                self._tidy_soon()
        elif self._used:
            self._tidy_later()

    def served(self, began: float) -> None:
        """After a call on the shelf that began then."""
        self._last_used = began
        if began - self._noted > NOTE_SECONDS:
            self._noted = began
            self._engine.keep_spares(self)
        if not self._is_tidied_soon:
            self._tidy_soon()

    # Order

    def _tidy_later(self) -> None:
        """End what has been used before long, also if no other call comes."""
        if self.shelf is not None:
            self._tidy_soon()
        elif self._tidying is None:
            self._tidying = asyncio.get_running_loop().call_later(USED_SECONDS, self._tidy)

    def _tidy_soon(self) -> None:
        if self._is_tidied_soon:
            return
        if self._tidying is not None:
            self._tidying.cancel()
        self._is_tidied_soon = True
        self._tidying = asyncio.get_running_loop().call_soon(self._tidy)

    def _tidy(self) -> None:
        """End used instances and make new ones; if it can, after the answer of the call that asked for it."""
        if self._tidying is not None:
            self._tidying.cancel()
        self._tidying = None
        self._is_tidied_soon = False
        while self.shelf is not None and len(self) > self.wanted and self._withdraw(waits=False):
            pass
        wants_more = self.shelf is not None and self.shelf.tidy(MAKE_AT_ONCE)
        for _ in range(MAKE_AT_ONCE):
            if not self._wants_more():
                break
            self._prewarm()
        self._end_used()  # now the maker is awake, if it was asked to make any
        if wants_more or self._wants_more():
            self._tidy_soon()

    def _end_used(self) -> bool:
        """End the instances that were left for later; false if there are none."""
        used, self._used = self._used, []
        for instance in used:
            instance.close()
        return bool(used)

    # Instances made ahead of a call

    def _wants_more(self) -> bool:
        engine = self._engine
        if not engine.is_running or not engine.has_room_for_spares:
            return False
        return len(self) + self._starting < self.wanted

    def _prewarm(self) -> None:
        """Make one instance, or begin to, or have the maker make one."""
        if self._pace.standing is Standing.TRUSTED and self._put_on_shelf():
            return
        self._starting += 1
        try:
            instance = self._new()
            call = self._starting_call(instance)
            is_ready = instance.start_now(self._bindings.linker, self._component, call, self._pace)
        except LatticeError as error:
            self._prewarm_failed(error)
            return
        self._started(instance, is_ready=is_ready)

    def _started(self, instance: Instance, *, is_ready: bool) -> None:
        if is_ready:
            self._keep(instance)
        else:
            self._engine.start_soon(self._finish_prewarm, instance)

    def _put_on_shelf(self) -> bool:
        if self.shelf is None:
            return False
        try:
            self._engine.admit()
        except Overloaded:
            return False
        if self.shelf.stock():
            self._engine.keep_spares(self)
            return True
        self._engine.dismiss()
        return False

    def _starting_call(self, instance: Instance) -> GuestCall:
        return self._make_call(CallContext(deadline=now() + self._limits.budget_seconds), instance)

    async def _finish_prewarm(self, instance: Instance) -> None:
        try:
            await instance.finish_start()
        except LatticeError as error:
            self._prewarm_failed(error)
        except BaseException:
            self._end_starting()
            raise
        else:
            self._keep(instance)

    def _keep(self, instance: Instance) -> None:
        if self._is_closing:
            instance.close()
        else:
            self._idle.append(instance)
            self._engine.keep_spares(self)
        self._end_starting()

    def _prewarm_failed(self, error: LatticeError) -> None:
        self._end_starting()  # the next call makes its own instance and gets the error, if it persists
        log.debug("instance.prewarm_failed", component=self._name, error=error.message)

    def _end_starting(self) -> None:
        self._starting -= 1
        self._free_if_empty()

    # Ending

    def drop_spare(self) -> bool:
        """End one instance that is kept ready; false if there is none."""
        if self._end_used():
            return True
        if self._idle:
            self._idle.pop(0).close()
            return True
        return self._withdraw(waits=False)

    def drop_all(self) -> None:
        """End all that are kept ready."""
        while self.drop_spare():
            pass
        self._engine.forget_spares(self)

    def drop_idle(self) -> None:
        """The same, if the component has not been called for a while."""
        if time.monotonic() - self._last_used > IDLE_SECONDS:
            self.drop_all()

    def _withdraw(self, *, waits: bool) -> bool:
        if self.shelf is None:
            return False
        store = self.shelf.withdraw(waits=waits)
        if isinstance(store, DrivenStore):
            instance = cast("Instance", store.owner)
            instance.call = self._starting_call(instance)
            instance.close()
        elif store:
            self._made += 1
            self._engine.dismiss()
        return store is not False

    @property
    def _is_closing(self) -> bool:
        return self._on_free is not None

    def close(self, on_free: Callable[[], None]) -> None:
        """End all of them; `on_free` is called once none is left, as some may still be starting."""
        self._on_free = on_free
        self.wanted = 0
        if self._tidying is not None:
            self._tidying.cancel()
        while self._withdraw(waits=True):
            pass
        self.drop_all()
        self._free_if_empty()

    def _free_if_empty(self) -> None:
        if self._on_free is None or self._starting:
            return
        if self.shelf is not None:
            self._made += self.shelf.served
            self.shelf.close()
            self.shelf = None
        self._on_free()
