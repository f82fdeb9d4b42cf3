"""One sandbox, and the driver of the fiber that runs in it.

A poll runs the guest until it ends, calls the host, or has used up its slice. What the guest asked of the
host is done here, on the event loop, between two polls; so the fiber has one driver, host functions never run
on a thread, and whatever they raise ends their own call.

    poll on the loop --ended--> done                        (no task, no future, no scope: the fast path)
      |        \\--host call--> run or await it, resume ----> poll
      \\--slice used up--> poll on a worker, in longer slices, until the end
"""

from __future__ import annotations

import asyncio
import struct
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, cast

import anyio
import anyio.lowlevel
import structlog

from lattice.errors import Failed, LatticeError, TimedOut, Trapped
from lattice.tasks import is_being_cancelled, own_task
from node.engine.byte_store import ByteStore, Chunks
from node.engine.calls import Export, LoweredCall
from node.engine.capi import Kind, Lender, WasmError, bytes_address
from node.engine.channels import Channel
from node.engine.converter import Converter
from node.engine.engine import Engine
from node.engine.host import PAUSE, GuestCall, Returned
from node.engine.lifting import Reader
from node.engine.linker import BoundFunction, BoundResource
from node.engine.lowering import Heavy, Mismatch
from node.engine.pace import Pace, Standing, Start
from node.engine.store import DrivenStore, Store
from node.engine.traps import explain
from node.engine.turns import LOOP_SECONDS, Turns

log = structlog.get_logger()

LOOP_TICKS = 2
"""Between one and two ticks of the epoch clock: how long a guest may keep the event loop at a time."""
SLICE_SECONDS = 0.0005
"""What a guest has computed at the least when its slice on the loop ended because of itself."""
WORKER_TICKS = 10
MAX_OBJECTS = 16_384
"""Objects of the host that one guest may hold: each costs the host some hundred bytes."""
LONG_SECONDS = 0.005
"""A poll on the loop that took longer was not interrupted in time, as when it copies much memory at once."""


_TEXT = struct.Struct("<B7xQQ8x")
"""A value that is a text: its tag, size and address."""


