"""The instances of one component on one node: who calls, in which sandbox, within which limits."""

from __future__ import annotations

import asyncio
import ctypes
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import structlog

from lattice import wit
from lattice.clock import now
from lattice.errors import Invalid, LatticeError, NotFound, Overloaded, TimedOut, Unreachable
from lattice.names import did_you_mean
from node.engine.compiled import CompiledComponent
from node.engine.converter import Converter
from node.engine.driver import Recipe
from node.engine.engine import Engine
from node.engine.host import CallContext, GuestCall, HostInterface, LogSink
from node.engine.instance import LOOP_TICKS, Export, Instance, LoweredCall, lower_call
from node.engine.limits import InstanceLimits
from node.engine.linker import Bindings, compatible_name
from node.engine.lowering import HEAVY_BYTES, Heavy
from node.engine.output import LimitedOutput, log_output
from node.engine.pace import Pace, Standing, Trial
from node.engine.permits import Permits

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


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """What a component does on this node, since its pool was made."""

    slots: int
    in_flight: int
    queued: int
    calls: int
    errors: Mapping[str, int]
    """By code."""
    prewarmed: int
    instances_made: int
    busy_seconds: float
    """The time that calls took, waiting included, summed up."""
    dropped_log_bytes: int


class ComponentPool:
    """One revision of a component on one node. Belongs to the engine's event loop.

    A call gets a fresh sandbox, or one that has served fewer than `limits.reuse` calls. A sandbox in which
    anything went wrong serves no other call.
    """

    # The mutable state is the permits, the idle instances, and the counters that `statistics` shows.

    def __init__(
        self,
        engine: Engine,
        compiled: CompiledComponent,
        *,
        name: str,
        limits: InstanceLimits,
        slots: int,
        imports: Sequence[HostInterface],
        sink: LogSink = log_output,
    ) -> None:
        """Loads and links; raises `Denied` for an import that nothing provides, or `Invalid`."""
        self.name = name
        self.limits = limits
        self._engine = engine
        self._compiled = compiled
        self._component = engine.load(compiled)
        try:
            self._bindings = Bindings(engine.address, compiled, imports)
        except BaseException:
            engine.unload(compiled)
            raise
        self._exports: dict[tuple[str, str], Export] = {}
        self._permits = Permits(slots, queue_length=limits.queue_length, queue_seconds=limits.queue_seconds)
        self._output = LimitedOutput(sink, limits.log_bytes_per_second)
        self._trial = Trial()
        self._start_pace = Pace(self._trial)
        self._idle: list[Instance] = []
        self._ordered: deque[Instance] = deque()
        self._used: list[Instance] = []
        self._tidying: asyncio.Handle | None = None
        self._is_tidied_soon = False
        self._starting = 0
        self._is_draining = False
        self._is_closed = False
        self._last_call = time.monotonic()
        self._calls = 0
        self._made = 0
        self._busy_seconds = 0.0
        self._errors: Counter[str] = Counter()
        self._store_limits = (
            limits.memory_bytes,
            limits.max_table_elements,
            limits.max_core_instances,
            limits.max_tables,
            limits.max_memories,
        )
        self._recipe = Recipe(
            engine=engine.address,
            linker=self._bindings.linker,
            component=self._component.pointer,
            limits=self._store_limits,
            ticks=LOOP_TICKS,
        )
        self._recipe_address = ctypes.addressof(self._recipe)

    def __repr__(self) -> str:
        return f"<ComponentPool {self.name} {self._permits.in_use}/{self._permits.slots} in use>"

    async def call(
        self,
        interface: str,
        function: str,
        args: Sequence[Any] | Mapping[str, Any],
        context: CallContext,
        *,
        takes_objects: bool = False,
    ) -> Any:
        """Call an exported function; `interface` is `-` for one of the world itself.

        With `takes_objects`, resources that the component imports are passed and returned as the objects that
        the host made for them: for capabilities, never for what came from outside.

        Raises `NotFound`, `Invalid`, `Overloaded`, `Unreachable` while draining, `TimedOut`, `Trapped`,
        `Failed`, or what a host function raised. Cancelling ends the guest; if it runs on a thread just then,
        that is waited for, some milliseconds at most.
        """
        began = self._last_call = time.monotonic()
        self._calls += 1
        try:
            if self._is_draining:  # first: once that is over, the component's code is gone
                raise Unreachable(f"the component {self.name} is being moved away from this node")
            export = self._exports.get((interface, function)) or self._find(interface, function)
            if export.has_objects and not takes_objects:
                raise Invalid(
                    f"`{function}` takes or returns a resource, "
                    "which can't be passed from outside the component"
                )
            if not self._permits.acquire_nowait():
                await self._permits.acquire(context.deadline)
            try:
                return await self._serve(export, args, context)
            finally:
                self._permits.release()
        except BaseException as error:
            self._errors[_code(error)] += 1
            raise
        finally:
            self._busy_seconds += time.monotonic() - began

    async def ask(
        self, export: Export, text: bytes, context: CallContext, state: Mapping[Any, Any]
    ) -> bytes | PausedCall:
        """Call what `text_export` gave: from text to text, each as the bytes of its UTF-8.

        `state` is added to the instance's before. Raises what `call` raises. When a host function pauses the
        guest (`PAUSE`), the call is not over: its slot is taken until the `PausedCall` is.
        """
        began = self._last_call = time.monotonic()
        self._calls += 1
        try:
            if self._is_draining:
                raise Unreachable(f"the component {self.name} is being moved away from this node")
            if len(text) > self.limits.payload_bytes:
                raise Invalid(f"{len(text)} bytes exceed the component's payload limit: raise the limit")
            if not self._permits.acquire_nowait():
                await self._permits.acquire(context.deadline)
            answer: bytes | None = b""
            try:
                if now() > context.deadline:
                    raise TimedOut("the call's budget ended before it began")
                if self._has_idle():
                    instance = self._idle.pop()
                    call = GuestCall(self.name, context, instance, self._output)
                else:
                    instance, call = await self._make(context)
                instance.state.update(state)
                try:
                    answer = await instance.ask(export, text, call)
                finally:
                    if answer is not None:
                        self._give_back(instance, is_urgent=True)
            finally:
                if answer is not None:
                    self._permits.release()
            return PausedCall(self, instance) if answer is None else answer
        except BaseException as error:
            self._errors[_code(error)] += 1
            raise
        finally:
            self._busy_seconds += time.monotonic() - began

    async def _go_on(self, instance: Instance, value: Any) -> bytes:
        began = time.monotonic()
        try:
            return await instance.go_on(value)
        except BaseException as error:
            self._errors[_code(error)] += 1
            raise
        finally:
            self._give_back(instance)
            self._permits.release()
            self._busy_seconds += time.monotonic() - began

    def text_export(self, interface: str, function: str) -> Export:
        """An export from text to text, to be called by `ask`."""
        export = self._export(self._compiled.linked_type.exports[interface], function)
        if export.converter.function != wit.Function(export.converter.function.params[:1], wit.STRING):
            raise Invalid(f"`{function}` is not a function from text to text")
        return export

    @property
    def exports(self) -> Mapping[str, wit.Interface]:
        """What the component exports, by name."""
        return self._compiled.linked_type.exports

    def start_soon(self, function: Callable[..., Any], *args: Any) -> None:
        """Run something around calls that outlives who asked for it, in the engine's task group."""
        self._engine.start_soon(function, *args)

    def resize(self, slots: int) -> None:
        """Change how many calls may run at once; calls in progress are not interrupted."""
        self._permits.resize(slots)

    async def drain(self) -> None:
        """Refuse new calls with `Unreachable`; returns when none is in flight or waiting."""
        self._is_draining = True
        await self._permits.wait_idle()

    async def aclose(self) -> None:
        """Drain, then free everything; may be called again."""
        await self.drain()
        if self._is_closed:
            return
        self._collect(is_all=True)
        self._is_closed = True
        self._engine.forget_spares(self)
        self._end_used()
        while self._idle:
            self._idle.pop().close()
        if not self._starting:
            self._free()

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(
            slots=self._permits.slots,
            in_flight=self._permits.in_use,
            queued=self._permits.queued,
            calls=self._calls,
            errors=dict(self._errors),
            prewarmed=len(self._idle) + len(self._ordered),
            instances_made=self._made,
            busy_seconds=self._busy_seconds,
            dropped_log_bytes=self._output.dropped_bytes,
        )

    def standing(self, interface: str, function: str) -> Standing:
        """Whether calls of a function begin on the event loop."""
        return self._find(interface, function).pace.standing

    def drop_spare(self) -> bool:
        """End one instance that is kept ready; false if there is none."""
        if self._end_used():
            return True
        if not self._idle:
            self._collect(is_all=True)
        if not self._idle:
            return False
        self._idle.pop(0).close()
        return True

    def drop_idle(self) -> None:
        """End the instances kept ready if the component has not been called for a while."""
        if time.monotonic() - self._last_call > IDLE_SECONDS:
            while self.drop_spare():
                pass
            self._engine.forget_spares(self)

    # One call

    async def _serve(
        self, export: Export, args: Sequence[Any] | Mapping[str, Any], context: CallContext
    ) -> Any:
        if now() > context.deadline:
            raise TimedOut("the call's budget ended before it began")
        if export.has_objects:
            return await self._serve_objects(export, args, context)
        try:
            lowered = lower_call(export, args, self.limits.payload_bytes, may_be_heavy=False)
        except Heavy:
            lowered = await self._lower_away(export, args)
        try:
            if self._has_idle():
                instance = self._idle.pop()
                call = GuestCall(self.name, context, instance, self._output)
            else:
                instance, call = await self._make(context)
            try:
                return await instance.invoke(lowered, call)
            finally:
                self._give_back(instance)
        finally:
            lowered.close()

    async def _serve_objects(
        self, export: Export, args: Sequence[Any] | Mapping[str, Any], context: CallContext
    ) -> Any:
        """Handles belong to an instance, so it comes first, and the arguments are lowered for it."""
        if self._has_idle():
            instance = self._idle.pop()
            call = GuestCall(self.name, context, instance, self._output)
        else:
            instance, call = await self._make(context)
        try:
            lowered = lower_call(export, args, self.limits.payload_bytes, may_be_heavy=True, owner=instance)
            lowered.lender.may_be_heavy = lowered.lender.lent_bytes > HEAVY_BYTES
            try:
                return await instance.invoke(lowered, call)
            finally:
                lowered.close()
        finally:
            self._give_back(instance)

    async def _lower_away(self, export: Export, args: Sequence[Any] | Mapping[str, Any]) -> LoweredCall:
        limit = self.limits.payload_bytes
        return await self._engine.workers.run(lambda: lower_call(export, args, limit, may_be_heavy=True))

    async def _make(self, context: CallContext) -> tuple[Instance, GuestCall]:
        for seconds in RETRY_SECONDS:
            try:
                return await self._make_once(context)
            except Overloaded:
                if now() + seconds > context.deadline:
                    raise
            if not self._engine.make_room():
                await anyio.sleep(seconds)
        return await self._make_once(context)

    async def _make_once(self, context: CallContext) -> tuple[Instance, GuestCall]:
        instance, call = self._new(context)
        if not instance.start_now(self._bindings.linker, self._component.pointer, call, self._start_pace):
            await instance.finish_start()
        return instance, call

    def _new(self, context: CallContext) -> tuple[Instance, GuestCall]:
        instance = Instance(self._engine, self._store_limits, self._bindings.resources, self._recipe_address)
        self._made += 1
        return instance, GuestCall(self.name, context, instance, self._output)

    def _give_back(self, instance: Instance, *, is_urgent: bool = False) -> None:
        """Keep an instance or end it; if that is urgent, ending it waits until the answer has left."""
        if instance.is_usable and instance.calls < self.limits.reuse and not self._is_draining:
            self._idle.append(instance)
            self._engine.keep_spares(self)
        elif is_urgent and not self._is_draining:
            self._used.append(instance)
            self._engine.keep_spares(self)
        else:
            instance.close()
        # In batches, so that of calls one after the other most meet neither the making nor the ending.
        wanted = min(self.limits.prewarm, self._permits.slots)
        if (wanted and len(self._idle) + self._starting <= wanted // 2) or len(self._used) > USED_INSTANCES:
            if self._engine.maker is not None and not self._idle:
                self._tidy()  # calls come one upon the other: the next one can't wait for it
            else:
                self._tidy_soon()
        elif self._used and self._tidying is None:
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
        self._collect()
        context = CallContext(deadline=now() + self.limits.budget_seconds)
        for _ in range(MAKE_AT_ONCE):
            if not self._wants_more():
                break
            self._prewarm(context)
        self._end_used()  # now the maker is awake, if it was asked to make any
        if self._wants_more():
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
        if self._is_draining or not engine.is_running or not engine.has_room_for_spares:
            return False
        return len(self._idle) + self._starting < min(self.limits.prewarm, self._permits.slots)

    def _prewarm(self, context: CallContext) -> None:
        """Make one instance, or begin to."""
        self._starting += 1
        try:
            instance, call = self._new(context)
            if instance.order(call, self._start_pace):
                self._ordered.append(instance)
                return
            is_ready = instance.start_now(
                self._bindings.linker, self._component.pointer, call, self._start_pace
            )
        except LatticeError as error:
            self._prewarm_failed(error)
            return
        self._started(instance, is_ready=is_ready)

    def _started(self, instance: Instance, *, is_ready: bool) -> None:
        if is_ready:
            self._keep(instance)
        else:
            self._engine.start_soon(self._finish_prewarm, instance)

    def _collect(self, *, is_all: bool = False) -> None:
        """Take over what was ordered: what is there by now, or all of it, waiting for it."""
        while self._ordered and (is_all or self._ordered[0].has_arrived):
            self._take_over()

    def _take_over(self) -> None:
        instance = self._ordered.popleft()
        try:
            is_ready = instance.arrive(self._start_pace)
        except LatticeError as error:
            self._prewarm_failed(error)
        else:
            self._started(instance, is_ready=is_ready)

    def _has_idle(self) -> bool:
        """Whether an instance is ready, or one of those that were ordered can be."""
        if not self._idle and self._ordered:
            self._collect()
        for _ in range(len(self._ordered)):
            if self._idle:
                break
            if self._ordered[0].hurry():
                self._take_over()
            else:
                self._ordered.rotate(-1)  # it is being made: nobody waits for that
        return bool(self._idle)

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
        if self._is_draining:
            instance.close()
        else:
            self._idle.append(instance)
            self._engine.keep_spares(self)
        self._end_starting()

    def _prewarm_failed(self, error: LatticeError) -> None:
        self._end_starting()  # the next call makes its own instance and gets the error, if it persists
        log.debug("instance.prewarm_failed", component=self.name, error=error.message)

    def _end_starting(self) -> None:
        self._starting -= 1
        if self._is_closed and not self._starting:
            self._free()

    def _free(self) -> None:
        self._bindings.close()
        self._engine.unload(self._compiled)

    # Exports

    def _find(self, interface: str, function: str) -> Export:
        """The export of that name, or of a compatible version; its converter is made at its first call."""
        found = self._interface(interface)
        if known := self._exports.get((found.name, function)):
            return known
        if function not in found.functions:
            raise NotFound(
                f"`{interface}` of {self.name} has no function `{function}`"
                f"{did_you_mean(function, found.functions)}"
            )
        export = self._exports[found.name, function] = self._export(found, function)
        return export

    def _export(self, found: wit.Interface, function: str) -> Export:
        type_ = found.functions[function]
        name = None if found.name == wit.WORLD else found.name
        index = self._component.export(name, function)
        if not index:
            raise NotFound(
                f"`{found.name}` of {self.name} is called by HTTP requests only: "
                f"`latticectl route put PATH {self.name}` brings it some"
            )
        converter = Converter(
            type_,
            is_adapted=found.name in self._compiled.adapted_exports and wit.carries_bytes(type_),
            resources=self._bindings.numbers({function: type_}),
        )
        has_objects = any(wit.contains_handle(part) for part in wit.function_types(type_))
        return Export(
            f"{found.name}#{function}", index, converter, Pace(self._trial), has_objects=has_objects
        )

    def _interface(self, name: str) -> wit.Interface:
        exports = self._compiled.type.exports
        if name in exports:
            return exports[name]
        for candidate in exports.values():
            if compatible_name(candidate.name) == compatible_name(name):
                return candidate
        shown = "no functions of its world" if name == wit.WORLD else f"no interface `{name}`"
        listed = ", ".join(f"`{export}`" for export in exports) or "nothing"
        raise NotFound(f"{self.name} exports {shown}{did_you_mean(name, exports)}; it exports {listed}")


class PausedCall:
    """A call whose guest a host function has paused; it takes a slot until `go_on` was awaited."""

    __slots__ = ("_instance", "_pool")

    def __init__(self, pool: ComponentPool, instance: Instance) -> None:
        self._pool = pool
        self._instance = instance

    async def go_on(self, value: Any) -> bytes:
        """Give the host function's result and drive the guest to its end. Cancelling ends the guest."""
        return await self._pool._go_on(self._instance, value)


def _code(error: BaseException) -> str:
    if isinstance(error, LatticeError):
        return error.code
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "failed"
