"""The engine's native helper (`driver.c`), if it was built: several calls of wasmtime's C API in one.

`node.engine.capi` tells it where wasmtime's functions are. Whatever it does, Python can do as well, call by
call; so without it, or with `LATTICE_DRIVER=off`, a node works as before, only slower.
"""

from __future__ import annotations

import ctypes
import enum
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

LIBRARY = Path(__file__).parent / "driver.so"

FUNCTIONS = (
    "wasmtime_store_new",
    "wasmtime_store_context",
    "wasmtime_context_get_data",
    "wasmtime_store_limiter",
    "wasmtime_store_delete",
    "wasmtime_context_epoch_deadline_async_yield_and_update",
    "wasmtime_context_set_epoch_deadline",
    "wasmtime_component_linker_instantiate_async",
    "wasmtime_component_instance_get_func",
    "wasmtime_component_func_call_async",
    "wasmtime_call_future_poll",
    "wasmtime_call_future_delete",
    "wasmtime_component_val_delete",
    "wasmtime_error_delete",
    "wasmtime_engine_increment_epoch",
    "wasm_byte_vec_new_uninitialized",
)
"""What it calls, in the order of `api` in driver.h."""

_Address = ctypes.c_void_p


class Head(ctypes.Structure):
    """With this the cells of each sandbox begin."""

    _fields_ = (
        ("store", _Address),
        ("context", _Address),
        ("fiber", _Address),
        ("shelf", _Address),
        ("channels", _Address),
        ("state", ctypes.c_uint32),
        ("has_result", ctypes.c_uint32),
        ("is_taken", ctypes.c_uint32),
        ("may_wait", ctypes.c_uint32),
        ("_answer_kind", ctypes.c_uint64),
        ("answer_size", ctypes.c_uint64),
        ("answer", _Address),
    )


class ChannelHead(ctypes.Structure):
    """With this a channel begins; all but `size` may be read when its socket has been recalled."""

    _fields_ = (
        ("size", ctypes.c_uint64),
        ("descriptor", ctypes.c_int),
        ("is_chunked", ctypes.c_bool),
        ("is_over", ctypes.c_bool),
        ("left", ctypes.c_uint64),
        ("moved", ctypes.c_uint64),
        ("chunk_left", ctypes.c_uint64),
        ("lines_size", ctypes.c_uint64),
        ("lines", ctypes.c_uint8 * 32),
    )


class ShelfHead(ctypes.Structure):
    """With this a shelf begins: what its last call came to."""

    _fields_ = (
        ("given", _Address),
        ("text", _Address),
        ("size", ctypes.c_uint64),
        ("served", ctypes.c_uint64),
        ("result", ctypes.c_uint8 * 32),
    )


class Batch(ctypes.Structure):
    """Calls of one function for the maker to make; it and what it names are kept until `is_over`."""

    _fields_ = (
        ("begun", ctypes.c_uint64),
        ("left", ctypes.c_uint64),
        ("given", _Address),
        ("waiting", _Address),
        ("waiting_at", ctypes.c_uint64),
        ("computed", ctypes.c_uint64),
        ("is_over", ctypes.c_uint64),
        ("before", _Address),
        ("may_overlap", ctypes.c_uint64),
        ("most_nanoseconds", ctypes.c_uint64),
        ("clock", _Address),
        ("recipe", _Address),
        ("shelf", _Address),
        ("export", _Address),
        ("count", ctypes.c_uint64),
        ("has_result", ctypes.c_uint64),
        ("calls", ctypes.c_uint64),
        ("arguments", _Address),
        ("results", _Address),
        ("bell", ctypes.c_int64),
    )


class Service(ctypes.Structure):
    """A function, as a shelf serves calls of it: each argument of a call through `ctypes` costs 70 ns."""

    _fields_ = (
        ("shelf", _Address),
        ("export", _Address),
        ("count", ctypes.c_uint64),
        ("results", ctypes.c_uint64),
    )


class Outcome(enum.IntEnum):
    """What a call came to that the driver made."""

    DONE = 0
    UNDER_WAY = 1
    BADLY_MADE = 2
    NONE = 3