class Instance:
    """A sandbox; serves one call at a time. After an error it is broken: only `close` is left."""

    __slots__ = (
        "_answer_given",
        "_channels",
        "_engine",
        "_failure",
        "_is_away",
        "_is_broken",
        "_is_closed",
        "_is_heavy",
        "_is_paused",
        "_lent",
        "_next_number",
        "_objects",
        "_pace",
        "_reader",
        "_resources",
        "_start",
        "_store",
        "_turns",
        "call",
        "calls",
        "early_answer",
        "has_overrun",
        "state",
    )

    def __init__(self, engine: Engine, store: Store, resources: Mapping[int, BoundResource]) -> None:
        """The engine has admitted it: its room there is taken until `close`."""
        self._engine = engine
        self._resources = resources
        self._pace: Pace
        self._start = Start.WORKER
        self._objects: dict[int, tuple[BoundResource, Any]] = {}
        self._next_number = 0
        self._is_broken = False
        self._is_closed = False
        self._is_paused = False
        self._answer_given: bytes | None = None
        self._failure: BaseException | None = None
        self.early_answer: bytes | None = None
        """What the guest that is paused has answered, although its call is not over."""
        self._is_away = False
        self._turns = Turns()
        self._lent: tuple[bytes, bytes] | None = None
        self._channels: list[Channel] = []
        self.state: dict[Any, Any] = {}
        self.call: GuestCall
        self.calls = 0
        self.has_overrun = False
        self._reader: Reader | None = None
        self._store = store
        store.owner = self

    @property
    def reader(self) -> Reader:
        """Reads the values that the guest gives to host functions."""
        reader = self._reader
        if reader is None:
            reader = self._reader = Reader(self, True)
        return reader

    @property
    def is_usable(self) -> bool:
        return not self._is_broken

    def start_now(self, linker: int, component: int, call: GuestCall, pace: Pace) -> bool:
        """Instantiate, which may run code of the guest; false if `finish_start` must go on with it.

        On failure the instance is closed.
        """
        self.call = call
        store = self._store
        try:
            self._begin(pace, pace.begin())
            if isinstance(store, DrivenStore) and self._start is Start.LOOP:
                return self._is_started(self._watched(store.make))
            store.instantiate(linker, component)
            return self._is_started(self._start is not Start.WORKER and self._poll_here())
        except BaseException:
            self.close()
            raise

    def arrive(self, call: GuestCall, pace: Pace) -> bool:
        """Take over what the driver has instantiated; as `start_now`."""
        self.call = call
        try:
            self._begin(pace, pace.begin())
            # One that has not ended may have been kept waiting by others: its next poll will tell.
            return self._is_started(self._store.has_ended)
        except BaseException:
            self.close()
            raise

    def _is_started(self, has_ended: bool) -> bool:
        """After the first poll of the start, if there was one: whether nothing is left to be done."""
        if not has_ended or self._store.failure or self._store.dropped:
            return False
        self._end()
        self._finish()
        return True

    async def finish_start(self) -> None:
        """Drive to its end what `start_now` began; on failure the instance is closed."""
        try:
            await self._drive(self.call.context.deadline)
            self._finish()
        except BaseException:
            self.close()
            raise
        finally:
            self._end()

    async def invoke(self, lowered: LoweredCall, call: GuestCall, *, begun: float | None = None) -> Any:
        """Call a function and give its result; `lowered` must be kept until this has returned.

        `begun`: when the driver has begun the call, by `Stopwatch.begin`.
        """
        self.call = call
        call.function = lowered.export.name
        self.calls += 1
        self._is_broken = True  # until it is known that the fiber ended well
        store, converter = self._store, lowered.export.converter
        try:
            pace = lowered.export.pace
            is_heavy = lowered.lender.may_be_heavy
            self._begin(pace, Start.WORKER if is_heavy else pace.begin())
            self._is_heavy = is_heavy  # the first poll has much to copy
            values = bytes_address(lowered.values)
            try:
                if begun is None:
                    has_ended = self._call(lowered.export.index, values, converter.count, converter.results)
                else:
                    has_ended = self._was_called(begun)
                if not has_ended:
                    await self._drive(call.context.deadline)
            finally:
                self._end()
            self._finish()
            result = await self.lift(converter) if converter.results else None
            self._is_broken = False
            return result
        except Returned as early:
            store.abandon()
            return early.value
        except WasmError as error:
            raise explain(str(error)) from None
        except BaseException:
            store.abandon()
            raise

    async def ask(
        self, export: Export, text: bytes, call: GuestCall, *, begun: float | None = None
    ) -> bytes | None:
        """Call a function that takes a text and gives one, both as the bytes of their UTF-8.

        None when a host function has paused the guest, or when it has answered early and goes on, or has
        failed since: `go_on` then, or `close`. `begun`: when the driver has begun the call, by
        `Stopwatch.begin`.
        """
        self.call = call
        self.early_answer = self._answer_given = None
        call.function = export.name
        self.calls += 1
        self._is_broken = True
        values = _TEXT.pack(Kind.STRING, len(text), bytes_address(text))
        self._lent = (text, values)  # until the fiber has ended
        pace = export.pace
        try:
            self._begin(pace, pace.begin())
            if begun is None:
                has_ended = self._call(export.index, bytes_address(values), 1, 1)
            else:
                has_ended = self._was_called(begun)
            if not has_ended:
                await self._drive(call.context.deadline)
                if self._is_paused:
                    return None
            return self._answer()
        except BaseException as error:
            failure = self._ended_badly(error)
            # Both come after the answer, if there is one; what the host has against a guest may be older.
            if isinstance(error, WasmError | TimedOut) and self._has_answered():
                self._failure = failure
                return None
            raise failure from None

    def answer_early(self, text: bytes) -> None:
        self._answer_given = text

    def _has_answered(self) -> bool:
        """Whether the guest has answered early, which it does once: then the answer is `early_answer`."""
        if self.early_answer is None:
            self.early_answer = self._answer_given or self._store.take_early_text()
            return self.early_answer is not None
        return False

    def _call(self, export: int, values: int, count: int, results: int) -> bool:
        """Begin a call, with a first poll if it may be on the loop: true if nothing is left to be done."""
        store = self._store
        if self._start is not Start.LOOP or store.__class__ is not DrivenStore:
            store.call(export, values, count, results)
            return self._start is not Start.WORKER and self._poll_once()
        began = self._engine.stopwatch.begin()
        self._engine.ticker.note()
        store.call_at_once(export, values, count, results, LOOP_TICKS)
        return self._was_called(began)

    def _was_called(self, began: float) -> bool:
        """After the first poll of a call, which the driver has done: true if nothing is left to be done."""
        store = self._store
        self._judge(began, store.has_ended)
        return store.has_ended and not store.failure and not store.dropped

    async def go_on(self, value: Any) -> bytes:
        """Give a paused guest the result of the host function that it waits for: its text in the end.

        One that has answered early waits for none, and goes on, or has failed already.
        """
        if self._failure is not None:
            raise self._failure
        self._is_paused = False
        try:
            if self.early_answer is None:
                host_call = self._store.host_call
                assert host_call
                self._resume(cast("BoundFunction", host_call[0]), value, may_be_heavy=False)
            await self._drive(self.call.context.deadline)
            if self._is_paused:
                raise Failed("a guest was paused again: only the first pause of a call is served")
            return self._answer()
        except BaseException as error:
            raise self._ended_badly(error) from None

    def _answer(self) -> bytes:
        """The text that a function gave; its fiber has ended."""
        store = self._store
        self._end()
        store.finish()
        text = store.text_result()
        if self._has_answered():
            text = self.early_answer or text
        self._lent = None
        self._is_broken = False
        return text

    def _ended_badly(self, error: BaseException) -> BaseException:
        """Free the fiber of a call that failed: what to raise instead of `error`."""
        self._end()
        if isinstance(error, WasmError):
            return explain(str(error))
        self._store.abandon()
        return error

    def close(self) -> None:
        """End the sandbox; what its guest still held is dropped. Nothing may be polling it."""
        if self._is_closed:
            return
        self._is_closed = self._is_broken = True
        self._engine.end(self._store, is_slow=self.has_overrun)
        while self._objects:
            _, (resource, value) = self._objects.popitem()
            self._drop_object(resource, value)

    # Driving

    def _begin(self, pace: Pace, start: Start) -> None:
        self.has_overrun = False
        self._is_heavy = False
        self._come_back()
        self._turns.begin()
        self._pace = pace
        self._start = start

    def _end(self) -> None:
        if not self.has_overrun:
            self._pace.in_time(self._start)
        self.call.end()

    def _overran(self) -> None:
        self.has_overrun = True
        self._pace.overran(self._start)

    def _poll_once(self) -> bool:
        """The first poll on the loop; true if nothing is left to be done."""
        store = self._store
        return self._poll_here() and not store.failure and not store.dropped

    async def _drive(self, deadline: float) -> None:
        await own_task()
        with anyio.CancelScope(deadline=deadline) as scope:
            await self._go_on()
        if scope.cancelled_caught:
            raise TimedOut("the call's budget ended before the component answered")

    async def _go_on(self) -> None:
        """Serve the fiber and poll it until it has ended; on the loop, the first poll has been done."""
        store = self._store
        self._turns = Turns()
        is_here = self._start is not Start.WORKER
        has_ended = store.has_ended if is_here or store.host_call else await self._poll_away()
        self._is_heavy = False
        while True:
            if store.failure:
                raise self._failed("a host function's arguments", store.failure)
            if store.dropped:
                self._drop_objects()
            if has_ended:
                return
            if self._has_answered():
                self._is_paused = True
                return
            if store.host_call:
                self._come_back()
                self._start = self._pace.suspended(self._start)
                await self._serve_host_call()
                if self._is_paused:
                    return
            is_here = self._may_be_here(is_here) and await self._may_stay()
            has_ended = self._poll_here() if is_here else await self._poll_away()
            self._is_heavy = False

    def _may_be_here(self, is_here: bool) -> bool:
        """Calls follow their function's standing: to a worker if another overran, back once it is trusted."""
        if self.has_overrun or self._is_heavy or self._is_away or self._pace.standing is Standing.SLOW:
            return False
        return is_here or self._pace.standing is Standing.TRUSTED

    def _go_away(self) -> None:
        """Have a guest with channels go on on a worker, until it has to wait."""
        self._is_away = True
        self._turns.are_first = False
        cast("DrivenStore", self._store).lengthen(WORKER_TICKS)
        for channel in self._channels:
            channel.go_away()

    def _come_back(self) -> None:
        if self._is_away:
            self._is_away = False
            cast("DrivenStore", self._store).lengthen(1)
            for channel in self._channels:
                channel.come_back()

    def _poll_here(self) -> bool:
        has_ended = self._watched(lambda: self._store.poll(LOOP_TICKS))
        if self._channels:
            cast("DrivenStore", self._store).tell()
        return has_ended

    def _watched(self, poll: Callable[[], bool]) -> bool:
        """Poll, by way of `poll`, and find out whether the guest has overrun."""
        began = self._engine.stopwatch.begin()
        self._engine.ticker.note()
        has_ended = poll()
        self._judge(began, has_ended)
        return has_ended

    def _judge(self, began: float, has_ended: bool) -> None:
        """After a poll on the loop: whether the guest has overrun."""
        stopwatch, store = self._engine.stopwatch, self._store
        seconds = time.perf_counter() - began
        self._turns.note(seconds)
        # A thread that was kept waiting by others of the machine has not overrun: look at what it computed.
        if seconds > LONG_SECONDS:
            if stopwatch.computed_seconds() > LONG_SECONDS / 2:
                self._overran()
        elif not has_ended and not store.host_call and stopwatch.computed_seconds() > SLICE_SECONDS:
            self._overran()

    async def _poll_away(self) -> bool:
        if self._channels and not self._is_away:
            self._go_away()
        has_ended, seconds = await self._engine.workers.run(self._poll_slice)
        for channel in self._channels:
            channel.end_slice()
        if seconds > LOOP_SECONDS and not self._is_heavy and not self._is_away:
            self._overran()
        return has_ended

    def _poll_slice(self) -> tuple[bool, float]:
        store = self._store
        self._engine.ticker.note()
        began = time.thread_time()
        if self._channels:
            cast("DrivenStore", store).let_wait(True)
        has_ended = store.poll(WORKER_TICKS)
        if self._channels:
            cast("DrivenStore", store).let_wait(False)
            cast("DrivenStore", store).tell()
        return has_ended, time.thread_time() - began

    async def _may_stay(self) -> bool:
        """Let others have the loop when this guest's turn is over; false when it has had too many."""
        turns, streams = self._turns, bool(self._channels)
        if not turns.is_over():
            return not (streams and turns.are_first and any(each.is_pressing for each in self._channels))
        has_too_many = turns.end(streams=streams)
        await anyio.lowlevel.checkpoint()
        turns.begin()
        if not has_too_many:
            return True
        if not streams:
            self._overran()
        return False

    def _finish(self) -> None:
        try:
            self._store.finish()
        except WasmError as error:
            raise explain(str(error)) from None

    async def lift(self, converter: Converter) -> Any:
        """The result of the call that has ended, which is freed."""
        store = self._store
        try:
            return converter.lift_result(store.result(), Reader(self, False))
        except Heavy:
            return await self._engine.workers.run(lambda: converter.lift_result(store.result(), self.reader))
        finally:
            store.free_result()

    # Host functions

    async def _serve_host_call(self) -> None:
        host_call = self._store.host_call
        assert host_call
        bound = cast("BoundFunction", host_call[0])
        try:
            value = bound.function(self.call, *host_call[1])
            if hasattr(type(value), "__await__"):
                value = await value
            if value is PAUSE:
                self._is_paused = True
                return
        except (LatticeError, Returned, asyncio.CancelledError) as error:
            if not isinstance(error, asyncio.CancelledError) or is_being_cancelled():
                raise
            raise self._failed(bound.name, error) from error
        except BaseException as error:
            raise self._failed(bound.name, error) from error
        try:
            self._resume(bound, value, may_be_heavy=False)
        except Heavy:
            self._is_heavy = True
            await self._engine.workers.run(lambda: self._resume(bound, value, may_be_heavy=True))
        except Mismatch as mismatch:
            raise self._failed(bound.name, mismatch) from None

    def _resume(self, bound: BoundFunction, value: Any, *, may_be_heavy: bool) -> None:
        lender = Lender(self, may_be_heavy)
        try:
            self._store.resume(bound.converter.lower_result(value, lender))
        finally:
            lender.close()

    def _failed(self, name: str, error: BaseException) -> LatticeError:
        if isinstance(error, LatticeError):
            return error
        error_id = uuid.uuid4().hex[:12]
        what = f"{error.path}: {error.problem}" if isinstance(error, Mismatch) else repr(error)
        log.error(
            "host_function.failed",
            function=name,
            component=self.call.component,
            call=self.call.call_id,
            error=what,
            error_id=error_id,
            exc_info=error,
        )
        return Failed(
            f"the host function {name} failed; the log has more under {error_id}", error_id=error_id
        )

    # Channels: streams of bytes that the driver moves

    def new_store(self, number: int, window: int, *, is_input: bool) -> ByteStore:
        """Bytes for the guest to read, or to write, under a number of its; `part_stores` in the end."""
        store, bell = self._store, self._engine.doorbell
        if bell is None or not isinstance(store, DrivenStore):
            return Chunks()
        channel = Channel(bell, window, is_input=is_input)
        store.join(channel.address, number, is_input=is_input)
        self._channels.append(channel)
        return channel

    def part_stores(self) -> None:
        """Take the channels from the guest, which must not be running."""
        if self._channels:
            cast("DrivenStore", self._store).part()
            while self._channels:
                self._channels.pop().borrow_from(None)

    # Resources: objects of the host that the guest holds handles to

    def give(self, type_number: int, value: Any) -> int:
        """A handle for an object that passes to the guest."""
        if len(self._objects) >= MAX_OBJECTS:
            raise Trapped(f"the component holds {MAX_OBJECTS} handles to objects of the host and wants more")
        self._next_number = number = self._next_number + 1
        self._objects[number] = (self._resources[type_number], value)
        return self._store.make_handle(number, type_number)

    def take(self, handle: int) -> Any:
        """The object behind a handle; an owned one returns to the host."""
        number, is_owned = self._store.read_handle(handle)
        return self._objects.pop(number)[1] if is_owned else self._objects[number][1]

    def _drop_objects(self) -> None:
        dropped, self._store.dropped = self._store.dropped, []
        for resource, number in dropped:
            _, value = self._objects.pop(number)
            self._drop_object(resource, value, may_trap=True)

    def _drop_object(self, resource: BoundResource, value: Any, *, may_trap: bool = False) -> None:
        try:
            resource.drop(self.call, value)
        except Trapped:
            if may_trap:
                raise
        except Exception as error:  # it ends nobody's call: the guest has let go of the object
            log.error("host_resource.drop_failed", resource=resource.name, exc_info=error)
