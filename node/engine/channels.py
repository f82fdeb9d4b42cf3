"""Byte streams between the event loop and a guest, which the driver moves without Python (driver/channels.c).

A guest asks for parts, and gives them, by a host function that is `channelled`. The driver answers there and
then, on whatever thread the guest runs; so Python hears of a part only when it waits for one. A guest that
has left the event loop can do without that, too: its channels borrow the client's socket (driver/loan.c).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import cast
from weakref import WeakValueDictionary

from lattice.pouring import Lender
from node.engine.capi import bytes_address, new_bytes
from node.engine.driver import ChannelHead, Driver

_FOR_DATA, _FOR_ROOM = 1, 2

MUCH_BYTES = 2 * 1024 * 1024
"""Of a body of which so much is left it is worth while to go to a worker at once."""
PRESSING_BYTES = 16 * 1024
"""So much waits at once of what comes quickly."""


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

    # The mutable state, besides what waits: who waits for it, and the socket that it has.

    __slots__ = (
        "__weakref__",
        "_bell",
        "_descriptor",
        "_driver",
        "_head",
        "_is_away",
        "_is_input",
        "_lender",
        "_moved",
        "address",
        "wake",
    )

    def __init__(self, bell: Doorbell, window: int, *, is_input: bool = False) -> None:
        """There is room for the guest while fewer than `window` bytes wait; for others, below half of it.

        `is_input`: the guest reads.
        """
        self._bell = bell
        self._driver = bell.driver
        self.address = cast("int", self._driver.new_channel(bell.address, window))
        if not self.address:
            raise MemoryError("no room for a channel")
        self._head = ChannelHead.from_address(self.address)
        self._lender: Lender | None = None
        self._descriptor: int | None = None
        self._is_away = False
        self._is_input = is_input
        self._moved = 0
        self.wake: Callable[[], None] = _nothing
        """Of who waits, or waited last."""

    @property
    def size(self) -> int:
        return cast("int", self._head.size)

    def add(self, data: bytes) -> None:
        if data and not self._driver.feed(self.address, bytes_address(data), len(data)):
            raise MemoryError("no room for bytes in a channel")

    def take(self, most: int) -> bytes:
        size = min(most, self._head.size)
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

    # Sockets

    def borrow_from(self, lender: Lender | None) -> None:
        self.give_back()
        self._lender = lender

    @property
    def is_pressing(self) -> bool:
        """Whether much is to be read, and comes quickly, so that the guest had better leave the loop."""
        lender = self._lender
        return lender is not None and self._head.size >= PRESSING_BYTES and lender.left >= MUCH_BYTES

    def go_away(self) -> None:
        """The guest is about to leave the event loop: it uses the socket itself, as soon as that is lent."""
        self._is_away = True
        self.borrow()

    def come_back(self) -> None:
        """The guest has stopped, and goes on on the event loop."""
        self._is_away = False
        self.give_back()

    def end_slice(self) -> None:
        """The guest has run for a while. What it does not read it gives back: a client may leave."""
        moved, self._moved = self._moved, self._head.moved
        if self._is_input and moved == self._moved:
            self.give_back()

    def borrow(self) -> None:
        lender = self._lender
        if lender is None or not self._is_away or self._descriptor is not None:
            return
        loan = lender.lend(self.give_back)
        if loan is None:
            return
        try:
            # A number of its own: its owner may close the other one while the guest waits for it.
            self._descriptor = os.dup(loan.descriptor)
        except OSError:  # there are too many: the loop goes on
            lender.give_back(0, b"")
            return
        self._moved = 0
        self._driver.lend(self.address, self._descriptor, loan.length, loan.is_chunked)

    def give_back(self) -> None:
        """Give the socket back, if there is one, with what the guest has read or written of it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        head = self._head
        self._driver.recall(self.address)
        os.close(descriptor)
        rest = bytes(head.lines[: head.lines_size])
        if head.chunk_left:
            rest += self._take_all(head.chunk_left) + b"\r\n"
        assert self._lender is not None
        self._lender.give_back(head.moved, rest)

    def _take_all(self, size: int) -> bytes:
        parts = []
        while size and (part := self.take(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def __del__(self) -> None:
        address, self.address = self.address, 0
        if address:
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._driver.free_channel(address)


def _nothing() -> None:
    return None