class Layout(NamedTuple):
    """Where in the cells of a sandbox is what, in the order of `layout` in driver.h."""

    instance: int
    function: int
    error: int
    result: int
    argument: int
    size: int
    """Of all."""
    value_size: int
    text_kind: int
    """The tag of a value that is a text."""
    result_kind: int
    """That of a `result`."""
    result_part: int
    """Where in that is the address of what it carries."""


class Recipe(ctypes.Structure):
    """What all sandboxes of one component are made of; keep it as long as any of them is being made."""

    _fields_ = (
        ("engine", _Address),
        ("linker", _Address),
        ("component", _Address),
        ("limits", ctypes.c_int64 * 5),
        ("ticks", ctypes.c_uint64),
    )


class Driver:
    """The library. Its functions take addresses of cells, recipes, makers, shelves, services and tickers."""

    def __init__(self, functions: Sequence[int], layout: Layout) -> None:
        """`functions`: where `FUNCTIONS` are."""
        held, released = ctypes.PyDLL(str(LIBRARY)), ctypes.CDLL(str(LIBRARY))
        begin = held.driver_begin
        begin.argtypes, begin.restype = [_Address, _Address], None
        begin((_Address * len(functions))(*functions), (ctypes.c_uint32 * len(layout))(*layout))
        # Those that run guests or wait give up the GIL.
        self.open = _bind(held, "driver_open", [_Address, _Address], None)
        self.make = _bind(released, "driver_make", [_Address, _Address], ctypes.c_bool)
        self.call = _bind(
            released,
            "driver_call",
            [_Address, _Address, _Address, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_uint64],
            ctypes.c_bool,
        )
        self.ask = _bind(
            released, "driver_ask", [_Address, ctypes.c_char_p, ctypes.c_size_t], ctypes.c_uint32
        )
        self.serve = _bind(released, "driver_serve", [_Address, _Address], ctypes.c_uint32)
        self.take = _bind(released, "driver_take", [_Address], _Address)
        self.keep_last = _bind(held, "driver_keep_last", [_Address], _Address)
        self.withdraw = _bind(released, "driver_withdraw", [_Address, ctypes.c_bool], _Address)
        self.stock = _bind(released, "driver_stock", [_Address], ctypes.c_bool)
        self.end = _bind(released, "driver_end", [_Address, _Address], None)
        self.stop_maker = _bind(released, "driver_stop_maker", [_Address], None)
        self.new_cells = _bind(held, "driver_new_cells", [], _Address)
        self.free_result = _bind(held, "driver_free_result", [_Address], None)
        self.forget_answer = _bind(held, "driver_forget_answer", [_Address], None)
        self.start_maker = _bind(held, "driver_start_maker", [ctypes.c_bool], _Address)
        self.begin_batch = _bind(held, "driver_begin_batch", [_Address, _Address], ctypes.c_bool)
        self.new_shelf = _bind(
            held, "driver_new_shelf", [_Address, _Address, _Address, ctypes.c_uint32], _Address
        )
        self.free_shelf = _bind(held, "driver_free_shelf", [_Address], None)
        self.stocked = _bind(held, "driver_stocked", [_Address], ctypes.c_uint32)
        self.tidy = _bind(released, "driver_tidy", [_Address, ctypes.c_uint32], ctypes.c_bool)
        self.start_ticker = _bind(held, "driver_start_ticker", [_Address, ctypes.c_int64], _Address)
        self.wake_ticker = _bind(held, "driver_wake_ticker", [_Address], None)
        self.stop_ticker = _bind(released, "driver_stop_ticker", [_Address], None)
        self._bind_channels(held)

    def _bind_channels(self, library: ctypes.CDLL) -> None:
        """Those of channels, which take microseconds at the most."""
        size, flag = ctypes.c_size_t, ctypes.c_bool
        self.pack = _bind(library, "driver_pack", [_Address, size, _Address], None)
        self.unpack = _bind(library, "driver_unpack", [_Address, size, _Address], None)
        self.new_bell = _bind(library, "driver_new_bell", [ctypes.c_int], _Address)
        self.mute_bell = _bind(library, "driver_mute_bell", [_Address], None)
        self.free_bell = _bind(library, "driver_free_bell", [_Address], None)
        self.rung = _bind(library, "driver_rung", [_Address], _Address)
        self.new_channel = _bind(library, "driver_new_channel", [_Address, ctypes.c_uint64], _Address)
        self.free_channel = _bind(library, "driver_free_channel", [_Address], None)
        self.feed = _bind(library, "driver_feed", [_Address, _Address, size], flag)
        self.take_bytes = _bind(library, "driver_take_bytes", [_Address, _Address, size], size)
        self.watch = _bind(library, "driver_watch", [_Address, ctypes.c_uint32], flag)
        self.close_channel = _bind(library, "driver_close_channel", [_Address], None)
        self.lend = _bind(library, "driver_lend", [_Address, ctypes.c_int, ctypes.c_uint64, flag], None)
        self.recall = _bind(library, "driver_recall", [_Address], None)
        self.join = _bind(library, "driver_join", [_Address, _Address, ctypes.c_uint32, flag], None)
        self.tell = _bind(library, "driver_tell", [_Address], None)
        self.part = _bind(library, "driver_part", [_Address], None)
        self.answer_before = _bind(library, "driver_answer_before", [_Address], None)
        self.on_question = ctypes.cast(library.driver_on_question, _Address).value


