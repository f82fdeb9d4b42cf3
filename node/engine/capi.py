"""All that touches wasmtime's C API, which is private in wasmtime-py: its version is pinned.

Only the engine itself is made elsewhere (`configuration`). Everything is plain addresses (int) here. The
rules that keep the process alive: a store and the functions of its instance stay together in one object; a
fiber has one driver at a time; what C only reads is lent from Python's memory; what C hands out is freed
exactly once, by who asked for it.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
import struct
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import wasmtime
from wasmtime import _ffi as ffi

from node.engine import driver

# Bound functions. `_held` keeps the GIL, for what takes no longer than giving it up and taking it back;
# `_released` gives it up, for what runs guest code or may take long.

_held = ctypes.PyDLL(ffi.dll._name)
_released = ctypes.CDLL(ffi.dll._name)

_Address = ctypes.c_void_p
_Size = ctypes.c_size_t

_LETTERS: Mapping[str, Any] = {
    "a": _Address,
    "z": _Size,
    "b": ctypes.c_bool,
    "s": ctypes.c_char_p,
    "u": ctypes.c_uint32,
    "q": ctypes.c_uint64,
    "l": ctypes.c_int64,
    "": None,
}


def _bind(library: ctypes.CDLL, name: str, arguments: str, result: str = "") -> Callable[..., Any]:
    """A function of the C API; a letter for each argument and for the result."""
    function = library[name]
    function.argtypes = [_LETTERS[letter] for letter in arguments]
    function.restype = _LETTERS[result]
    return function


_COMPONENT = "wasmtime_component"
_LINKER = "wasmtime_component_linker"
_store_new = _bind(_held, "wasmtime_store_new", "aaa", "a")
_context_data = _bind(_held, "wasmtime_context_get_data", "a", "a")
_store_context = _bind(_held, "wasmtime_store_context", "a", "a")
_store_delete = _bind(_held, "wasmtime_store_delete", "a")
_store_delete_released = _bind(_released, "wasmtime_store_delete", "a")
_store_limiter = _bind(_held, "wasmtime_store_limiter", "alllll")
_set_epoch_deadline = _bind(_held, "wasmtime_context_set_epoch_deadline", "aq")
_yield_at_deadline = _bind(_held, "wasmtime_context_epoch_deadline_async_yield_and_update", "aq", "a")
_increment_epoch = _bind(_held, "wasmtime_engine_increment_epoch", "a")
_error_message = _bind(_held, "wasmtime_error_message", "aa")
_error_delete = _bind(_held, "wasmtime_error_delete", "a")
_bytes_delete = _bind(_held, "wasm_byte_vec_delete", "a")
_poll = _bind(_released, "wasmtime_call_future_poll", "a", "b")
_future_delete = _bind(_held, "wasmtime_call_future_delete", "a")
_call_async = _bind(_held, f"{_COMPONENT}_func_call_async", "aaazaza", "a")
_get_func = _bind(_held, f"{_COMPONENT}_instance_get_func", "aaaa", "b")
_deserialize_file = _bind(_released, f"{_COMPONENT}_deserialize_file", "asa", "a")
_component_delete = _bind(_held, f"{_COMPONENT}_delete", "a")
_export_index = _bind(_held, f"{_COMPONENT}_get_export_index", "aasz", "a")
_export_index_delete = _bind(_held, f"{_COMPONENT}_export_index_delete", "a")
_value_delete = _bind(_held, f"{_COMPONENT}_val_delete", "a")
_value_clone = _bind(_held, f"{_COMPONENT}_val_clone", "aa")
_linker_new = _bind(_held, f"{_LINKER}_new", "a", "a")
_linker_delete = _bind(_held, f"{_LINKER}_delete", "a")
_linker_root = _bind(_held, f"{_LINKER}_root", "a", "a")
_linker_instance_delete = _bind(_held, f"{_LINKER}_instance_delete", "a")
_instantiate_async = _bind(_held, f"{_LINKER}_instantiate_async", "aaaaa", "a")
_add_instance = _bind(_held, f"{_LINKER}_instance_add_instance", "asza", "a")
_add_function = _bind(_held, f"{_LINKER}_instance_add_func_async", "aszaaa", "a")
_add_resource = _bind(_held, f"{_LINKER}_instance_add_resource", "aszaaaa", "a")
_resource_type_new = _bind(_held, f"{_COMPONENT}_resource_type_new_host", "u", "a")
_resource_type_delete = _bind(_held, f"{_COMPONENT}_resource_type_delete", "a")
_resource_new = _bind(_held, f"{_COMPONENT}_resource_host_new", "buu", "a")
_resource_rep = _bind(_held, f"{_COMPONENT}_resource_host_rep", "a", "u")
_resource_is_owned = _bind(_held, f"{_COMPONENT}_resource_host_owned", "a", "b")
_resource_delete = _bind(_held, f"{_COMPONENT}_resource_host_delete", "a")
_resource_to_any = _bind(_held, f"{_COMPONENT}_resource_host_to_any", "aaa", "a")
_resource_from_any = _bind(_held, f"{_COMPONENT}_resource_any_to_host", "aaa", "a")
_resource_any_delete = _bind(_held, f"{_COMPONENT}_resource_any_delete", "a")

# The layout of values: a tag, then at `PAYLOAD` the value itself or sizes and addresses of its parts.

VALUE_SIZE = ctypes.sizeof(ffi.wasmtime_component_val_t)
PAYLOAD = ffi.wasmtime_component_val_t.of.offset
ENTRY_SIZE = ctypes.sizeof(ffi.wasmtime_component_valrecord_entry_t)
NAME_SIZE = ctypes.sizeof(ffi.wasm_name_t)
assert (VALUE_SIZE, PAYLOAD, ENTRY_SIZE, NAME_SIZE) == (32, 8, 48, 16), "another layout of values"


class Kind(enum.IntEnum):
    """The tag of a value."""

    BOOL = ffi.WASMTIME_COMPONENT_BOOL.value
    S8 = ffi.WASMTIME_COMPONENT_S8.value
    U8 = ffi.WASMTIME_COMPONENT_U8.value
    S16 = ffi.WASMTIME_COMPONENT_S16.value
    U16 = ffi.WASMTIME_COMPONENT_U16.value
    S32 = ffi.WASMTIME_COMPONENT_S32.value
    U32 = ffi.WASMTIME_COMPONENT_U32.value
    S64 = ffi.WASMTIME_COMPONENT_S64.value
    U64 = ffi.WASMTIME_COMPONENT_U64.value
    F32 = ffi.WASMTIME_COMPONENT_F32.value
    F64 = ffi.WASMTIME_COMPONENT_F64.value
    CHAR = ffi.WASMTIME_COMPONENT_CHAR.value
    STRING = ffi.WASMTIME_COMPONENT_STRING.value
    LIST = ffi.WASMTIME_COMPONENT_LIST.value
    RECORD = ffi.WASMTIME_COMPONENT_RECORD.value
    TUPLE = ffi.WASMTIME_COMPONENT_TUPLE.value
    VARIANT = ffi.WASMTIME_COMPONENT_VARIANT.value
    ENUM = ffi.WASMTIME_COMPONENT_ENUM.value
    OPTION = ffi.WASMTIME_COMPONENT_OPTION.value
    RESULT = ffi.WASMTIME_COMPONENT_RESULT.value
    FLAGS = ffi.WASMTIME_COMPONENT_FLAGS.value
    RESOURCE = ffi.WASMTIME_COMPONENT_RESOURCE.value


read = ctypes.string_at
"""`read(address, size)`: a copy of memory that C owns."""

_view = ctypes.pythonapi.PyMemoryView_FromMemory
_view.restype = ctypes.py_object
_view.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int]


def view(address: int, size: int) -> memoryview:
    """Memory that C owns, not copied; it must not outlive the value that it belongs to."""
    return cast("memoryview", _view(address, size, 0x100))


_bytearray_address = ctypes.pythonapi.PyByteArray_AsString
_bytearray_address.restype = ctypes.c_void_p
_bytearray_address.argtypes = [ctypes.py_object]


_BYTES_OFFSET = bytes.__basicsize__ - 1  # at the object's end, before a zero
assert ctypes.string_at(id(b"bytes") + _BYTES_OFFSET, 6) == b"bytes\0", "another layout of bytes"


def bytes_address(data: bytes) -> int:
    """Where the bytes are; valid while something keeps them alive."""
    return id(data) + _BYTES_OFFSET  # a quarter of the time in which C would tell


class Lender:
    """Lends Python's bytes to C for the time of a call: C copies what it reads, so nothing is freed there.

    Keep it alive until C is done. Handles of resources made for the values are deleted by `close`.
    """

    __slots__ = ("handles", "kept", "lent_bytes", "may_be_heavy", "owner")

    def __init__(self, owner: Any, *, may_be_heavy: bool) -> None:
        self.owner = owner
        self.may_be_heavy = may_be_heavy
        self.kept: list[bytes | bytearray] = []
        self.lent_bytes = 0
        self.handles: list[int] = []

    def address(self, data: bytes | bytearray) -> int:
        """The address of `data`, which is kept alive and must not change any more."""
        self.kept.append(data)
        if type(data) is bytes:
            return id(data) + _BYTES_OFFSET
        return cast("int", _bytearray_address(data))

    def close(self) -> None:
        """Free the handles and let go of the bytes; C must have copied the values by now."""
        self.kept.clear()
        while self.handles:
            _resource_any_delete(self.handles.pop())


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


class WasmError(Exception):
    """What wasmtime reported: a trap or a refusal, with its whole text. It stays within the engine."""


def _take_error(pointer: int) -> WasmError:
    message = ffi.wasm_byte_vec_t()
    _error_message(pointer, ctypes.addressof(message))
    try:
        text = read(message.data, message.size).decode("utf-8", errors="replace")
    finally:
        _bytes_delete(ctypes.addressof(message))
        _error_delete(pointer)
    return WasmError(text)


def _check(pointer: int | None) -> None:
    if pointer:
        raise _take_error(pointer)


_stores: dict[int, Store] = {}
"""The living stores by the address of their context, which is what C hands to callbacks."""


_TEXT = struct.Struct("<QQ")
"""Size and address of a text in a value."""


class Store:
    """A sandbox: a store, the one instance in it and at most one fiber that runs there.

    The owner calls `poll` until it is true, then `finish` or `finish_instantiation`, or `abandon` at any
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
        "owner",
    )

    def __init__(self, engine: int, limits: tuple[int, int, int, int, int]) -> None:
        """`limits`: memory bytes, table elements, core instances, tables, memories; -1 for none."""
        self._prepare()
        self._store = _store_new(engine, None, None)
        self.context: int = _store_context(self._store)
        _store_limiter(self._store, *limits)
        _yield_at_deadline(self.context, 1)
        _stores[self.context] = self

    def _prepare(self) -> None:
        self._fiber = 0
        self.has_ended = False
        self.owner: Any = None
        self.host_call: tuple[HostBinding, tuple[Any, ...], int] | None = None
        """The host function that the fiber waits for, its arguments, and where its result goes."""
        self.failure: BaseException | None = None
        """Set when a callback failed: the fiber must be abandoned."""
        self.dropped: list[tuple[Any, int]] = []
        """Owned handles that the guest dropped: what their type was bound with, and their number."""
        self._has_freed = False
        self._cells = cells = _Cells()
        self._address = ctypes.addressof(cells)

    def instantiate(self, linker: int, component: int) -> None:
        """Begin to make the instance; both must outlive the fiber."""
        address = self._address
        self._fiber = _instantiate_async(
            linker, self.context, component, address + _INSTANCE, address + _ERROR
        )

    def call(self, export: int, arguments: int, count: int, results: int) -> None:
        """Begin a call; `arguments` is the address of `count` values lent until the fiber has ended."""
        address = self._address
        if not _get_func(address + _INSTANCE, self.context, export, address + _FUNCTION):
            raise WasmError("the export is not a function")
        if self._has_freed:  # the call drops what it overwrites
            ctypes.memset(address + _RESULT, 0, VALUE_SIZE)
        self._fiber = _call_async(
            address + _FUNCTION, self.context, arguments, count, address + _RESULT, results, address + _ERROR
        )

    def poll(self, ticks: int) -> bool:
        """Run the fiber until it ends (true), waits for the host, or has spent `ticks` of the epoch clock.

        May be called on any thread, by one at a time.
        """
        _set_epoch_deadline(self.context, ticks)
        self.has_ended = ended = cast("bool", _poll(self._fiber))
        return ended

    def finish(self) -> None:
        """Free a fiber that has ended; raises `WasmError` if the guest failed.

        After a call that has a result, the result is at `result` until `free_result`.
        """
        fiber, self._fiber = self._fiber, 0
        if fiber:
            _future_delete(fiber)
        error = self._cells.error
        if error:
            self._cells.error = None
            raise _take_error(error)

    def abandon(self) -> None:
        """Free the fiber wherever it is; the instance can't be used any more."""
        self.host_call = None
        if self._fiber:
            fiber, self._fiber = self._fiber, 0
            _future_delete(fiber)
        if error := self._cells.error:
            self._cells.error = None
            _error_delete(error)

    @property
    def result(self) -> int:
        return self._address + _RESULT

    def text_result(self) -> bytes:
        """A copy of a result that is a text; the result is freed."""
        size, address = _TEXT.unpack_from(self._cells, _RESULT + PAYLOAD)
        text = read(address, size)
        self.free_result()
        return text

    def free_result(self) -> None:
        _value_delete(self._address + _RESULT)
        self._has_freed = True

    def resume(self, result: bytes | None) -> None:
        """Let the fiber go on, at the next poll, with the lent value as the host function's result."""
        assert self.host_call
        if result is not None:
            _value_clone(bytes_address(result), self.host_call[2])
        self.host_call = None
        self._cells.ready = b"1"

    def make_handle(self, number: int, type_: int) -> int:
        """An owned handle to a host's resource; free it with the lender that it is lent by."""
        host = _resource_new(True, number, type_)
        try:
            _check(_resource_to_any(self.context, host, self._address + _HANDLE))
        finally:
            _resource_delete(host)
        return cast("int", self._cells.handle)

    def read_handle(self, handle: int) -> tuple[int, bool]:
        """The number behind a host's handle and whether it was owned; consumes what it stood for."""
        _check(_resource_from_any(self.context, handle, self._address + _HANDLE))
        host = self._cells.handle
        try:
            return _resource_rep(host), _resource_is_owned(host)
        finally:
            _resource_delete(host)

    def close(self, *, is_slow: bool = False) -> None:
        """Free everything; `is_slow`, for instances with much memory, gives up the GIL meanwhile."""
        self.abandon()
        if self._store:
            store, self._store = self._store, 0
            del _stores[self.context]
            (_store_delete_released if is_slow else _store_delete)(store)


