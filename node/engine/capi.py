"""wasmtime's C API, which is private in wasmtime-py: its version is pinned. Its functions, values and errors.

`configuration` makes engines with it, `store` sandboxes, `callbacks` linkers; nothing else touches it.
Everything is plain addresses (int). The rules that keep the process alive: a store and the functions of its
instance stay together in one object; a fiber has one driver at a time; what C only reads is lent from
Python's memory; what C hands out is freed exactly once, by who asked for it.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable, Mapping
from typing import Any, cast

import wasmtime
from wasmtime import _ffi as ffi

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
store_new = _bind(_held, "wasmtime_store_new", "aaa", "a")
context_data = _bind(_held, "wasmtime_context_get_data", "a", "a")
store_context = _bind(_held, "wasmtime_store_context", "a", "a")
store_delete = _bind(_held, "wasmtime_store_delete", "a")
store_delete_released = _bind(_released, "wasmtime_store_delete", "a")
store_limiter = _bind(_held, "wasmtime_store_limiter", "alllll")
set_epoch_deadline = _bind(_held, "wasmtime_context_set_epoch_deadline", "aq")
yield_at_deadline = _bind(_held, "wasmtime_context_epoch_deadline_async_yield_and_update", "aq", "a")
_increment_epoch = _bind(_held, "wasmtime_engine_increment_epoch", "a")
_error_message = _bind(_held, "wasmtime_error_message", "aa")
error_delete = _bind(_held, "wasmtime_error_delete", "a")
_bytes_delete = _bind(_held, "wasm_byte_vec_delete", "a")
poll = _bind(_released, "wasmtime_call_future_poll", "a", "b")
future_delete = _bind(_held, "wasmtime_call_future_delete", "a")
call_async = _bind(_held, f"{_COMPONENT}_func_call_async", "aaazaza", "a")
get_func = _bind(_held, f"{_COMPONENT}_instance_get_func", "aaaa", "b")
_deserialize_file = _bind(_released, f"{_COMPONENT}_deserialize_file", "asa", "a")
_component_delete = _bind(_held, f"{_COMPONENT}_delete", "a")
_export_index = _bind(_held, f"{_COMPONENT}_get_export_index", "aasz", "a")
_export_index_delete = _bind(_held, f"{_COMPONENT}_export_index_delete", "a")
value_delete = _bind(_held, f"{_COMPONENT}_val_delete", "a")
value_clone = _bind(_held, f"{_COMPONENT}_val_clone", "aa")
linker_new = _bind(_held, f"{_LINKER}_new", "a", "a")
linker_delete = _bind(_held, f"{_LINKER}_delete", "a")
linker_root = _bind(_held, f"{_LINKER}_root", "a", "a")
linker_instance_delete = _bind(_held, f"{_LINKER}_instance_delete", "a")
instantiate_async = _bind(_held, f"{_LINKER}_instantiate_async", "aaaaa", "a")
add_instance = _bind(_held, f"{_LINKER}_instance_add_instance", "asza", "a")
add_function = _bind(_held, f"{_LINKER}_instance_add_func_async", "aszaaa", "a")
add_resource = _bind(_held, f"{_LINKER}_instance_add_resource", "aszaaaa", "a")
resource_type_new = _bind(_held, f"{_COMPONENT}_resource_type_new_host", "u", "a")
resource_type_delete = _bind(_held, f"{_COMPONENT}_resource_type_delete", "a")
resource_new = _bind(_held, f"{_COMPONENT}_resource_host_new", "buu", "a")
resource_rep = _bind(_held, f"{_COMPONENT}_resource_host_rep", "a", "u")
resource_is_owned = _bind(_held, f"{_COMPONENT}_resource_host_owned", "a", "b")
resource_delete = _bind(_held, f"{_COMPONENT}_resource_host_delete", "a")
resource_to_any = _bind(_held, f"{_COMPONENT}_resource_host_to_any", "aaa", "a")
resource_from_any = _bind(_held, f"{_COMPONENT}_resource_any_to_host", "aaa", "a")
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


read: Callable[[Any, int], bytes] = ctypes.pythonapi.PyBytes_FromStringAndSize
"""`read(address, size)`: a copy of memory that C owns, as `ctypes.string_at` gives it in half the time."""
read.restype = ctypes.py_object  # type: ignore[attr-defined]
read.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t]  # type: ignore[attr-defined]

_view = ctypes.pythonapi.PyMemoryView_FromMemory
_view.restype = ctypes.py_object
_view.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int]


def view(address: int, size: int) -> memoryview:
    """Memory that C owns, not copied; it must not outlive the value that it belongs to."""
    return cast("memoryview", _view(address, size, 0x100))


_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.restype = ctypes.py_object
_new_bytes.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t]


def new_bytes(size: int) -> bytes:
    """Bytes for C to write, at `bytes_address`, before anybody else sees them; more than one."""
    return cast("bytes", _new_bytes(None, size))


_bytearray_address = ctypes.pythonapi.PyByteArray_AsString
_bytearray_address.restype = ctypes.c_void_p
_bytearray_address.argtypes = [ctypes.py_object]


BYTES_OFFSET = bytes.__basicsize__ - 1
"""From an object's address to its bytes, which are at its end, before a zero."""
assert ctypes.string_at(id(b"bytes") + BYTES_OFFSET, 6) == b"bytes\0", "another layout of bytes"


def bytes_address(data: bytes) -> int:
    """Where the bytes are; valid while something keeps them alive."""
    return id(data) + BYTES_OFFSET  # a quarter of the time in which C would tell


class Lender:
    """Lends Python's bytes to C for the time of a call: C copies what it reads, so nothing is freed there.

    Keep it alive until C is done. Handles of resources made for the values are deleted by `close`.
    """

    __slots__ = ("handles", "kept", "lent_bytes", "may_be_heavy", "owner")

    def __init__(self, owner: Any, may_be_heavy: bool) -> None:
        self.owner = owner
        self.may_be_heavy = may_be_heavy
        self.kept: list[bytes | bytearray] = []
        self.lent_bytes = 0
        self.handles: list[int] = []

    def address(self, data: bytes | bytearray) -> int:
        """The address of `data`, which is kept alive and must not change any more."""
        self.kept.append(data)
        if type(data) is bytes:
            return id(data) + BYTES_OFFSET
        return cast("int", _bytearray_address(data))

    def close(self) -> None:
        """Free the handles and let go of the bytes; C must have copied the values by now."""
        self.kept.clear()
        while self.handles:
            _resource_any_delete(self.handles.pop())


class WasmError(Exception):
    """What wasmtime reported: a trap or a refusal, with its whole text. It stays within the engine."""


def take_error(pointer: int) -> WasmError:
    """What an error says, which is freed."""
    message = ffi.wasm_byte_vec_t()
    _error_message(pointer, ctypes.addressof(message))
    try:
        text = read(message.data, message.size).decode("utf-8", errors="replace")
    finally:
        _bytes_delete(ctypes.addressof(message))
        error_delete(pointer)
    return WasmError(text)


def check(pointer: int | None) -> None:
    """Raise the error, if it is one."""
    if pointer:
        raise take_error(pointer)


class Component:
    """Loaded code of a component, and the indexes of its exported functions."""

    __slots__ = ("_indexes", "pointer")

    def __init__(self, engine: int, path: str) -> None:
        """Map the file at `path`; blocks for up to some milliseconds; raises `WasmError`."""
        slot = ctypes.c_void_p()
        check(_deserialize_file(engine, path.encode(), ctypes.addressof(slot)))
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