def _bind(library: ctypes.CDLL, name: str, arguments: list[type], result: type | None) -> Any:
    function = library[name]
    function.argtypes, function.restype = arguments, result
    return function


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """Why a process does without the driver, and what changes that."""

    reason: str
    cure: str
    is_wanted: bool = False


SWITCHED_OFF = Absence(reason="LATTICE_DRIVER is `off`", cure="unset LATTICE_DRIVER", is_wanted=True)


def load(functions: Sequence[int], layout: Layout) -> Driver | Absence:
    """The driver, or why there is none: not wanted, not built, or built for another machine or version."""
    if os.environ.get("LATTICE_DRIVER") == "off":
        return SWITCHED_OFF
    if not LIBRARY.exists():
        return _not_built("the engine's native helper was not built")
    try:
        return Driver(functions, layout)
    except (OSError, AttributeError) as error:
        return _not_built(f"the engine's native helper can't be loaded: {error}")


def _not_built(reason: str) -> Absence:
    build = "`make setup`, or with `python -m node.engine.driver.build` where `ziglang` is installed"
    return Absence(reason=reason, cure=f"build it with {build}; LATTICE_DRIVER=off if it is not wanted")


class Maker:
    """A thread that makes sandboxes and ends them beside the event loop; stop it when no pool is left."""

    def __init__(self, driver: Driver, *, has_thread: bool = True) -> None:
        """Without a thread, who asks does the work: on busy cores a second thread only disturbs."""
        self.driver = driver
        self.has_thread = has_thread
        self.address = cast("int", driver.start_maker(has_thread))
        if not self.address:
            raise OSError("no thread can be started for the engine")

    def stop(self) -> None:
        """Blocks until it has done all that it was asked to."""
        address, self.address = self.address, 0
        if address:
            self.driver.stop_maker(address)


class NativeTicker:
    """As `node.engine.ticker.Ticker`, on a thread that needs no GIL: nothing in Python waits for it.

    The clock of the engine at that address, which must outlive it.
    """

    def __init__(self, driver: Driver, engine: int, tick_seconds: float) -> None:
        self._driver = driver
        self.address = cast("int", driver.start_ticker(engine, round(tick_seconds * 1e9)))
        if not self.address:
            raise OSError("no thread can be started for the engine's clock")
        size = ctypes.sizeof(ctypes.c_uint32)
        words = [ctypes.c_uint32.from_address(self.address + index * size) for index in range(3)]
        self._is_wanted, self._is_idle, self._ticks = words

    @property
    def is_idle(self) -> bool:
        """Whether it rests until it is wanted again."""
        return bool(self._is_idle.value)

    @property
    def ticks(self) -> int:
        """How often it has ticked so far."""
        return self._ticks.value

    def note(self) -> None:
        """Say that a guest is about to run. Any thread may; it must precede every poll."""
        self._is_wanted.value = 1
        if self._is_idle.value:
            self._driver.wake_ticker(self.address)

    def close(self) -> None:
        """Stop the thread and wait until it has ended, two ticks at most."""
        address, self.address = self.address, 0
        if address:
            self._is_wanted, self._is_idle, self._ticks = (ctypes.c_uint32() for _ in range(3))
            self._driver.stop_ticker(address)