class DrivenStore(Store):
    """A sandbox that the driver makes and calls, each in one call of C, or that its maker makes and ends.

    Once it was made it is a store like others. What was ordered belongs to the maker until `arrive`.
    """

    __slots__ = ("_driver", "_maker", "_recipe")

    def __init__(self, maker: driver.Maker, recipe: int) -> None:
        self._prepare()
        self._driver = maker.driver
        self._maker = maker
        self._recipe = recipe
        self._store = self.context = 0

    def instantiate(self, linker: int, component: int) -> None:
        _awaited[self._address] = self
        self._driver.open(self._address, self._recipe)
        self._adopt()
        super().instantiate(linker, component)

    def make(self) -> bool:
        """Make it here: false if its fiber has not ended, as after `poll`."""
        _awaited[self._address] = self
        self.has_ended = ended = cast("bool", self._driver.make(self._address, self._recipe))
        self._adopt()
        return ended

    def order(self) -> bool:
        """Have the maker make it; false if that has too much to do. Follow with `arrive`."""
        _awaited[self._address] = self
        is_taken = cast("bool", self._driver.ask_to_make(self._maker.address, self._address, self._recipe))
        if not is_taken:
            del _awaited[self._address]
        return is_taken

    @property
    def is_made(self) -> bool:
        """Whether what was ordered is there."""
        return cast("bool", self._driver.is_made(self._address))

    def hurry(self) -> bool:
        """Whether it is made, by now: here, unless the maker has begun it already."""
        return self.is_made or cast(
            "bool", self._driver.hurry(self._maker.address, self._address, self._recipe)
        )

    def arrive(self) -> bool:
        """Take over what was ordered, waiting if need be: false if its fiber has not ended."""
        if not self.is_made:
            self._driver.wait(self._maker.address, self._address, self._recipe)
        self._adopt()
        self.has_ended = not self._fiber
        return self.has_ended

    def _adopt(self) -> None:
        head = self._cells.head
        self._store, self.context, self._fiber = head.store, head.context, head.fiber or 0
        del _awaited[self._address]
        _stores[self.context] = self

    def call_at_once(self, export: int, arguments: int, count: int, results: int, ticks: int) -> bool:
        """Call a function and poll it once; as `call` and `poll`."""
        self.has_ended = ended = cast(
            "bool", self._driver.call(self._address, export, arguments, count, results, ticks)
        )
        self._fiber = 0 if ended else self._cells.head.fiber
        if ended:
            self._cells.head.has_result = results
        return ended

    def free_result(self) -> None:
        self._cells.head.has_result = True
        self._driver.free_result(self._address)

    def text_result(self) -> bytes:
        """As of any store; the result of a call at once is freed later, by the next one or the end."""
        if not self._cells.head.has_result:
            return super().text_result()
        size, address = _TEXT.unpack_from(self._cells, _RESULT + PAYLOAD)
        return read(address, size)

    def close(self, *, is_slow: bool = False) -> None:
        """Free everything; the maker ends the sandbox."""
        self.abandon()
        if self._store:
            store, self._store = self._store, 0
            self._driver.free_result(self._address)
            del _stores[self.context]
            if not self._driver.ask_to_end(self._maker.address, store):
                _store_delete_released(store)


