"""Sandboxes: wasmtime's stores, each with its instance and the fiber that runs in it, and shelves of them.

A sandbox that Python drives is a `Store`. Those that the native helper keeps on a `Shelf` have no object here
until their guest does something that the helper can't do by itself.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from wasmtime import _ffi as ffi

from node.engine import driver
from node.engine.capi import (
    PAYLOAD,
    VALUE_SIZE,
    Kind,
    WasmError,
    bytes_address,
    call_async,
    check,
    context_data,
    error_delete,
    future_delete,
    get_func,
    instantiate_async,
    poll,
    read,
    resource_delete,
    resource_from_any,
    resource_is_owned,
    resource_new,
    resource_rep,
    resource_to_any,
    set_epoch_deadline,
    store_context,
    store_delete,
    store_delete_released,
    store_limiter,
    store_new,
    take_error,
    value_clone,
    value_delete,
    yield_at_deadline,
)
from node.engine.driver import Maker, NativeTicker, Outcome

if TYPE_CHECKING:
    from node.engine.callbacks import HostBinding


class _Cells(ctypes.Structure):
    """What C writes for one store, in one piece of memory; `ready` and its terminating 0 are a C string."""

    _fields_ = (
        ("head", driver.Head),
        ("instance", ffi.wasmtime_component_instance_t),
        ("function", ffi.wasmtime_component_func_t),
        ("error", ctypes.c_void_p),
        ("result", ffi.wasmtime_component_val_t),
        ("ready", ctypes.c_char * 8),
        ("handle", ctypes.c_void_p),
        ("argument", ffi.wasmtime_component_val_t),
    )


_INSTANCE = _Cells.instance.offset
_FUNCTION = _Cells.function.offset
_ERROR = _Cells.error.offset
_RESULT = _Cells.result.offset
_pack_continuation = struct.Struct("<QQQ").pack
_READY = _Cells.ready.offset
_HANDLE = _Cells.handle.offset

# A fiber that waits for the host asks `bool (*)(env)` at each poll whether to go on. libc's strlen answers
# that for an `env` that is the empty string (0) or one character (1) without entering Python.
_strlen_address = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p).value


_stores: dict[int, Store] = {}
"""The living stores by the address of their context, which is what C hands to callbacks."""


_TEXT = struct.Struct("<QQ")
"""Size and address of a text in a value."""


class Store:
    """A sandbox: a store, the one instance in it and at most one fiber that runs there.

    The owner calls `poll` until it is true, then `finish`, or `abandon` at any
    time between two polls; `close` in the end. After an error, only `close`.
    """

    __slots__ = (
        "_address",
        "_cells",
        "_fiber",
        "_has_freed",
        "_store",
        "context",
        "dropped",
        "failure",
        "has_ended",
        "host_call",
        "is_under_way",
        "owner",
    )

    def __init__(self, engine: int, limits: tuple[int, int, int, int, int]) -> None:
        """`limits`: memory bytes, table elements, core instances, tables, memories; -1 for none."""
        self._prepare(_Cells())
        self._store = store_new(engine, None, None)
        self.context: int = store_context(self._store)
        store_limiter(self._store, *limits)
        yield_at_deadline(self.context, 1)
        _stores[self.context] = self

    def _prepare(self, cells: _Cells) -> None:
        self._fiber = 0
        self.has_ended = False
        self.is_under_way = False
        """Whether a call has begun before the sandbox became this object."""
        self.owner: Any = None
        self.host_call: tuple[HostBinding, tuple[Any, ...], int] | None = None
        """The host function that the fiber waits for, its arguments, and where its result goes."""
        self.failure: BaseException | None = None
        """Set when a callback failed: the fiber must be abandoned."""
        self.dropped: list[tuple[Any, int]] = []
        """Owned handles that the guest dropped: what their type was bound with, and their number."""
        self._has_freed = False
        self._cells = cells
        self._address = ctypes.addressof(cells)

    def instantiate(self, linker: int, component: int) -> None:
        """Begin to make the instance; both must outlive the fiber."""
        address = self._address
        self._fiber = instantiate_async(
            linker, self.context, component, address + _INSTANCE, address + _ERROR
        )

    def call(self, export: int, arguments: int, count: int, results: int) -> None:
        """Begin a call; `arguments` is the address of `count` values lent until the fiber has ended."""
        address = self._address
        if not get_func(address + _INSTANCE, self.context, export, address + _FUNCTION):
            raise WasmError("the export is not a function")
        if self._has_freed:  # the call drops what it overwrites
            ctypes.memset(address + _RESULT, 0, VALUE_SIZE)
        self._fiber = call_async(
            address + _FUNCTION, self.context, arguments, count, address + _RESULT, results, address + _ERROR
        )

    def poll(self, ticks: int) -> bool:
        """Run the fiber until it ends (true), waits for the host, or has spent `ticks` of the epoch clock.

        May be called on any thread, by one at a time.
        """
        set_epoch_deadline(self.context, ticks)
        self.has_ended = ended = cast("bool", poll(self._fiber))
        return ended

    def finish(self) -> None:
        """Free a fiber that has ended; raises `WasmError` if the guest failed.

        After a call that has a result, the result is at `result` until `free_result`.
        """
        fiber, self._fiber = self._fiber, 0
        if fiber:
            future_delete(fiber)
        error = self._cells.error
        if error:
            self._cells.error = None
            raise take_error(error)

    def abandon(self) -> None:
        """Free the fiber wherever it is; the instance can't be used any more."""
        self.host_call = None
        if self._fiber:
            fiber, self._fiber = self._fiber, 0
            future_delete(fiber)
        if error := self._cells.error:
            self._cells.error = None
            error_delete(error)

    def result(self) -> bytes:
        """A copy of the value that the last call gave; its parts stay where they are."""
        return read(self._address + _RESULT, VALUE_SIZE)

    def text_result(self) -> bytes:
        """A copy of a result that is a text; the result is freed."""
        size, address = _TEXT.unpack_from(self._cells, _RESULT + PAYLOAD)
        text = read(address, size)
        self.free_result()
        return text

    def take_early_text(self) -> bytes | None:
        """What the guest has answered to the driver before its call was over, once."""
        return None

    def free_result(self) -> None:
        value_delete(self._address + _RESULT)
        self._has_freed = True

    def wait(self, continuation: int) -> None:
        """Let the fiber wait from now on until `resume`; called on its stack, for what it is asked then."""
        self._cells.ready = b""
        asked = _pack_continuation(_strlen_address, self._address + _READY, 0)
        ctypes.memmove(continuation, asked, len(asked))

    def resume(self, result: bytes | None) -> None:
        """Let the fiber go on, at the next poll, with the lent value as the host function's result."""
        assert self.host_call
        if result is not None:
            value_clone(bytes_address(result), self.host_call[2])
        self.host_call = None
        self._cells.ready = b"1"

    def make_handle(self, number: int, type_: int) -> int:
        """An owned handle to a host's resource; free it with the lender that it is lent by."""
        host = resource_new(True, number, type_)
        try:
            check(resource_to_any(self.context, host, self._address + _HANDLE))
        finally:
            resource_delete(host)
        return cast("int", self._cells.handle)

    def read_handle(self, handle: int) -> tuple[int, bool]:
        """The number behind a host's handle and whether it was owned; consumes what it stood for."""
        check(resource_from_any(self.context, handle, self._address + _HANDLE))
        host = self._cells.handle
        try:
            return resource_rep(host), resource_is_owned(host)
        finally:
            resource_delete(host)

    def close(self, *, is_slow: bool = False) -> None:
        """Free everything; `is_slow`, for instances with much memory, gives up the GIL meanwhile."""
        self.abandon()
        if self._store:
            store, self._store = self._store, 0
            del _stores[self.context]
            (store_delete_released if is_slow else store_delete)(store)


