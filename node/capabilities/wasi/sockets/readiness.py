"""Waiting for a socket on the event loop: any number for each direction, where the loop allows one."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable

from node.capabilities.wasi.pollables import Disarm


class Readiness:
    """The two directions of one socket; nobody may be waiting when the socket is closed."""

    __slots__ = ("_poll", "_readers", "_socket", "_writers")

    def __init__(self, socket_: socket.socket) -> None:
        self._socket = socket_
        self._poll = select.poll()
        self._poll.register(socket_, 0)
        self._readers: list[Callable[[], None]] = []
        self._writers: list[Callable[[], None]] = []

    def can_read(self) -> bool:
        """Whether bytes, a connection, the end or an error is there."""
        return self._is_at(select.POLLIN)

    def can_write(self) -> bool:
        """Whether it takes bytes, is connected, or has failed."""
        return self._is_at(select.POLLOUT)

    def arm_read(self, wake: Callable[[], None]) -> Disarm:
        if not self._readers:
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._notify, self._readers)
        self._readers.append(wake)
        return lambda: self._disarm_read(wake)

    def arm_write(self, wake: Callable[[], None]) -> Disarm:
        if not self._writers:
            asyncio.get_running_loop().add_writer(self._socket.fileno(), self._notify, self._writers)
        self._writers.append(wake)
        return lambda: self._disarm_write(wake)

    def _is_at(self, event: int) -> bool:
        self._poll.modify(self._socket, event)
        return bool(self._poll.poll(0))

    def _notify(self, waiters: list[Callable[[], None]]) -> None:
        for wake in tuple(waiters):
            wake()

    def _disarm_read(self, wake: Callable[[], None]) -> None:
        self._readers.remove(wake)
        if not self._readers:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())

    def _disarm_write(self, wake: Callable[[], None]) -> None:
        self._writers.remove(wake)
        if not self._writers:
            asyncio.get_running_loop().remove_writer(self._socket.fileno())