_awaited: dict[int, DrivenStore] = {}
"""Those being made, by the address of their cells, which is what their stores have as data."""


def _store_of(context: int) -> Store:
    return _stores.get(context) or _awaited[_context_data(context)]


_driver = driver.load(
    [ctypes.cast(ffi.dll[name], _Address).value or 0 for name in driver.FUNCTIONS],
    (_INSTANCE, _FUNCTION, _ERROR, _RESULT, VALUE_SIZE),
)
DRIVER = _driver if isinstance(_driver, driver.Driver) else None
"""The native helper, if there is one."""
NO_DRIVER = _driver if isinstance(_driver, driver.Absence) else None
"""Why there is none."""


class HostBinding(Protocol):
    """What a host function is bound as."""

    def lift(self, address: int, store: Store) -> tuple[Any, ...]:
        """The arguments at `address` as Python values."""


_bindings: dict[int, Any] = {}
_binding_numbers = itertools.count(1)


def _on_host_call(
    number: int, context: int, _type: int, arguments: int, _n: int, results: int, _m: int, _e: int, next_: int
) -> None:
    """Runs on the fiber's stack, maybe on a worker thread: copy the arguments, and let the fiber wait."""
    store = _store_of(context)
    store._cells.ready = b""
    continuation = _pack_continuation(_strlen_address, store._address + _READY, 0)
    ctypes.memmove(next_, continuation, len(continuation))
    try:
        binding = _bindings[number]
        store.host_call = (binding, binding.lift(arguments, store), results)
    except BaseException as error:  # it belongs to this call: the driver raises it
        store.failure = error


