"""Which hosts and ports a component was granted. Pure: names are resolved elsewhere.

    tcp:api.example.com:443          connections to what this name resolves to
    tcp:*.example.com:443,8443       any name below; several ports
    udp:10.1.0.0/16:5000-5100        datagrams to and from a range of addresses and of ports
    tcp:[2001:db8::7]:*              one address, any port
    tcp:*:443                        any public address, any name
    listen:tcp:8080                  accept connections; `listen:udp:5353` receive from anybody
    listen:tcp:127.0.0.1:8080        the same at one local address

Special addresses (this machine, its link, private networks, metadata services, multicast) are granted only by
a range that lies within them; private networks also by the name of a host. So neither `*` nor a name whose
owner lets it resolve to 127.0.0.1 opens the node's own services.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_network

from lattice.errors import Invalid
from node.capabilities.addresses import (
    INNER,
    LOOPBACK,
    Address,
    Network,
    effective,
    is_within,
    special_range,
)

ANY = "*"
PROTOCOLS = ("tcp", "udp")
MAX_PORT = 65535
NAME_LENGTH = 253

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_SHAPES = "write tcp:HOST:PORTS, udp:HOST:PORTS or listen:tcp:PORTS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One permission, as parsed."""

    protocol: str
    ports: tuple[tuple[int, int], ...]
    """Ranges, both ends included."""
    host: str | Network = ANY
    """A name, `*.name`, `*`, or a range of addresses."""
    listens: bool = False

    def has_port(self, port: int) -> bool:
        return any(low <= port <= high for low, high in self.ports)

    def has_name(self, name: str) -> bool:
        """Whether a canonical name is one that this speaks of."""
        if not isinstance(self.host, str):
            return False
        return self.host in (ANY, name) or (self.host.startswith("*.") and name.endswith(self.host[1:]))

    def has_address(self, address: Address) -> bool:
        """Whether an address is granted by itself, whatever name led to it."""
        host, special = self.host, special_range(address)
        if isinstance(host, str):
            return host == ANY and special is None
        return _contains(host, address) and (special is None or is_within(host, special[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPolicy:
    """All that one component was granted; without grants every door is closed."""

    grants: tuple[Grant, ...] = ()

    def allows_any(self, protocol: str) -> bool:
        """Whether there is any use for a socket of this protocol."""
        return any(grant.protocol == protocol for grant in self.grants)

    def allows(self, protocol: str, address: Address, port: int, names: Iterable[str] = ()) -> bool:
        """Whether to connect or send there; `names` are those that gave the address in this sandbox."""
        plain = effective(address)
        found = [grant for grant in self._outgoing(protocol) if grant.has_port(port)]
        if any(grant.has_address(plain) for grant in found):
            return True
        return any(
            grant.has_name(name) and _may_mean(grant, name, plain) for name in names for grant in found
        )

    def may_listen(self, protocol: str, address: Address, port: int) -> bool:
        """Whether to accept connections, or datagrams of anybody, at a local address."""
        return any(
            grant.listens and grant.protocol == protocol and grant.has_port(port) and _is_at(grant, address)
            for grant in self.grants
        )

    def may_resolve(self, name: str) -> bool:
        """Whether a canonical name may be looked up."""
        return any(not grant.listens and grant.has_name(name) for grant in self.grants)

    def may_reveal(self, name: str, address: Address) -> bool:
        """Whether a guest that looked up `name` gets to see this address: some port there is granted."""
        plain = effective(address)
        return any(
            not grant.listens
            and (grant.has_address(plain) or (grant.has_name(name) and _may_mean(grant, name, plain)))
            for grant in self.grants
        )

    def _outgoing(self, protocol: str) -> list[Grant]:
        return [grant for grant in self.grants if grant.protocol == protocol and not grant.listens]


def parse_grants(texts: Iterable[str]) -> NetworkPolicy:
    """The policy that grants each of these; raises `Invalid` for the first that can't be read."""
    return NetworkPolicy(grants=tuple(parse_grant(text) for text in texts))


def parse_grant(text: str) -> Grant:
    """Read one grant; raises `Invalid` that quotes it and says how to write it."""
    kind, _, rest = text.partition(":")
    listens = kind == "listen"
    protocol, rest = (rest.partition(":")[0], rest.partition(":")[2]) if listens else (kind, rest)
    if protocol not in PROTOCOLS:
        raise _invalid(text, f"{protocol!r} is neither tcp nor udp")
    host, colon, ports = rest.rpartition(":")
    if not colon and not listens:
        raise _invalid(text, "it has no ports")
    parsed: str | Network = ANY if listens and not colon else _host(text, host)
    if listens and isinstance(parsed, str) and parsed != ANY:
        raise _invalid(text, "to listen takes a local address, not a name")
    return Grant(protocol=protocol, ports=_ports(text, ports, listens), host=parsed, listens=listens)


def canonical_name(name: str) -> str | None:
    """The form in which names are compared and looked up; none if it can't be a host's name."""
    name = name.removesuffix(".")
    if not name or len(name) > NAME_LENGTH:
        return None
    try:
        encoded = name.lower() if name.isascii() else name.encode("idna").decode().lower()
    except UnicodeError:
        return None
    return encoded if all(_LABEL.fullmatch(label) for label in encoded.split(".")) else None


def _host(text: str, host: str) -> str | Network:
    if host == ANY:
        return ANY
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" in host and bare is host:
        raise _invalid(text, f"an IPv6 address is written in brackets: [{host}]")
    try:
        return ip_network(bare)
    except ValueError as error:
        if "/" in bare or bare is not host or re.fullmatch(r"[0-9.]+", bare):
            raise _invalid(text, str(error)) from None
    name = canonical_name(host.removeprefix("*."))
    if name is None:
        raise _invalid(text, f"{host!r} is neither a host's name nor an address")
    return f"*.{name}" if host.startswith("*.") else name


def _ports(text: str, ports: str, listens: bool) -> tuple[tuple[int, int], ...]:
    if ports == ANY:
        return ((0 if listens else 1, MAX_PORT),)
    return tuple(_port_range(text, part, 0 if listens else 1) for part in ports.split(","))


def _port_range(text: str, part: str, lowest: int) -> tuple[int, int]:
    low, dash, high = part.partition("-")
    if not re.fullmatch(r"\d{1,5}(-\d{1,5})?", part, re.ASCII):
        raise _invalid(text, f"{part!r} is not a port: write 443, 8000-8100 or *")
    first, last = int(low), int(high if dash else low)
    if not lowest <= first <= last <= MAX_PORT:
        raise _invalid(text, f"ports go from {lowest} to {MAX_PORT}, the lower one first")
    return first, last


def _invalid(text: str, problem: str) -> Invalid:
    return Invalid(f"the network grant {text!r} can't be read: {problem}; {_SHAPES}")


def _contains(network: Network, address: Address) -> bool:
    return network.version == address.version and address in network


def _may_mean(grant: Grant, name: str, address: Address) -> bool:
    """Whether a granted name may lead to an address: to special ones only as far as the name says so."""
    _, kind = special_range(address) or (None, None)
    if name == "localhost" or name.endswith(".localhost"):
        return grant.host != ANY and kind == LOOPBACK
    return kind is None or (grant.host != ANY and kind in INNER)


def _is_at(grant: Grant, address: Address) -> bool:
    return isinstance(grant.host, str) or _contains(grant.host, address)
