"""The instances of one component on one node: who calls, in which sandbox, within which limits."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lattice import wit
from lattice.clock import now
from lattice.errors import Invalid, LatticeError, NotFound, TimedOut, Unreachable
from lattice.names import did_you_mean
from lattice.outcome import Done, Outcome
from lattice.tasks import cancel
from node.engine.calls import Export, LoweredCall, lower_batch, lower_call
from node.engine.capi import VALUE_SIZE, Lender
from node.engine.compiled import CompiledComponent
from node.engine.converter import Converter
from node.engine.engine import Engine
from node.engine.host import CallContext, GuestCall, HostInterface, LogSink
from node.engine.instance import LONG_SECONDS, Instance
from node.engine.lifting import NoHandles, Reader
from node.engine.limits import InstanceLimits
from node.engine.linker import Bindings, compatible_name
from node.engine.lowering import HEAVY_BYTES, Heavy
from node.engine.output import LimitedOutput, log_output
from node.engine.pace import Pace, Standing, Start, Trial
from node.engine.permits import Permits
from node.engine.stock import BatchEnd, Stock

_NO_STATE: Mapping[Any, Any] = {}
_TRUSTED = Standing.TRUSTED
"""Looking up a member of an enumeration takes time."""
_LIGHT_READER = Reader(NoHandles(), False)


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
        self._is_draining = False
        self._is_closed = False
        self._calls = 0
        self._busy_seconds = 0.0
        self._errors: Counter[str] = Counter()
        self._stock = Stock(
            engine,
            self._bindings,
            self._component.pointer,
            limits,
            name=name,
            trial=self._trial,
            make_call=self._new_call,
        )
        self.resize(slots)

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
        outcome = self.begin(interface, function, args, context, takes_objects=takes_objects)
        return outcome.value if isinstance(outcome, Done) else await outcome

    def begin(
        self,
        interface: str,
        function: str,
        args: Sequence[Any] | Mapping[str, Any],
        context: CallContext,
        *,
        takes_objects: bool = False,
    ) -> Outcome[Any]:
        """As `call`: most calls of a function that has been quick so far are over when this returns."""
        export = self._exports.get((interface, function))
        if export is not None and not export.has_objects and self._may_be_quick(export):
            outcome = self._begin_on_shelf(export, args, context)
            if outcome is not None:
                return outcome
        return self._call(interface, function, args, context, takes_objects)

    def _begin_on_shelf(
        self, export: Export, args: Sequence[Any] | Mapping[str, Any], context: CallContext
    ) -> Outcome[Any] | None:
        """None for a call that has not begun: it needs more, or will be refused."""
        converter, lender = export.converter, Lender(None, False)
        try:
            values = converter.lower_arguments(args, lender)
        except (Heavy, Invalid):
            return None
        began = self._engine.stopwatch.begin()
        if began > context.deadline or lender.lent_bytes > self.limits.payload_bytes:
            return None
        found = self._stock.serve(export.service, values)
        if found is None:
            return None
        self._calls += 1
        if isinstance(found, Instance):
            self._permits.acquire_nowait()  # there is one, and a call on the shelf takes none
            return self._go_through(found, LoweredCall(export, values, lender), context, began)
        self._judge(export, began)
        try:
            return Done(converter.lift_result(found, _LIGHT_READER))
        except Heavy:
            self._permits.acquire_nowait()
            return self._lift_away(self._stock.keep_last(), converter)

    def begin_batch(
        self,
        interface: str,
        function: str,
        size: int,
        args: Callable[[int], Sequence[Any]],
        deadline: float,
        context: Callable[[int], CallContext],
        *,
        may_overlap: bool,
    ) -> Awaitable[list[Outcome[Any]]] | None:
        """Have calls of a function that has been quick so far made one after the other, beside the loop.

        None if they should be begun one by one. Gives what those that have begun, the first ones, have come
        to. One of them may not be over; two if they `may_overlap`. `args` makes the values for the nth,
        `context` that of one that is not over.
        Cancelling ends what is under way; what has begun may be over.
        """
        export = self._exports.get((interface, function))
        if export is None or export.has_objects or not self._may_be_quick(export):
            return None
        if now() > deadline or not export.batches.is_good():
            return None
        lender = Lender(None, False)
        lowered = lower_batch(export, size, args, self.limits.payload_bytes, lender)
        if len(lowered) < 2:
            return None
        ended: asyncio.Future[list[Outcome[Any]]] = asyncio.get_running_loop().create_future()
        permits = self._permits.acquire_some(2 if may_overlap else 1)

        def on_end(end: BatchEnd) -> None:
            outcomes = self._batch_ended(export, lowered, lender, context, end, permits)
            if not ended.cancelled():
                ended.set_result(outcomes)
                return
            for outcome in outcomes:
                if not isinstance(outcome, Done):
                    self._engine.start_soon(cancel, outcome)

        values, calls = b"".join(lowered), len(lowered)
        lender.kept.append(values)
        if self._stock.begin_batch(export.service, values, calls, may_overlap=permits > 1, on_end=on_end):
            return ended
        self._permits.release(permits)
        return None

    def _batch_ended(
        self,
        export: Export,
        lowered: list[bytes],
        lender: Lender,
        context: Callable[[int], CallContext],
        end: BatchEnd,
        permits: int,
    ) -> list[Outcome[Any]]:
        """What the calls have come to; those that are not over have the permits that they need."""
        self._calls += end.begun
        self._busy_seconds += end.computed_seconds
        if end.computed_seconds > LONG_SECONDS:  # its last call has, as none begins so late
            export.pace.overran(Start.LOOP)
        if end.has_begun:
            was_stopped = not end.begun or bool(end.under_way) or end.last is not None
            export.batches.note(was_good=end.begun == len(lowered) or not was_stopped)
        lift, began = export.converter.lift_result, self._engine.stopwatch.begin()
        outcomes: list[Outcome[Any]] = []
        for nth in range(end.begun):
            if (instance := end.under_way.get(nth)) is not None:
                call = LoweredCall(export, lowered[nth], lender)
                outcomes.append(self._go_through(instance, call, context(nth), began))
                permits -= 1
                continue
            try:
                outcomes.append(Done(lift(end.results, _LIGHT_READER, nth * VALUE_SIZE)))
            except Heavy:  # the last one: no other has parts
                assert end.last is not None
                outcomes.append(self._lift_away(end.last, export.converter))
                end.last = None
                permits -= 1
        if end.last is not None:
            self._stock.give_back(end.last)
        self._permits.release(permits)
        return outcomes

    async def _go_through(
        self, instance: Instance, lowered: LoweredCall, context: CallContext, began: float
    ) -> Any:
        """The rest of a call that has begun on the shelf."""
        with self._counted(began):
            try:
                return await self._invoke(instance, lowered, context, began)
            finally:
                self._permits.release()

    async def _lift_away(self, instance: Instance, converter: Converter) -> Any:
        """The result of a call that has ended on the shelf."""
        with self._last_of(instance):
            return await instance.lift(converter)

    async def _call(
        self,
        interface: str,
        function: str,
        args: Sequence[Any] | Mapping[str, Any],
        context: CallContext,
        takes_objects: bool,
    ) -> Any:
        self._calls += 1
        with self._counted():
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

    def ask(
        self, export: Export, text: bytes, context: CallContext, state: Mapping[Any, Any] = _NO_STATE
    ) -> bytes | Awaitable[bytes | PausedCall]:
        """Call what `text_export` gave: from text to text, each as the bytes of its UTF-8.

        Most calls are over when this returns; the rest of another one must be awaited at once. `state` is
        added to the instance's before. Raises what `call` raises. When a host function pauses the guest
        (`PAUSE`), or the guest has answered and goes on, the call is not over: its slot is taken until the
        `PausedCall` is.
        """
        began = self._engine.stopwatch.begin()
        is_quick = self._may_be_quick(export) and len(text) <= self.limits.payload_bytes
        if state or not is_quick or began > context.deadline:
            return self._ask(export, text, context, state)
        answer = self._stock.ask(export.service, text)
        if answer is None:
            return self._ask(export, text, context, state)
        self._calls += 1
        if isinstance(answer, Instance):
            self._permits.acquire_nowait()  # there is one, and a call on the shelf takes none
            return self._ask_on(answer, export, text, context, began)
        self._judge(export, began)
        return answer

    def _may_be_quick(self, export: Export) -> bool:
        """Whether a call may begin at once, on the shelf."""
        return (
            self._stock.shelf is not None
            and export.pace.standing is _TRUSTED
            and not self._is_draining
            and self._permits.has_free
        )

    def _judge(self, export: Export, began: float) -> None:
        """After a call on the shelf."""
        seconds = time.perf_counter() - began
        self._busy_seconds += seconds
        if seconds > LONG_SECONDS and self._engine.stopwatch.computed_seconds() > LONG_SECONDS / 2:
            export.pace.overran(Start.LOOP)
        self._stock.served(began)

    async def _ask(
        self, export: Export, text: bytes, context: CallContext, state: Mapping[Any, Any]
    ) -> bytes | PausedCall:
        self._calls += 1
        with self._counted():
            if self._is_draining:
                raise Unreachable(f"the component {self.name} is being moved away from this node")
            if len(text) > self.limits.payload_bytes:
                raise Invalid(f"{len(text)} bytes exceed the component's payload limit: raise the limit")
            if not self._permits.acquire_nowait():
                await self._permits.acquire(context.deadline)
            try:
                if now() > context.deadline:
                    raise TimedOut("the call's budget ended before it began")
                instance = self._stock.take() or await self._stock.make(context)
            except BaseException:
                self._permits.release()
                raise
            instance.state.update(state)
            return await self._drive(instance, export, text, context, None)

    async def _ask_on(
        self, instance: Instance, export: Export, text: bytes, context: CallContext, began: float
    ) -> bytes | PausedCall:
        """The rest of a call that has begun on the shelf."""
        with self._counted(began):
            return await self._drive(instance, export, text, context, began)

    async def _drive(
        self, instance: Instance, export: Export, text: bytes, context: CallContext, begun: float | None
    ) -> bytes | PausedCall:
        """Has a permit, which is released when the call is over."""
        answer: bytes | None = b""
        try:
            answer = await instance.ask(export, text, self._new_call(context, instance), begun=begun)
        finally:
            if answer is not None:
                self._stock.give_back(instance, is_urgent=True)
                self._permits.release()
        return PausedCall(self, instance) if answer is None else answer

    @contextmanager
    def _counted(self, began: float | None = None) -> Iterator[None]:
        """Count what goes wrong, and the time: since `began`, or since now."""
        began = time.monotonic() if began is None else began
        try:
            yield
        except BaseException as error:
            self._errors[_code(error)] += 1
            raise
        finally:
            self._busy_seconds += time.monotonic() - began

    @contextmanager
    def _last_of(self, instance: Instance) -> Iterator[None]:
        """Count the rest of a call; then its instance and its permit are free again."""
        with self._counted():
            try:
                yield
            finally:
                self._stock.give_back(instance)
                self._permits.release()

    async def _go_on(self, instance: Instance, value: Any) -> bytes:
        with self._last_of(instance):
            return await instance.go_on(value)

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
        self._stock.wanted = min(self.limits.prewarm, slots)

    async def drain(self) -> None:
        """Refuse new calls with `Unreachable`; returns when none is in flight or waiting."""
        self._is_draining = True
        self._stock.wanted = 0
        await self._permits.wait_idle()

    async def aclose(self) -> None:
        """Drain, then free everything; may be called again."""
        await self.drain()
        if self._is_closed:
            return
        self._is_closed = True
        self._stock.close(self._free)

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(
            slots=self._permits.slots,
            in_flight=self._permits.in_use,
            queued=self._permits.queued,
            calls=self._calls,
            errors=dict(self._errors),
            prewarmed=len(self._stock),
            instances_made=self._stock.made,
            busy_seconds=self._busy_seconds,
            dropped_log_bytes=self._output.dropped_bytes,
        )

    def standing(self, interface: str, function: str) -> Standing:
        """Whether calls of a function begin on the event loop."""
        return self._find(interface, function).pace.standing

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
            instance = self._stock.take() or await self._stock.make(context)
            return await self._invoke(instance, lowered, context, None)
        finally:
            lowered.close()

    async def _invoke(
        self, instance: Instance, lowered: LoweredCall, context: CallContext, begun: float | None
    ) -> Any:
        try:
            return await instance.invoke(lowered, self._new_call(context, instance), begun=begun)
        finally:
            self._stock.give_back(instance)

    async def _serve_objects(
        self, export: Export, args: Sequence[Any] | Mapping[str, Any], context: CallContext
    ) -> Any:
        """Handles belong to an instance, so it comes first, and the arguments are lowered for it."""
        instance = self._stock.take() or await self._stock.make(context)
        call = self._new_call(context, instance)
        try:
            lowered = lower_call(export, args, self.limits.payload_bytes, may_be_heavy=True, owner=instance)
            lowered.lender.may_be_heavy = lowered.lender.lent_bytes > HEAVY_BYTES
            try:
                return await instance.invoke(lowered, call)
            finally:
                lowered.close()
        finally:
            self._stock.give_back(instance)

    async def _lower_away(self, export: Export, args: Sequence[Any] | Mapping[str, Any]) -> LoweredCall:
        limit = self.limits.payload_bytes
        return await self._engine.workers.run(lambda: lower_call(export, args, limit, may_be_heavy=True))

    def _new_call(self, context: CallContext, instance: Instance) -> GuestCall:
        return GuestCall(self.name, context, instance, self._output)

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
            f"{found.name}#{function}",
            index,
            converter,
            Pace(self._trial),
            has_objects=has_objects,
            service=self._stock.service(index, converter),
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
    """A call whose guest a host function has paused, or that has answered early and is not over.

    It takes a slot until `go_on` was awaited.
    """

    __slots__ = ("_instance", "_pool")

    def __init__(self, pool: ComponentPool, instance: Instance) -> None:
        self._pool = pool
        self._instance = instance

    @property
    def state(self) -> MutableMapping[Any, Any]:
        """Of its instance."""
        return self._instance.state

    @property
    def answer(self) -> bytes | None:
        """What the guest has answered, if its call is not over or has failed after that; else it waits."""
        return self._instance.early_answer

    async def go_on(self, value: Any) -> bytes:
        """Give the host function's result and drive the guest to its end. Cancelling ends the guest."""
        return await self._pool._go_on(self._instance, value)


def _code(error: BaseException) -> str:
    if isinstance(error, LatticeError):
        return error.code
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "failed"