def _on_drop(number: int, context: int, rep: int) -> int:
    """Runs on the fiber's stack: only note what was dropped."""
    _store_of(context).dropped.append((_bindings[number], rep))
    return 0


_host_callback = ctypes.CFUNCTYPE(
    None, _Address, _Address, _Address, _Address, _Size, _Address, _Size, _Address, _Address
)(_on_host_call)
_drop = ctypes.CFUNCTYPE(_Size, _Address, _Address, ctypes.c_uint32)(_on_drop)
_host_call_address = ctypes.cast(_host_callback, _Address).value
_drop_address = ctypes.cast(_drop, _Address).value


class Linker:
    """What one component's imports are bound to. Close it after all fibers that instantiate with it."""

    __slots__ = ("_numbers", "_types", "pointer")

    def __init__(self, engine: int) -> None:
        self.pointer: int = _linker_new(engine)
        self._numbers: list[int] = []
        self._types: list[int] = []

    def define(
        self,
        interface: str | None,
        functions: Mapping[str, HostBinding],
        resources: Mapping[str, tuple[int, Any]],
    ) -> None:
        """Define an instance, or with None the root's functions; resources are (type number, binding)."""
        root = _linker_root(self.pointer)
        try:
            if interface is None:
                self._fill(root, functions, resources)
                return
            slot = ctypes.c_void_p()
            name = interface.encode()
            _check(_add_instance(root, name, len(name), ctypes.addressof(slot)))
            try:
                self._fill(slot.value or 0, functions, resources)
            finally:
                _linker_instance_delete(slot)
        finally:
            _linker_instance_delete(root)

    def _fill(
        self, instance: int, functions: Mapping[str, HostBinding], resources: Mapping[str, tuple[int, Any]]
    ) -> None:
        for text, (type_number, binding) in resources.items():
            name, number = text.encode(), self._register(binding)
            type_ = _resource_type_new(type_number)
            self._types.append(type_)
            _check(_add_resource(instance, name, len(name), type_, _drop_address, number, None))
        for text, function in functions.items():
            name, number = text.encode(), self._register(function)
            _check(_add_function(instance, name, len(name), _host_call_address, number, None))

    def _register(self, binding: Any) -> int:
        number = next(_binding_numbers)
        _bindings[number] = binding
        self._numbers.append(number)
        return number

    def close(self) -> None:
        """No instance that was made with it may run any more."""
        if self.pointer:
            _linker_delete(self.pointer)
            self.pointer = 0
            for type_ in self._types:
                _resource_type_delete(type_)
            for number in self._numbers:
                del _bindings[number]
            self._types.clear()
            self._numbers.clear()


