"""The engine's native helper (`driver.c`), if it was built: several calls of wasmtime's C API in one.

`node.engine.capi` tells it where wasmtime's functions are. Whatever it does, Python can do as well, call by
call; so without it, or with `LATTICE_DRIVER=off`, a node works as before, only slower.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

LIBRARY = Path(__file__).parent / "driver.so"

FUNCTIONS = (
    "wasmtime_store_new",
    "wasmtime_store_context",
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
    "wasmtime_engine_increment_epoch",
)
"""What it calls, in the order of `api` in driver.c."""

_Address = ctypes.c_void_p


class Head(ctypes.Structure):
    """With this the cells of each sandbox begin."""

    _fields_ = (
        ("store", _Address),
        ("context", _Address),
        ("fiber", _Address),
        ("state", ctypes.c_uint32),
        ("has_result", ctypes.c_uint32),
    )


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
    """The library. Its functions take addresses of cells and of recipes."""

    def __init__(self, functions: Sequence[int], offsets: Sequence[int]) -> None:
        """`functions`: where `FUNCTIONS` are; `offsets` of instance, function, error and result; its size."""
        held, released = ctypes.PyDLL(str(LIBRARY)), ctypes.CDLL(str(LIBRARY))
        begin = held.driver_begin
        begin.argtypes, begin.restype = [_Address, _Address], None
        begin((_Address * len(functions))(*functions), (ctypes.c_uint32 * len(offsets))(*offsets))
        # Those that run guests or wait give up the GIL.
        self.open = _bind(held, "driver_open", [_Address, _Address], None)
        self.make = _bind(released, "driver_make", [_Address, _Address], ctypes.c_bool)
        self.call = _bind(
            released,
            "driver_call",
            [_Address, _Address, _Address, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_uint64],
            ctypes.c_bool,
        )
        self.hurry = _bind(released, "driver_hurry", [_Address, _Address, _Address], ctypes.c_bool)
        self.wait = _bind(released, "driver_await", [_Address, _Address, _Address], None)
        self.stop_maker = _bind(released, "driver_stop_maker", [_Address], None)
        self.free_result = _bind(held, "driver_free_result", [_Address], None)
        self.start_maker = _bind(held, "driver_start_maker", [], _Address)
        self.ask_to_make = _bind(held, "driver_ask_to_make", [_Address, _Address, _Address], ctypes.c_bool)
        self.is_made = _bind(held, "driver_is_made", [_Address], ctypes.c_bool)
        self.ask_to_end = _bind(held, "driver_ask_to_end", [_Address, _Address], ctypes.c_bool)
        self.start_ticker = _bind(held, "driver_start_ticker", [_Address, ctypes.c_int64], _Address)
        self.wake_ticker = _bind(held, "driver_wake_ticker", [_Address], None)
        self.stop_ticker = _bind(released, "driver_stop_ticker", [_Address], None)


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


def load(functions: Sequence[int], offsets: Sequence[int]) -> Driver | Absence:
    """The driver, or why there is none: not wanted, not built, or built for another machine or version."""
    if os.environ.get("LATTICE_DRIVER") == "off":
        return SWITCHED_OFF
    if not LIBRARY.exists():
        return _not_built("the engine's native helper was not built")
    try:
        return Driver(functions, offsets)
    except (OSError, AttributeError) as error:
        return _not_built(f"the engine's native helper can't be loaded: {error}")


def _not_built(reason: str) -> Absence:
    build = "`make setup`, or with `python -m node.engine.driver.build` where `ziglang` is installed"
    return Absence(reason=reason, cure=f"build it with {build}; LATTICE_DRIVER=off if it is not wanted")


class Maker:
    """A thread that makes sandboxes and ends them beside the event loop; stop it when no pool is left."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.address = cast("int", driver.start_maker())
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
        self._address = cast("int", driver.start_ticker(engine, round(tick_seconds * 1e9)))
        if not self._address:
            raise OSError("no thread can be started for the engine's clock")
        size = ctypes.sizeof(ctypes.c_uint32)
        words = [ctypes.c_uint32.from_address(self._address + index * size) for index in range(3)]
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
            self._driver.wake_ticker(self._address)

    def close(self) -> None:
        """Stop the thread and wait until it has ended, two ticks at most."""
        address, self._address = self._address, 0
        if address:
            self._is_wanted, self._is_idle, self._ticks = (ctypes.c_uint32() for _ in range(3))
            self._driver.stop_ticker(address)
