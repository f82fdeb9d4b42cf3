"""Addresses in the interface's shapes, in Python's, and in those of the host's sockets."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from node.capabilities.addresses import Address
from node.capabilities.wasi.sockets.socket_errors import SocketError

FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}

BROADCAST = IPv4Address("255.255.255.255")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a port."""

    address: Address
    port: int
    flow_info: int = 0
    scope_id: int = 0

    @property
    def family(self) -> str:
        return f"ipv{self.address.version}"

    def for_host(self) -> tuple[Any, ...]:
        """As the host's sockets take it; never a name, which they would look up."""
        if self.family == "ipv4":
            return str(self.address), self.port
        return str(self.address), self.port, self.flow_info, self.scope_id

    def for_guest(self) -> dict[str, Any]:
        """The variant `ip-socket-address`."""
        address = _parts(self.address)
        if self.family == "ipv4":
            return {"ipv4": {"port": self.port, "address": address}}
        return {
            "ipv6": {
                "port": self.port,
                "flow-info": self.flow_info,
                "address": address,
                "scope-id": self.scope_id,
            }
        }

    def check_family(self, family: str) -> None:
        """Raises `SocketError` for another family, and for IPv4 within IPv6."""
        if self.family != family or (
            isinstance(self.address, IPv6Address) and self.address.ipv4_mapped is not None
        ):
            raise SocketError("invalid-argument")

    def check_unicast(self) -> None:
        """Raises `SocketError` for an address that means many."""
        if self.address.is_multicast or self.address == BROADCAST:
            raise SocketError("invalid-argument")

    def check_remote(self) -> None:
        """Raises `SocketError` for what nobody can be reached at."""
        if self.address.is_unspecified or not self.port:
            raise SocketError("invalid-argument")


def from_guest(value: dict[str, Any]) -> Endpoint:
    """Read an `ip-socket-address`."""
    if found := value.get("ipv4"):
        return Endpoint(IPv4Address(bytes(found["address"])), found["port"])
    found = value["ipv6"]
    packed = b"".join(part.to_bytes(2, "big") for part in found["address"])
    return Endpoint(IPv6Address(packed), found["port"], found["flow-info"], found["scope-id"])


def from_host(value: tuple[Any, ...]) -> Endpoint:
    """Read what a socket of the host says."""
    return Endpoint(ip_address(value[0].partition("%")[0]), *value[1:])


def address_for_guest(address: Address) -> dict[str, Any]:
    """The variant `ip-address`."""
    return {f"ipv{address.version}": _parts(address)}


def _parts(address: Address) -> tuple[int, ...]:
    packed = address.packed
    if isinstance(address, IPv4Address):
        return tuple(packed)
    return tuple(int.from_bytes(packed[index : index + 2], "big") for index in range(0, 16, 2))
