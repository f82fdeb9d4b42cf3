"""The resource `tcp-socket`: its states, and what leads from one to another."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from enum import Enum, auto

from node.capabilities.wasi.pollables import Always, Disarm, Watched
from node.capabilities.wasi.sockets.access import SocketAccess
from node.capabilities.wasi.sockets.addresses import FAMILIES, Endpoint, from_host
from node.capabilities.wasi.sockets.connection import Connection, ConnectionInput, ConnectionOutput
from node.capabilities.wasi.sockets.readiness import Readiness
from node.capabilities.wasi.sockets.socket_errors import SocketError, code_of

BACKLOG = 128
MAX_BACKLOG = 4096

Streams = tuple[ConnectionInput, ConnectionOutput]


class State(Enum):
    """Where a socket is on its way to a connection or to a listener."""

    UNBOUND = auto()
    BINDING = auto()
    BOUND = auto()
    LISTEN_STARTED = auto()
    LISTENING = auto()
    CONNECTING = auto()
    CONNECTED = auto()
    CLOSED = auto()


IN_BETWEEN = (State.BINDING, State.LISTEN_STARTED, State.CONNECTING)


class TcpSocket(Watched):
    """One socket; also the source that its pollables wait for."""

    def __init__(self, family: str, access: SocketAccess) -> None:
        access.admit()
        try:
            found = socket.socket(FAMILIES[family], socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:
            access.leave()
            raise
        if family == "ipv6":
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self._set(found, family, access, State.UNBOUND)

    @classmethod
    def accepted(cls, found: socket.socket, family: str, access: SocketAccess) -> TcpSocket:
        """A connection that came in and has been admitted."""
        created = cls.__new__(cls)
        created._set(found, family, access, State.CONNECTED)
        return created

    def _set(self, found: socket.socket, family: str, access: SocketAccess, state: State) -> None:
        super().__init__()
        self.socket = found
        self.family = family
        self.state = state
        self._access = access
        self._readiness = Readiness(found)
        self._connection = Connection(found, access, self._readiness)
        self._backlog = BACKLOG
        self._requested_port = 0

    def start_bind(self, local: Endpoint) -> None:
        self._expect(State.UNBOUND)
        local.check_family(self.family)
        local.check_unicast()
        self._access.check_bind("tcp", local)
        # Without it a service that is started again would wait for connections of its predecessor to fade.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(local.for_host())
        self._requested_port = local.port
        self.state = State.BINDING

    def finish_bind(self) -> None:
        self._finish(State.BINDING, State.BOUND)

    def start_connect(self, remote: Endpoint) -> None:
        self._expect(State.UNBOUND, State.BOUND)
        remote.check_family(self.family)
        remote.check_unicast()
        remote.check_remote()
        self._access.check_reach("tcp", remote)
        number = self.socket.connect_ex(remote.for_host())
        if number not in (0, errno.EINPROGRESS):
            self.state = State.CLOSED
            raise OSError(number, os.strerror(number))
        self.state = State.CONNECTING

    def finish_connect(self) -> Streams:
        if self.state is not State.CONNECTING:
            raise SocketError("not-in-progress")
        if not self._readiness.can_write():
            raise SocketError("would-block")
        if number := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.state = State.CLOSED
            raise SocketError(code_of(OSError(number, "")))
        self.state = State.CONNECTED
        return self.streams()

    def start_listen(self) -> None:
        self._expect(State.BOUND)
        local = self._local()
        asked = Endpoint(local.address, self._requested_port)
        if not (self._access.may_listen("tcp", local) or self._access.may_listen("tcp", asked)):
            raise SocketError("access-denied")
        self.socket.listen(self._backlog)
        self.state = State.LISTEN_STARTED

    def finish_listen(self) -> None:
        self._finish(State.LISTEN_STARTED, State.LISTENING)

    def accept(self) -> tuple[TcpSocket, ConnectionInput, ConnectionOutput]:
        if self.state is not State.LISTENING:
            raise SocketError("invalid-state")
        if not self._readiness.can_read():
            raise SocketError("would-block")
        self._access.admit()
        try:
            found, _ = self.socket.accept()
        except OSError:
            self._access.leave()
            raise
        found.setblocking(False)
        created = TcpSocket.accepted(found, self.family, self._access)
        return created, *created.streams()

    def streams(self) -> Streams:
        """Both streams of the connection."""
        return ConnectionInput(self._connection), ConnectionOutput(self._connection)

    def shut_down(self, which: str) -> None:
        """Takes the interface's `shutdown-type`."""
        self._expect(State.CONNECTED)
        self._connection.shut_down(receives=which != "send", sends=which != "receive")

    def local_address(self) -> Endpoint:
        if self.state is State.BINDING:
            raise SocketError("concurrency-conflict")
        if self.state in (State.UNBOUND, State.CLOSED):
            raise SocketError("invalid-state")
        return self._local()

    def remote_address(self) -> Endpoint:
        self._expect(State.CONNECTED)
        return from_host(self.socket.getpeername())

    def set_backlog(self, size: int) -> None:
        if not size:
            raise SocketError("invalid-argument")
        if self.state in (State.CONNECTED, State.CONNECTING):
            raise SocketError("invalid-state")
        self._backlog = min(size, MAX_BACKLOG)
        if self.state is State.LISTENING:
            self.socket.listen(self._backlog)

    def is_ready(self) -> bool:
        if self.state is State.CONNECTING:
            return self._readiness.can_write()
        return self.state is not State.LISTENING or self._readiness.can_read()

    def arm(self, wake: Callable[[], None]) -> Disarm:
        if self.state is State.CONNECTING:
            return self._readiness.arm_write(wake)
        if self.state is State.LISTENING:
            return self._readiness.arm_read(wake)
        return Always().arm(wake)

    def close(self) -> None:
        """The guest dropped it; a connection goes on until its streams are dropped too."""
        self._connection.release()
        self.check_unwatched("a tcp-socket")

    def _local(self) -> Endpoint:
        return from_host(self.socket.getsockname())

    def _expect(self, *states: State) -> None:
        if self.state not in states:
            raise SocketError("concurrency-conflict" if self.state in IN_BETWEEN else "invalid-state")

    def _finish(self, present: State, following: State) -> None:
        if self.state is not present:
            raise SocketError("not-in-progress")
        self.state = following