class Component:
    """Loaded code of a component, and the indexes of its exported functions."""

    __slots__ = ("_indexes", "pointer")

    def __init__(self, engine: int, path: str) -> None:
        """Map the file at `path`; blocks for up to some milliseconds; raises `WasmError`."""
        slot = ctypes.c_void_p()
        _check(_deserialize_file(engine, path.encode(), ctypes.addressof(slot)))
        self.pointer: int = slot.value or 0
        self._indexes: dict[tuple[int | None, str], int] = {}

    def export(self, interface: str | None, function: str) -> int:
        """The index of an exported function, or 0; it lives as long as the component."""
        if not self.pointer:
            raise RuntimeError("the component is closed")
        parent = None
        if interface is not None:
            parent = self._index(None, interface)
            if not parent:
                return 0
        return self._index(parent, function)

    def _index(self, parent: int | None, text: str) -> int:
        if (parent, text) not in self._indexes:
            name = text.encode()
            self._indexes[parent, text] = _export_index(self.pointer, parent, name, len(name)) or 0
        return self._indexes[parent, text]

    def close(self) -> None:
        """Instances that still live keep the code alive by themselves."""
        if self.pointer:
            for index in filter(None, self._indexes.values()):
                _export_index_delete(index)
            self._indexes.clear()
            _component_delete(self.pointer)
            self.pointer = 0


def engine_address(engine: wasmtime.Engine) -> int:
    """The engine as the other functions here take it; it must outlive their objects."""
    return ctypes.cast(engine.ptr(), ctypes.c_void_p).value or 0


def increment_epoch(engine: int) -> None:
    """One tick of the epoch clock."""
    _increment_epoch(engine)
