"""The resources `udp-socket`, `incoming-datagram-stream` and `outgoing-datagram-stream`."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any

from lattice.errors import Trapped
from node.capabilities.wasi.pollables import Always, Disarm, Watched
from node.capabilities.wasi.sockets.access import SocketAccess
from node.capabilities.wasi.sockets.addresses import FAMILIES, Endpoint, from_guest, from_host
from node.capabilities.wasi.sockets.readiness import Readiness
from node.capabilities.wasi.sockets.socket_errors import SocketError, code_of

BATCH_DATAGRAMS = 16
"""So many are received or sent at once."""

DATAGRAM_BYTES = 65_535


_NO_ADDRESS = bytes(16)
"""A socket address of the family `AF_UNSPEC`."""

_libc = ctypes.CDLL(None, use_errno=True)


class State(Enum):
    """Whether a socket has its address."""

    UNBOUND = auto()
    BINDING = auto()
    BOUND = auto()


class UdpSocket(Watched):
    """One socket and the remote that its present streams are for."""

    def __init__(self, family: str, access: SocketAccess) -> None:
        super().__init__()
        access.admit()
        try:
            self.socket = socket.socket(FAMILIES[family], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError:
            access.leave()
            raise
        if family == "ipv6":
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self.family = family
        self.access = access
        self.readiness = Readiness(self.socket)
        self.remote: Endpoint | None = None
        self._state = State.UNBOUND
        self._listens = False
        self._users = 1

    def start_bind(self, local: Endpoint) -> None:
        if self._state is not State.UNBOUND:
            raise SocketError("concurrency-conflict" if self._state is State.BINDING else "invalid-state")
        local.check_family(self.family)
        self.access.check_bind("udp", local)
        self.socket.bind(local.for_host())
        self._listens = self.access.may_listen("udp", local)
        self._state = State.BINDING

    def finish_bind(self) -> None:
        if self._state is not State.BINDING:
            raise SocketError("not-in-progress")
        self._state = State.BOUND

    def is_ready(self) -> bool:
        return True

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return Always().arm(wake)

    def close(self) -> None:
        """The guest dropped it; its streams go on."""
        self.release()
        self.check_unwatched("a udp-socket")

    def streams(self, remote: Endpoint | None) -> tuple[IncomingDatagrams, OutgoingDatagrams]:
        """Streams to and from one remote, or any; raises `Trapped` while the previous ones are held."""
        if self._state is not State.BOUND:
            raise SocketError("invalid-state")
        if self._users > 1:
            raise Trapped("the component asked for datagram streams before it dropped the previous ones")
        if remote is not None:
            remote.check_family(self.family)
            remote.check_remote()
            self.access.check_reach("udp", remote)
        self._associate(remote)
        return IncomingDatagrams(self), OutgoingDatagrams(self)

    def local_address(self) -> Endpoint:
        if self._state is not State.BOUND:
            raise SocketError("concurrency-conflict" if self._state is State.BINDING else "invalid-state")
        return from_host(self.socket.getsockname())

    def remote_address(self) -> Endpoint:
        if self.remote is None:
            raise SocketError("invalid-state")
        return self.remote

    def may_receive(self, sender: Endpoint) -> bool:
        """Whether a datagram reaches the guest: from its remote, a granted one, or any if it listens."""
        if self.remote is not None:
            return (sender.address, sender.port) == (self.remote.address, self.remote.port)
        return self._listens or self.access.may_reach("udp", sender)

    def share(self) -> UdpSocket:
        """Another user; each calls `release` once."""
        self._users += 1
        return self

    def _associate(self, remote: Endpoint | None) -> None:
        """Have the host know the remote, which also settles the local address."""
        if self.remote is not None:
            self.remote = None
            forget_remote(self.socket)
        if remote is not None:
            self.socket.connect(remote.for_host())
            self.remote = remote

    def release(self) -> None:
        self._users -= 1
        if not self._users:
            self.socket.close()
            self.access.leave()


def forget_remote(found: socket.socket) -> None:
    """End a socket's association; Python has no word for it."""
    if _libc.connect(found.fileno(), _NO_ADDRESS, len(_NO_ADDRESS)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class IncomingDatagrams(Watched):
    """What comes in; also the source that its pollables wait for."""

    def __init__(self, found: UdpSocket) -> None:
        super().__init__()
        self._socket = found.share()

    def receive(self, max_results: int) -> list[dict[str, Any]]:
        """What is there, at most a batch; none if there is nothing yet."""
        received: list[dict[str, Any]] = []
        for _ in range(min(max_results, BATCH_DATAGRAMS)):
            try:
                data, address = self._socket.socket.recvfrom(DATAGRAM_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if received:
                    break
                raise SocketError(code_of(error)) from None
            sender = from_host(address)
            if self._socket.may_receive(sender):
                received.append({"data": data, "remote-address": sender.for_guest()})
        return received

    def is_ready(self) -> bool:
        return self._socket.readiness.can_read()

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return self._socket.readiness.arm_read(wake)

    def close(self) -> None:
        self._socket.release()
        self.check_unwatched("a datagram stream")


class OutgoingDatagrams(Watched):
    """What goes out; also the source that its pollables wait for."""

    def __init__(self, found: UdpSocket) -> None:
        super().__init__()
        self._socket = found.share()
        # What `check_send` last permitted and has not been used.
        self._permit = 0

    def check_send(self) -> int:
        """How many datagrams the next sending may have; 0 means that the guest should wait."""
        self._permit = BATCH_DATAGRAMS if self.is_ready() else 0
        return self._permit

    def send(self, datagrams: Sequence[dict[str, Any]]) -> int:
        """Send as many as the host takes; raises what the first one met, or `Trapped` beyond the permit."""
        if not datagrams:
            return 0
        if len(datagrams) > self._permit:
            raise Trapped(
                f"the component sent {len(datagrams)} datagrams where {self._permit} were permitted: "
                "each sending needs a check-send before it"
            )
        self._permit = 0
        sent = 0
        for datagram in datagrams:
            try:
                self._send(datagram)
            except (SocketError, OSError) as error:
                if sent or isinstance(error, BlockingIOError):
                    break
                raise
            sent += 1
        self._permit = 0
        return sent

    def is_ready(self) -> bool:
        return self._socket.readiness.can_write()

    def arm(self, wake: Callable[[], None]) -> Disarm:
        return self._socket.readiness.arm_write(wake)

    def close(self) -> None:
        self._socket.release()
        self.check_unwatched("a datagram stream")

    def _send(self, datagram: dict[str, Any]) -> None:
        if len(datagram["data"]) > DATAGRAM_BYTES:
            raise SocketError("datagram-too-large")
        given = datagram["remote-address"]
        remote = self._receiver(from_guest(given) if given is not None else None)
        remote.check_family(self._socket.family)
        remote.check_remote()
        self._socket.access.check_reach("udp", remote)
        if self._socket.remote is None:
            self._socket.socket.sendto(datagram["data"], remote.for_host())
        else:
            self._socket.socket.send(datagram["data"])

    def _receiver(self, given: Endpoint | None) -> Endpoint:
        associated = self._socket.remote
        if associated is None:
            if given is None:
                raise SocketError("invalid-argument")
            return given
        if given is not None and (given.address, given.port) != (associated.address, associated.port):
            raise SocketError("invalid-argument")
        return associated
