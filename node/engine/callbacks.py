"""Host functions and resources as wasmtime calls them: on the fiber's stack, maybe on a worker's thread.

Here the guest's arguments are only copied; its fiber waits, and whoever drives it does what was asked for.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Mapping
from typing import Any, Protocol

from node.engine.capi import (
    add_function,
    add_instance,
    add_resource,
    check,
    linker_delete,
    linker_instance_delete,
    linker_new,
    linker_root,
    resource_type_delete,
    resource_type_new,
)
from node.engine.store import DRIVER, Store, store_of

_Address = ctypes.c_void_p
_Size = ctypes.c_size_t


class HostBinding(Protocol):
    """What a host function is bound as."""

    @property
    def has_channels(self) -> bool:
        """Whether it is from text to text, and asks about channels, which the driver may answer."""

    def lift(self, address: int, store: Store) -> tuple[Any, ...]:
        """The arguments at `address` as Python values."""


_bindings: dict[int, Any] = {}
_binding_numbers = itertools.count(1)


def _on_host_call(
    number: int, context: int, _type: int, arguments: int, _n: int, results: int, _m: int, _e: int, next_: int
) -> None:
    """Runs on the fiber's stack, maybe on a worker thread: copy the arguments, and let the fiber wait."""
    store = store_of(context)
    store.wait(next_)
    try:
        binding = _bindings[number]
        store.host_call = (binding, binding.lift(arguments, store), results)
    except BaseException as error:  # it belongs to this call: the driver raises it
        store.failure = error


def _on_drop(number: int, context: int, rep: int) -> int:
    """Runs on the fiber's stack: only note what was dropped."""
    store_of(context).dropped.append((_bindings[number], rep))
    return 0


_host_callback = ctypes.CFUNCTYPE(
    None, _Address, _Address, _Address, _Address, _Size, _Address, _Size, _Address, _Address
)(_on_host_call)
_drop = ctypes.CFUNCTYPE(_Size, _Address, _Address, ctypes.c_uint32)(_on_drop)
_host_call_address = ctypes.cast(_host_callback, _Address).value
_drop_address = ctypes.cast(_drop, _Address).value
_question_address = _host_call_address if DRIVER is None else DRIVER.on_question
if DRIVER is not None:
    DRIVER.answer_before(_host_call_address)


class Linker:
    """What one component's imports are bound to. Close it after all fibers that instantiate with it."""

    __slots__ = ("_numbers", "_types", "pointer")

    def __init__(self, engine: int) -> None:
        self.pointer: int = linker_new(engine)
        self._numbers: list[int] = []
        self._types: list[int] = []

    def define(
        self,
        interface: str | None,
        functions: Mapping[str, HostBinding],
        resources: Mapping[str, tuple[int, Any]],
    ) -> None:
        """Define an instance, or with None the root's functions; resources are (type number, binding)."""
        root = linker_root(self.pointer)
        try:
            if interface is None:
                self._fill(root, functions, resources)
                return
            slot = ctypes.c_void_p()
            name = interface.encode()
            check(add_instance(root, name, len(name), ctypes.addressof(slot)))
            try:
                self._fill(slot.value or 0, functions, resources)
            finally:
                linker_instance_delete(slot)
        finally:
            linker_instance_delete(root)

    def _fill(
        self, instance: int, functions: Mapping[str, HostBinding], resources: Mapping[str, tuple[int, Any]]
    ) -> None:
        for text, (type_number, binding) in resources.items():
            name, number = text.encode(), self._register(binding)
            type_ = resource_type_new(type_number)
            self._types.append(type_)
            check(add_resource(instance, name, len(name), type_, _drop_address, number, None))
        for text, function in functions.items():
            name, number = text.encode(), self._register(function)
            address = _question_address if function.has_channels else _host_call_address
            check(add_function(instance, name, len(name), address, number, None))

    def _register(self, binding: Any) -> int:
        number = next(_binding_numbers)
        _bindings[number] = binding
        self._numbers.append(number)
        return number

    def close(self) -> None:
        """No instance that was made with it may run any more."""
        if self.pointer:
            linker_delete(self.pointer)
            self.pointer = 0
            for type_ in self._types:
                resource_type_delete(type_)
            for number in self._numbers:
                del _bindings[number]
            self._types.clear()
            self._numbers.clear()
