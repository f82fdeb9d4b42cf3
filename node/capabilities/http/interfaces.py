"""`wasi:http` as host functions, for the components that need them, and how far it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from node.capabilities.http.client import HttpClient
from node.capabilities.http.outgoing import PolicyOf, outgoing_interface
from node.capabilities.http.policy import DENY_ALL
from node.capabilities.http.types_interface import types_interface
from node.engine.host import HostInterface
from node.engine.linker import compatible_name

VERSION = "0.2.12"
"""The newest known; a linker serves imports of every 0.2.x with it, as nothing was ever taken away."""

SUPPORT: Mapping[str, str] = {
    "wasi:http/types": "complete; `send-informational` answers `internal-error`: no 1xx leaves "
    "(wasmtime refuses components that import it)",
    "wasi:http/outgoing-handler": "complete, over HTTP/1.1; hosts that `--allow-host` grants",
    "wasi:http/incoming-handler": "exported by components; called by triggers",
}
"""How far each interface goes, in words for a table."""


def is_builtin(interface: str) -> bool:
    """Whether an import of this full name is served without a link."""
    imported = ("wasi:http/types", "wasi:http/outgoing-handler")
    return compatible_name(interface) in {compatible_name(f"{name}@{VERSION}") for name in imported}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """What a component's requests go through."""

    client: HttpClient
    policy_of: PolicyOf = lambda call: DENY_ALL


def http_interfaces(settings: HttpSettings) -> tuple[HostInterface, ...]:
    """Both interfaces for one component; they need those of `wasi:io` beside them."""
    return (
        types_interface(VERSION),
        outgoing_interface(settings.client, settings.policy_of, VERSION),
    )