class DrivenStore(Store):
    """A sandbox that the driver makes and calls, each in one call of C, and that its maker ends.

    Its cells are the driver's memory, made here or on a shelf.
    """

    __slots__ = ("_driver", "_maker", "_recipe")

    def __init__(self, maker: Maker, recipe: int, cells: int = 0) -> None:
        """`cells`: of a sandbox that was made on a shelf, and is this one's now."""
        self._driver = maker.driver
        self._maker = maker
        self._recipe = recipe
        super()._prepare(_Cells.from_address(cells or maker.driver.new_cells()))
        self._store = self.context = 0
        if cells:
            self._cells.head.is_taken = True
            self.adopt()

    def instantiate(self, linker: int, component: int) -> None:
        _awaited[self._address] = self
        self._driver.open(self._address, self._recipe)
        self.adopt()
        super().instantiate(linker, component)

    def make(self) -> bool:
        """Make it here: false if its fiber has not ended, as after `poll`."""
        _awaited[self._address] = self
        self._driver.make(self._address, self._recipe)
        self.adopt()
        return self.has_ended

    def adopt(self) -> None:
        """Learn what the driver has done with the cells."""
        head = self._cells.head
        self._store, self.context, self._fiber = head.store, head.context, head.fiber or 0
        self.has_ended = not self._fiber
        _awaited.pop(self._address, None)
        _stores[self.context] = self

    def call_at_once(self, export: int, arguments: int, count: int, results: int, ticks: int) -> bool:
        """Call a function and poll it once; as `call` and `poll`."""
        self.has_ended = ended = cast(
            "bool", self._driver.call(self._address, export, arguments, count, results, ticks)
        )
        self._fiber = 0 if ended else self._cells.head.fiber
        return ended

    def join(self, channel: int, number: int, *, is_input: bool) -> None:
        """Let the guest have a channel under that number, until `part`; its fiber must not be running."""
        self._driver.join(self._address, channel, number, is_input)

    def part(self) -> None:
        """Take all channels from the guest."""
        self._driver.part(self._address)

    def lengthen(self, ticks: int) -> None:
        """Give a guest that has spent a poll's ticks so many in the next, whatever that says; at first 1."""
        yield_at_deadline(self.context, ticks)

    def tell(self) -> None:
        """The guest has stopped: have the bell rung for what it has written."""
        self._driver.tell(self._address)

    def let_wait(self, may_wait: bool) -> None:
        """Whether the guest may wait on its thread, for a moment, when it reads or writes a channel."""
        self._cells.head.may_wait = may_wait

    def finish(self) -> None:
        self._cells.head.fiber = None
        super().finish()

    def abandon(self) -> None:
        self._cells.head.fiber = None
        super().abandon()

    def free_result(self) -> None:
        self._cells.head.has_result = True
        self._driver.free_result(self._address)

    def text_result(self) -> bytes:
        """As of any store; the result of a call at once is freed later, by the next one or the end."""
        if not self._cells.head.has_result:
            return super().text_result()
        size, address = _TEXT.unpack_from(self._cells, _RESULT + PAYLOAD)
        return read(address, size)

    def take_early_text(self) -> bytes | None:
        head = self._cells.head
        if not head.answer:
            return None
        text = read(head.answer, head.answer_size)
        self._driver.forget_answer(self._address)
        return text

    def close(self, *, is_slow: bool = False) -> None:
        """Have the maker free everything. There is nothing to be asked of a closed store."""
        if self._address:
            self.abandon()
            _stores.pop(self.context, None)
            address, self._address = self._address, 0
            del self._cells
            self._driver.end(self._maker.address, address)


