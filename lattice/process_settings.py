"""What every process that joins a lattice is told alike, whether it is a node or offers a provider."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lattice import logs
from lattice.names import check_label, check_name
from lattice.settings import key_value, one_of, path, setting, text


def parse_name(raw: str, source: str) -> str:
    """A parser of a setting that is a name."""
    return check_name(raw, source)


def parse_label(raw: str, source: str) -> tuple[str, str]:
    """A parser of a setting that is a label."""
    return check_label(*key_value(raw, source))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """The settings that mean the same for all processes of a machine, and so may be in their environment."""

    lattice: str = setting("default", "Name of the lattice to join.", parse_name, metavar="NAME")
    nats: str | None = setting(
        None,
        "NATS server, or several with commas. Without one, nodes of this machine share an embedded server.",
        text,
        metavar="URL",
    )
    creds: Path | None = setting(None, "NATS credentials file.", path, metavar="FILE")
    system_creds: Path | None = setting(
        None,
        "NATS credentials file of the system account: the lattice then learns of a node's death at once.",
        path,
        metavar="FILE",
    )
    tls_ca: Path | None = setting(None, "Certificate authority of the NATS server.", path, metavar="FILE")
    tls_cert: Path | None = setting(None, "Client certificate for the NATS server.", path, metavar="FILE")
    tls_key: Path | None = setting(None, "Key of the client certificate.", path, metavar="FILE")
    log_level: str = setting("info", "Least level to log.", one_of(*logs.LEVELS), metavar="LEVEL")
    log_format: str = setting(
        "auto", "pretty, json, or auto: pretty on a terminal.", one_of(*logs.FORMATS), metavar="FORMAT"
    )
