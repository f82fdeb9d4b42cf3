"""The table of WASI 0.2 as components get it here, and what of it is more than a closed door."""

from __future__ import annotations

from collections.abc import Mapping

from node.capabilities.wasi.cli import cli_interfaces
from node.capabilities.wasi.clocks import clock_interfaces
from node.capabilities.wasi.filesystem import filesystem_interfaces
from node.capabilities.wasi.io_interfaces import io_interfaces
from node.capabilities.wasi.randomness import random_interfaces
from node.capabilities.wasi.settings import WasiSettings
from node.capabilities.wasi.sockets import socket_interfaces
from node.engine.host import HostInterface

VERSION = "0.2.12"
"""The newest known; a linker serves imports of every 0.2.x with it, as nothing was ever taken away."""

SUPPORT: Mapping[str, str] = {
    "wasi:io/error": "complete",
    "wasi:io/poll": "complete; at most 1024 pollables at once",
    "wasi:io/streams": "complete",
    "wasi:clocks/monotonic-clock": "complete; starts near zero",
    "wasi:clocks/wall-clock": "complete",
    "wasi:clocks/timezone": "always UTC",
    "wasi:random/random": "complete; at most 1 MiB per call",
    "wasi:random/insecure": "the same source as random",
    "wasi:random/insecure-seed": "complete",
    "wasi:cli/environment": "what the component's settings say; nothing of the host",
    "wasi:cli/exit": "ends the call",
    "wasi:cli/stdin": "of a job, from whoever runs it; else at its end",
    "wasi:cli/stdout": "to the component's log, by lines; of a job, to whoever runs it",
    "wasi:cli/stderr": "to the component's log, by lines; of a job, to whoever runs it",
    "wasi:cli/terminal-input": "no terminal",
    "wasi:cli/terminal-output": "no terminal",
    "wasi:cli/terminal-stdin": "no terminal",
    "wasi:cli/terminal-stdout": "no terminal",
    "wasi:cli/terminal-stderr": "no terminal",
    "wasi:filesystem/types": "complete, beneath the folders granted; only files and directories are opened",
    "wasi:filesystem/preopens": "the folders granted; else none",
    "wasi:sockets/network": "complete",
    "wasi:sockets/instance-network": "the hosts and ports granted; else a network that grants nothing",
    "wasi:sockets/tcp-create-socket": "access denied without a grant; at most 128 sockets in one sandbox",
    "wasi:sockets/tcp": "complete, for the hosts and ports granted",
    "wasi:sockets/udp-create-socket": "access denied without a grant; at most 128 sockets in one sandbox",
    "wasi:sockets/udp": "complete, for the hosts and ports granted",
    "wasi:sockets/ip-name-lookup": "the names granted; an address that a name may not mean is left out",
}
"""How far each built-in interface goes, in words for a table; they are all that is served without a link."""


def wasi_interfaces(settings: WasiSettings) -> tuple[HostInterface, ...]:
    """All built-in interfaces for one component; its instances share the clock's zero and nothing else."""
    return (
        *io_interfaces(VERSION),
        *clock_interfaces(settings, VERSION),
        *random_interfaces(settings, VERSION),
        *cli_interfaces(settings, VERSION),
        *filesystem_interfaces(settings.folders, VERSION),
        *socket_interfaces(settings.network, settings.lookup, VERSION),
    )


def is_builtin(interface: str) -> bool:
    """Whether an import of this name, such as `wasi:io/poll@0.2.3`, is served without a link."""
    name, _, version = interface.partition("@")
    return name in SUPPORT and _is_compatible(version)


def _is_compatible(version: str) -> bool:
    major, _, rest = version.partition(".")
    minor, _, patch = rest.partition(".")
    return (major, minor) == ("0", "2") and patch.isascii() and patch.isdigit()