_awaited: dict[int, DrivenStore] = {}
"""Those being made, by the address of their cells, which is what their stores have as data."""
_shelves: dict[int, Shelf] = {}
"""By their addresses, which are in the heads of their cells."""


def store_of(context: int) -> Store:
    """The sandbox whose guest calls the host, maybe while it is being made; called on the fiber's stack."""
    if store := _stores.get(context):
        return store
    cells = context_data(context)
    if store := _awaited.get(cells):
        return store
    return _shelves[driver.Head.from_address(cells).shelf].adopt(cells)


class Shelf:
    """Sandboxes of one component that the driver makes ahead; each serves one call and is then made anew.

    Most calls are calls of C and nothing else. A sandbox whose guest calls the host, runs for long or fails
    leaves the shelf: it becomes a `DrivenStore`, which `own` gives an owner, maybe on the maker's thread.
    """

    def __init__(
        self,
        maker: Maker,
        recipe: int,
        ticker: NativeTicker,
        capacity: int,
        own: Callable[[DrivenStore], object],
    ) -> None:
        """`recipe` must outlive it."""
        self._driver = maker.driver
        self._ask = maker.driver.ask
        self._serve = maker.driver.serve
        self._maker = maker
        self._recipe = recipe
        self._ticker = ticker
        self._own = own
        self._address = cast("int", maker.driver.new_shelf(maker.address, recipe, ticker.address, capacity))
        if not self._address:
            raise MemoryError("no room for a shelf")
        self._said = driver.ShelfHead.from_address(self._address)
        self._services: list[driver.Service] = []
        self._result = memoryview(self._said.result).cast("B")
        _shelves[self._address] = self

    def __len__(self) -> int:
        """Those on it, whether they are made yet or not."""
        return cast("int", self._driver.stocked(self._address))

    @property
    def served(self) -> int:
        """Calls that needed no object here, so far."""
        return cast("int", self._said.served)

    def service(self, export: int, count: int, results: int) -> int:
        """What `ask` and `serve` call an exported function by: with so many arguments and results."""
        service = driver.Service(self._address, export, count, results)
        self._services.append(service)
        return ctypes.addressof(service)

    def ask(self, service: int, text: bytes) -> bytes | DrivenStore | None:
        """Call a function from text to text: the answer's bytes, or a sandbox, or None when none is made.

        A sandbox that has no call under way is one whose start has yet to be finished. `text` must be kept
        until the call has ended.
        """
        outcome = self._ask(service, text, len(text))
        if not outcome:  # DONE
            said = self._said
            return read(said.text, said.size)
        return self._given(outcome)

    def serve(self, service: int, arguments: int) -> memoryview | DrivenStore | None:
        """Call a function: its result, which is there until the next call, else as `ask`."""
        outcome = self._serve(service, arguments)
        if not outcome:  # DONE
            return self._result
        return self._given(outcome)

    def fill_in(self, batch: driver.Batch, service: int) -> None:
        """Say in a batch what is called, and in what sandboxes; `left_by` gives those that are left."""
        what = driver.Service.from_address(service)
        batch.clock, batch.recipe, batch.shelf = self._ticker.address, self._recipe, self._address
        batch.export, batch.count, batch.has_result = what.export, what.count, what.results

    def left_by(self, batch: driver.Batch) -> tuple[DrivenStore | None, DrivenStore | None]:
        """The sandboxes that a batch has not ended: of its last call, and of one before that is under way."""
        given = self.adopt(batch.given) if batch.given else None
        if given is not None:
            given.is_under_way = batch.left == Outcome.UNDER_WAY
        waiting = self.adopt(batch.waiting) if batch.waiting else None
        if waiting is not None:
            waiting.is_under_way = True
        return given, waiting

    def _given(self, outcome: int) -> DrivenStore | None:
        if outcome == Outcome.NONE:
            return None
        store = self.adopt(self._said.given)
        store.is_under_way = outcome == Outcome.UNDER_WAY
        return store

    def take(self) -> DrivenStore | None:
        """A sandbox for a call that is driven from here; its start may have yet to be finished."""
        cells = self._driver.take(self._address)
        return self.adopt(cells) if cells else None

    def keep_last(self) -> DrivenStore:
        """The sandbox in which the last call has ended well, with its result."""
        return self.adopt(self._driver.keep_last(self._address))

    def adopt(self, cells: int) -> DrivenStore:
        """The object of a sandbox, which is made if it has none."""
        head = driver.Head.from_address(cells)
        if head.is_taken:
            store = cast("DrivenStore", _stores[head.context])
            store.adopt()
            return store
        store = DrivenStore(self._maker, self._recipe, cells)
        self._own(store)
        return store

    def stock(self) -> bool:
        """Have one more made; false if there is no room for it."""
        self._ticker.note()
        return cast("bool", self._driver.stock(self._address))

    def tidy(self, most: int) -> bool:
        """Have those that have served a call ended and made anew, so many here: whether some are left."""
        return cast("bool", self._driver.tidy(self._address, most))

    def withdraw(self, *, waits: bool) -> DrivenStore | bool:
        """End one, but what is being made only if it `waits`: its object, if it has one; False: none left."""
        cells = self._driver.withdraw(self._address, waits)
        if not cells:
            return False
        head = driver.Head.from_address(cells)
        if head.is_taken or head.fiber:  # a fiber must not outlive what it instantiates
            return self.adopt(cells)
        self._driver.end(self._maker.address, cells)
        return True

    def close(self) -> None:
        """Free it; it must be empty."""
        address, self._address = self._address, 0
        if address:
            del self._said, self._result, _shelves[address]
            self._driver.free_shelf(address)


_driver = driver.load(
    [ctypes.cast(ffi.dll[name], ctypes.c_void_p).value or 0 for name in driver.FUNCTIONS],
    driver.Layout(
        instance=_INSTANCE,
        function=_FUNCTION,
        error=_ERROR,
        result=_RESULT,
        argument=_Cells.argument.offset,
        size=ctypes.sizeof(_Cells),
        value_size=VALUE_SIZE,
        text_kind=Kind.STRING,
        result_kind=Kind.RESULT,
        result_part=PAYLOAD + cast("Any", ffi.wasmtime_component_valresult_t).val.offset,
    ),
)
DRIVER = _driver if isinstance(_driver, driver.Driver) else None
"""The native helper, if there is one."""
NO_DRIVER = _driver if isinstance(_driver, driver.Absence) else None
"""Why there is none."""
