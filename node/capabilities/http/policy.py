"""Which hosts a component may reach: nothing that is not granted, and nothing that is hidden behind a name.

A request is checked twice: its host against the grants before anything is looked up, and each address that a
name leads to before it is connected to. So neither the author of a name nor a redirect opens the inside.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network

from lattice.errors import Invalid
from node.capabilities.addresses import (
    LOOPBACK,
    NEVER_BY_NAME,
    Address,
    Network,
    effective,
    is_within,
    parse_address,
    special_range,
)

_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_\-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_\-]*[a-z0-9_])?)*")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class _Grant:
    """One entry: a name, a suffix of names (`*.x`), every name (`*`), or a network."""

    name: str = ""
    suffix: str | None = None
    network: Network | None = None
    port: int | None = None

    def fits_port(self, port: int) -> bool:
        return self.port is None or self.port == port

    def fits_name(self, name: str) -> bool:
        if self.suffix is not None:
            return name.endswith(self.suffix)
        return bool(self.name) and name == self.name

    def fits_address(self, address: Address) -> bool:
        network = self.network
        return network is not None and network.version == address.version and address in network

    def opens(self, address: Address, special: Network) -> bool:
        """Whether it means this very range, or a part of it: `0.0.0.0/0` means the public internet."""
        return self.network is not None and self.fits_address(address) and is_within(self.network, special)


@dataclass(frozen=True, slots=True)
class OutgoingPolicy:
    """What was granted to one component; made by `parse`."""

    grants: tuple[_Grant, ...] = ()

    @staticmethod
    def parse(allow_hosts: Sequence[str]) -> OutgoingPolicy:
        """From `host`, `host:port`, `*.domain`, `*`, addresses, CIDRs; raises `Invalid` naming the entry."""
        return _parse_all(tuple(allow_hosts))

    def allows_host(self, host: str, port: int) -> bool:
        """Whether a request may name this host; what a name leads to is checked again."""
        address = parse_address(host)
        if address is not None:
            return self.allows_address(host, port, address)
        return any(grant.fits_name(host) and grant.fits_port(port) for grant in self.grants)

    def allows_address(self, host: str, port: int, address: Address) -> bool:
        """Whether a request to this host, which was allowed, may go to this address."""
        grants = [grant for grant in self.grants if grant.fits_port(port)]
        special = special_range(address)
        if special is None:
            return any(grant.fits_name(host) or grant.fits_address(address) for grant in grants)
        network, kind = special
        if any(grant.opens(effective(address), network) for grant in grants):
            return True
        # The very name of an inner host opens what it leads to; a wildcard never means the inside.
        return _may_mean(host, kind) and any(grant.name == host for grant in grants if grant.name)


DENY_ALL = OutgoingPolicy()


def _may_mean(name: str, kind: str) -> bool:
    """Whether a name may lead to a special range: to this machine only where it says so, as for sockets."""
    if kind == LOOPBACK:
        return name == "localhost" or name.endswith(".localhost")
    return kind not in NEVER_BY_NAME


def split_authority(authority: str, default_port: int) -> tuple[str, int]:
    """The host, in lower case and without brackets, and the port; raises `Invalid`."""
    host, port = _split_port(authority)
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    name = name.lower()
    is_bracketed = name != host.lower()
    address = parse_address(name)
    if address is not None:
        if (address.version == 6) != is_bracketed:
            raise Invalid(f"{authority!r} is not a host: write IPv6 addresses, and only those, in brackets")
        return str(address), port or default_port
    name = name.removesuffix(".")
    if is_bracketed or not _NAME.fullmatch(name) or port == 0:
        raise Invalid(f"{authority!r} is not a host, or a host and a port")
    return name, port or default_port


def _split_port(text: str) -> tuple[str, int | None]:
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        return text, None
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise Invalid(f"{text!r} has no valid port: it must be a number up to 65535")
    return host, int(port)


@lru_cache(maxsize=1024)
def _parse_all(allow_hosts: tuple[str, ...]) -> OutgoingPolicy:
    return OutgoingPolicy(tuple(_parse(entry) for entry in allow_hosts))


def _parse(entry: str) -> _Grant:
    try:
        return _parse_network(entry) or _parse_name(entry)
    except ValueError as error:
        raise _invalid(entry, str(error)) from None
    except Invalid as error:
        raise _invalid(entry, error.message) from None


def _parse_network(entry: str) -> _Grant | None:
    """A CIDR or an address, or either with a port: IPv6 then in brackets."""
    if parse_address(entry) is not None:
        return _Grant(network=ip_network(entry))
    text, port = entry, None
    if "/" in entry:
        if entry.startswith("[") or entry.count(":") == 1:
            text, port = _split_port(entry)
        return _Grant(network=ip_network(text.replace("[", "").replace("]", "")), port=port)
    text, port = _split_port(entry)
    text = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if parse_address(text) is None:
        return None
    return _Grant(network=ip_network(text), port=port)


def _parse_name(entry: str) -> _Grant:
    host, port = _split_port(entry.lower())
    if host == "*":
        return _Grant(suffix="", port=port)
    name = host.removeprefix("*.").removesuffix(".")
    if not _NAME.fullmatch(name):
        raise Invalid("that is no name of a host")
    if host.startswith("*."):
        return _Grant(suffix=f".{name}", port=port)
    return _Grant(name=name, port=port)


def _invalid(entry: str, problem: str) -> Invalid:
    return Invalid(
        f"{entry!r} in allow-hosts: {problem}; write `api.example.com`, `api.example.com:8443`, "
        "`*.example.com`, `*`, `10.1.2.3` or `10.0.0.0/8`"
    )
