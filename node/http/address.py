"""Addresses to listen at, as operators write them."""

from __future__ import annotations

from typing import NamedTuple

from lattice.errors import Invalid


class Address(NamedTuple):
    """A host and a port; an empty host is every address of the machine, port 0 a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(raw: str, source: str) -> Address:
    """`ADDRESS:PORT`, `:PORT` or `PORT`; raises `Invalid` that names `source`."""
    host, separator, port = raw.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise Invalid(f"{source}: write an IPv6 address in brackets, as in [::1]:8080")
    if not port.isdigit() or int(port) > 65535 or (not separator and not port):
        raise Invalid(f"{source}: {raw!r} is not ADDRESS:PORT, such as 127.0.0.1:8080 or :8080")
    return Address(host, int(port))
