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

    def get(call: GuestCall, key: str) -> Any:
        spec = spec_of(call.component)
        name = spec.secrets.get(key) if spec else None
        if name is None:
            log.info("secret.not-granted", component=call.component, key=key[:80])
            return NOT_FOUND
        try:
            return {"ok": secrets.reveal(name)}
        except NotFound as error:
            log.warning("secret.missing", component=call.component, secret=name, reason=error.message)
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
