"""A TCP connection: the two streams of a guest over one socket of the host.

What the kernel does not take at once waits here, at most one write, and is sent by a callback of the loop; so
it leaves also while the guest computes, and after it has dropped everything.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from node.capabilities.wasi.pollables import Disarm, Signal
from node.capabilities.wasi.sockets.access import SocketAccess
from node.capabilities.wasi.sockets.readiness import Readiness
from node.capabilities.wasi.sockets.socket_errors import SocketStreamFailed, code_of
from node.capabilities.wasi.streams import WRITE_BYTES, InputStream, OutputStream, StreamClosed

LINGER_SECONDS = 5.0
"""How long the last bytes of a connection that the guest dropped may take to leave."""


class Connection:
    """The host's socket, what has not left yet, and how many objects of the guest use it."""

    def __init__(self, socket_: socket.socket, access: SocketAccess, readiness: Readiness) -> None:
        self.socket = socket_
        self.readiness = readiness
        self.changed = Signal()
        self._access = access
        self._users = 1
        self._unsent = memoryview(b"")
        self._stop_sending: Disarm | None = None
        self._failure: str | None = None
        self._linger: asyncio.TimerHandle | None = None
        self.receives = True
        self.sends = True

    def share(self) -> Connection:
        """Another user; each calls `release` once."""
        self._users += 1
        return self

    def release(self) -> None:
        self._users -= 1
        if self._users:
            return
        if self._unsent:
            self._linger = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._abandon)
        else:
            self._close()

    def room(self) -> int:
        """How many bytes a write may have; raises what ended the sending."""
        self._raise_failure()
        if not self.sends:
            raise StreamClosed
        return 0 if self._unsent or not self.readiness.can_write() else WRITE_BYTES

    def send(self, contents: bytes) -> None:
        """Send, and keep what does not leave at once."""
        self._raise_failure()
        if not self.sends:
            raise StreamClosed
        self._unsent = memoryview(bytes(self._unsent) + contents)
        self._send()
        self._raise_failure()

    def receive(self, limit: int) -> bytes:
        """What is there, at most so much; none if there is nothing yet."""
        if not self.receives:
            raise StreamClosed
        if not limit:
            return b""
        try:
            contents = self.socket.recv(limit)
        except BlockingIOError:
            return b""
        except OSError as error:
            self.receives = False
            raise SocketStreamFailed(code_of(error)) from None
        if not contents:
            self.receives = False
            raise StreamClosed
        return contents

    def shut_down(self, *, receives: bool, sends: bool) -> None:
        """End one direction or both; what was written is sent before."""
        if receives:
            self.receives = False
            self._shut(socket.SHUT_RD)
        if sends and self.sends:
            self.sends = False
            if not self._unsent:
                self._shut(socket.SHUT_WR)
        self.changed.notify()

    def _send(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            if self._stop_sending is None:
                self._stop_sending = self.readiness.arm_write(self._send)
            return
        except OSError as error:
            self._failure = code_of(error)
            self._unsent = memoryview(b"")
        self._sent()

    def _sent(self) -> None:
        if self._stop_sending is not None:
            self._stop_sending()
            self._stop_sending = None
        if not self.sends:
            self._shut(socket.SHUT_WR)
        if not self._users:
            self._close()
        self.changed.notify()

    def _shut(self, how: int) -> None:
        with suppress(OSError):  # the peer was faster
            self.socket.shutdown(how)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            self.sends = False
            raise SocketStreamFailed(failure)

    def _abandon(self) -> None:
        self._unsent = memoryview(b"")
        self._sent()

    def _close(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
        self.socket.close()
        self._access.leave()


class ConnectionInput(InputStream):
    """What the peer sends."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection.share()

    def is_ready(self) -> bool:
        return not self._connection.receives or self._connection.readiness.can_read()

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return self._connection.readiness.arm_read(wake)

    def _read(self, limit: int) -> bytes:
        return self._connection.receive(limit)

    def close(self) -> None:
        self._connection.release()


class ConnectionOutput(OutputStream):
    """What goes to the peer."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection.share()

    def arm(self, wake: Callable[[], None]) -> Disarm:
        disarms = (self._connection.readiness.arm_write(wake), self._connection.changed.arm(wake))

        def disarm() -> None:
            for each in disarms:
                each()

        return disarm

    def _room(self) -> int:
        return self._connection.room()

    def _flush(self) -> None:
        self._connection.room()  # all is on its way: only what ended the sending is left to be said

    def _write(self, contents: bytes) -> None:
        self._connection.send(contents)

    def close(self) -> None:
        self._connection.release()
