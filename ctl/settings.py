"""How a client finds its lattice: from arguments, or the variables that `lattice-node` reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lattice.names import check_name
from lattice.quantities import parse_duration

DEFAULT_LATTICE = "default"
DEFAULT_TIMEOUT_SECONDS = 10.0

ENVIRONMENT: Mapping[str, str] = {
    "nats": "LATTICE_NATS",
    "creds": "LATTICE_CREDS",
    "tls_ca": "LATTICE_TLS_CA",
    "tls_cert": "LATTICE_TLS_CERT",
    "tls_key": "LATTICE_TLS_KEY",
    "lattice": "LATTICE_LATTICE",
    "timeout": "LATTICE_TIMEOUT",
    "output": "LATTICE_OUTPUT",
}
"""Options of the command line and the variables that stand in for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Where the lattice is and how patient the client is.

    Without `nats` the client looks for the embedded server that the nodes of this machine share.
    """

    lattice: str = DEFAULT_LATTICE
    nats: str | None = None
    creds: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS

    def __post_init__(self) -> None:
        check_name(self.lattice, "lattice")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> ClientSettings:
        """The settings that `LATTICE_*` variables give; raises `Invalid` that names a wrong one."""
        found = os.environ if environ is None else environ
        paths = {
            name: _path(found.get(ENVIRONMENT[name])) for name in ("creds", "tls_ca", "tls_cert", "tls_key")
        }
        timeout = found.get("LATTICE_TIMEOUT") or str(DEFAULT_TIMEOUT_SECONDS)
        return cls(
            lattice=found.get("LATTICE_LATTICE") or DEFAULT_LATTICE,
            nats=found.get("LATTICE_NATS") or None,
            timeout_seconds=parse_duration(timeout, "LATTICE_TIMEOUT"),
            **paths,
        )


def _path(text: str | None) -> Path | None:
    return Path(text).expanduser() if text else None
