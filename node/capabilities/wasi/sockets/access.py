"""What one sandbox has of the network: its policy, how many sockets are open, which names it looked up."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from node.capabilities.addresses import Address
from node.capabilities.wasi.network import NetworkPolicy
from node.capabilities.wasi.sockets.addresses import Endpoint
from node.capabilities.wasi.sockets.socket_errors import SocketError

MAX_SOCKETS = 128
"""So many sockets and lookups may be open in one sandbox; a connection counts as long as its streams do."""

MAX_KNOWN_ADDRESSES = 1024
"""So many looked up addresses are remembered; whoever looked up more must look the first up again."""


class SocketAccess:
    """Kept in the sandbox's state. The mutable state is the count and the addresses known."""

    def __init__(self, policy: NetworkPolicy, limit: int = MAX_SOCKETS) -> None:
        self.policy = policy
        self._limit = limit
        self._count = 0
        # Names by the addresses that they gave here: a granted name means these and no others.
        self._names: dict[Address, set[str]] = {}

    @classmethod
    def of(cls, state: MutableMapping[Any, Any], policy: NetworkPolicy) -> SocketAccess:
        if cls not in state:
            state[cls] = cls(policy)
        found: SocketAccess = state[cls]
        return found

    def __len__(self) -> int:
        return self._count

    def admit(self) -> None:
        """Count one more; raises `SocketError` at the limit. Each is taken back by `leave`."""
        if self._count >= self._limit:
            raise SocketError("new-socket-limit")
        self._count += 1

    def leave(self) -> None:
        self._count -= 1

    def learn(self, name: str, addresses: list[Address]) -> list[Address]:
        """Remember what a name gave; those of the addresses that the guest may use at all."""
        found = [address for address in addresses if self.policy.may_reveal(name, address)]
        for address in found:
            self._names.setdefault(address, set()).add(name)
        while len(self._names) > MAX_KNOWN_ADDRESSES:
            self._names.pop(next(iter(self._names)))
        return found

    def may_reach(self, protocol: str, remote: Endpoint) -> bool:
        names = self._names.get(remote.address, set())
        return self.policy.allows(protocol, remote.address, remote.port, names)

    def check_reach(self, protocol: str, remote: Endpoint) -> None:
        """Raises `SocketError` unless the guest may connect or send there."""
        if not self.may_reach(protocol, remote):
            raise SocketError("access-denied")

    def may_listen(self, protocol: str, local: Endpoint) -> bool:
        return self.policy.may_listen(protocol, local.address, local.port)

    def check_bind(self, protocol: str, local: Endpoint) -> None:
        """Raises `SocketError` for a port that was not granted; any free port is no harm by itself."""
        if local.port and not self.may_listen(protocol, local):
            raise SocketError("access-denied")
