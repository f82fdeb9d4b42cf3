"""Which IP addresses are special: not part of the public internet, or of this very machine."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_LOCAL, _METADATA = "link-local", "metadata"
_RANGES: tuple[tuple[str, str], ...] = (
    ("100.100.100.200/32", _METADATA),
    ("168.63.129.16/32", _METADATA),
    ("192.0.0.192/32", _METADATA),
    ("fd00:ec2::/32", _METADATA),
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared (CGNAT)"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", _LOCAL),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "reserved"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("64:ff9b:1::/48", "private"),
    ("100::/64", "discard"),
    ("2001::/23", "reserved"),
    ("2001:db8::/32", "documentation"),
    ("3fff::/20", "documentation"),
    ("5f00::/16", "reserved"),
    ("fc00::/7", "private"),
    ("fe80::/10", _LOCAL),
    ("fec0::/10", "private"),
    ("ff00::/8", "multicast"),
)
"""The narrower before the wider; clouds serve their metadata at addresses of several kinds."""

_SPECIAL: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(text), kind) for text, kind in _RANGES
)

_CARRIERS: tuple[tuple[IPv6Network, int], ...] = (
    (IPv6Network("::ffff:0:0/96"), 0),
    (IPv6Network("64:ff9b::/96"), 0),
    (IPv6Network("::/96"), 0),
    (IPv6Network("2002::/16"), 80),
)
"""IPv6 networks that lead to an IPv4 address within them, and how far from the right its bits are."""

NEVER_BY_NAME = frozenset({_LOCAL, _METADATA, "multicast", "unspecified", "reserved"})
"""Ranges that no name leads to, whoever granted it: among them the metadata services of clouds."""

INNER = frozenset({"private", "shared (CGNAT)"})
"""Ranges of networks behind the public one, which names of their hosts lead to."""

LOOPBACK = "loopback"


def parse_address(text: str) -> Address | None:
    """The address that the text is, without brackets; None if it is a name."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if getattr(address, "scope_id", None) else address


def effective(address: Address) -> Address:
    """Where packets to the address end: of an IPv6 address that carries an IPv4 one, that one."""
    if isinstance(address, IPv6Address) and int(address) > 1:
        for network, shift in _CARRIERS:
            if address in network:
                return IPv4Address(int(address) >> shift & 0xFFFFFFFF)
    return address


def special_range(address: Address) -> tuple[Network, str] | None:
    """The special range that the address is in, and its kind; None for one of the public internet."""
    target = effective(address)
    for network, kind in _SPECIAL:
        if target.version == network.version and target in network:
            return network, kind
    return None


def is_within(inner: Network, outer: Network) -> bool:
    """Whether all of one network is part of another."""
    return (
        inner.version == outer.version
        and outer.prefixlen <= inner.prefixlen
        and inner.network_address in outer
    )
