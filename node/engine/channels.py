"""Byte streams between the event loop and a guest, which the driver moves without Python (driver/channels.c).

A guest asks for parts, and gives them, by a host function that is `channelled`. The driver answers there and
then, on whatever thread the guest runs; so Python hears of a part only when it waits for one.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from typing import cast
from weakref import WeakValueDictionary

from node.engine.capi import bytes_address, new_bytes
from node.engine.driver import Driver

_FOR_DATA, _FOR_ROOM = 1, 2


class Doorbell:
    """Tells an event loop what guests have done with channels."""

    # The mutable state is the channels that somebody has waited for, by their addresses. It keeps none alive:
    # who waits for a channel often has it.

    def __init__(self, driver: Driver, loop: asyncio.AbstractEventLoop) -> None:
        self.driver = driver
        self._loop = loop
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.address = cast("int", driver.new_bell(self._descriptor))
        self.waiting: WeakValueDictionary[int, Channel] = WeakValueDictionary()
        loop.add_reader(self._descriptor, self._on_ring)

    def _on_ring(self) -> None:
        os.eventfd_read(self._descriptor)
        while address := self.driver.rung(self.address):
            channel = self.waiting.get(address)
            if channel is not None:
                self._wake(channel)

    def _wake(self, channel: Channel) -> None:
        try:
            channel.wake()  # it may wait for something else by now, so it stays
        except Exception as error:  # the others that have been rung for would never be woken again
            told = {"message": "who waits for a channel failed when woken", "exception": error}
            self._loop.call_exception_handler(told)

    def close(self) -> None:
        """It is silent from now on; no guest may be running."""
        self._loop.remove_reader(self._descriptor)
        self.driver.mute_bell(self.address)
        os.close(self._descriptor)

    def __del__(self) -> None:
        self.driver.free_bell(self.address)  # with the last of its channels


class Channel:
    """A `ByteStore` in the driver."""

    __slots__ = ("__weakref__", "_bell", "_driver", "_size", "address", "wake")

    def __init__(self, bell: Doorbell, window: int) -> None:
        """There is room for the guest while fewer than `window` bytes wait; for others, below half of it."""
        self._bell = bell
        self._driver = bell.driver
        self.address = cast("int", self._driver.new_channel(bell.address, window))
        if not self.address:
            raise MemoryError("no room for a channel")
        self._size = ctypes.c_uint64.from_address(self.address)
        self.wake: Callable[[], None] = _nothing
        """Of who waits, or waited last."""

    @property
    def size(self) -> int:
        return self._size.value

    def add(self, data: bytes) -> None:
        if data and not self._driver.feed(self.address, bytes_address(data), len(data)):
            raise MemoryError("no room for bytes in a channel")

    def take(self, most: int) -> bytes:
        size = min(most, self._size.value)
        if not size:
            return b""
        data = new_bytes(size)
        taken = self._driver.take_bytes(self.address, bytes_address(data), size)
        return data if taken == size else data[:taken]

    def clear(self) -> None:
        self._driver.take_bytes(self.address, None, 1 << 62)

    def await_data(self, wake: Callable[[], None]) -> bool:
        return self._watch(_FOR_DATA, wake)

    def await_room(self, wake: Callable[[], None]) -> bool:
        return self._watch(_FOR_ROOM, wake)

    def _watch(self, for_what: int, wake: Callable[[], None]) -> bool:
        if self._driver.watch(self.address, for_what):
            return True
        if self.wake is _nothing:
            self._bell.waiting[self.address] = self
        self.wake = wake  # maybe called for nothing, too
        return False

    def close(self) -> None:
        self._driver.close_channel(self.address)

    def __del__(self) -> None:
        address, self.address = self.address, 0
        if address:
            self._driver.free_channel(address)


def _nothing() -> None:
    return None
