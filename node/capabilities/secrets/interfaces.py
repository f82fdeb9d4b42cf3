"""`wasmcloud:secrets` 0.1.0-draft: `store.get` hands out a handle, `reveal.reveal` its value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from lattice.errors import LatticeError, NotFound
from lattice.model import ComponentSpec
from lattice.sealing import Secret
from lattice.secrets import Secrets
from node.engine.host import GuestCall, HostInterface

log = structlog.get_logger()

SpecOf = Callable[[str], ComponentSpec | None]
"""What is wanted of a component now."""

STORE, REVEAL = "wasmcloud:secrets/store@0.1.0-draft", "wasmcloud:secrets/reveal@0.1.0-draft"
TOLD_KEYS = 20
"""Of one component, that the log tells of: one for each key, not for each question."""
NOT_FOUND = {"err": {"not-found": None}}

SUPPORT: Mapping[str, str] = {
    "wasmcloud:secrets/store": "complete: 0.1.0-draft",
    "wasmcloud:secrets/reveal": "complete: 0.1.0-draft",
}


def is_builtin(interface: str) -> bool:
    """Whether an import of this full name is served without a link."""
    return interface in (STORE, REVEAL)


def secrets_interfaces(secrets: Secrets, spec_of: SpecOf) -> tuple[HostInterface, ...]:
    """Both interfaces; what a component was not granted does not exist for it."""

    told: set[str] = set()

    def tell_once(event: str, call: GuestCall, key: str, **details: str) -> None:
        # A guest can ask in a loop, with keys of its own making.
        if key not in told and len(told) < TOLD_KEYS:
            told.add(key)
            log.warning(event, component=call.component, key=key[:80], **details)

    def get(call: GuestCall, key: str) -> Any:
        spec = spec_of(call.component)
        name = spec.secrets.get(key) if spec else None
        if name is None:
            tell_once("secret.not-granted", call, key)
            return NOT_FOUND
        try:
            return {"ok": secrets.reveal(name)}
        except NotFound as error:
            tell_once("secret.missing", call, key, reason=error.message)
            return NOT_FOUND
        except LatticeError as error:
            return {"err": {"upstream": error.message}}

    return (
        HostInterface(name=STORE, functions={"get": get}, resources={"secret": lambda call, secret: None}),
        HostInterface(name=REVEAL, functions={"reveal": _reveal}),
    )


def _reveal(call: GuestCall, secret: Secret) -> Any:
    value = secret.reveal()
    return {"string": value} if isinstance(value, str) else {"bytes": value}
