"""What is asked for when a component is deployed, as a value that becomes the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

_GRANTS = ("triggers", "configuration", "configuration_from", "secrets", "allow_hosts", "folders", "network")
_LIMITS = (
    "memory_bytes",
    "budget_seconds",
    "max_concurrency",
    "queue_length",
    "payload_bytes",
    "reuse",
    "prewarm",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A component to run. Limits that are None are the lattice's defaults."""

    name: str
    digest: str
    replicas: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that a node must have."""
    spread: str | None = None
    """A node label, such as `zone`, over whose values replicas are spread; over nodes when None."""
    idempotent: bool = False
    """Whether its functions do no harm when called twice."""
    environment: Mapping[str, str] = field(default_factory=dict)
    links: tuple[tuple[str, str] | tuple[str, str, Mapping[str, str]] | Mapping[str, Any], ...] = ()
    """Interface, or whole package, and target of each import that a component or provider answers; with what
    a provider is told. Or a map of these, which may have `name`, `secrets` and so on, too."""
    triggers: tuple[Mapping[str, Any], ...] = ()
    """What makes calls of it: each with `kind`, `configuration` and maybe `name`."""
    configuration: Mapping[str, str] = field(default_factory=dict)
    """What `wasi:config` answers."""
    configuration_from: tuple[str, ...] = ()
    """Names of configurations of the lattice; later ones win."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Names of secrets, by the key under which the component asks for each."""
    allow_hosts: tuple[str, ...] = ()
    """Where its outgoing HTTP requests may go."""
    folders: tuple[Mapping[str, Any], ...] = ()
    """Folders of nodes that it sees: each with `folder`, `path` and maybe `writable`."""
    network: tuple[str, ...] = ()
    """What its sockets may do."""
    spares: int | None = None
    """Nodes without a replica that compile it ahead, to take over at once."""
    memory_bytes: int | None = None
    budget_seconds: float | None = None
    max_concurrency: int | None = None
    queue_length: int | None = None
    payload_bytes: int | None = None
    reuse: int | None = None
    """Calls that one sandbox instance serves; 1 is a fresh instance for each."""
    prewarm: int | None = None
    """Instances made ahead on each node, while it is busy with the component."""
    expected_generation: int | None = None
    """Refuse with `conflict` if the component has another generation by now."""

    def fields(self) -> dict[str, Any]:
        """The fields of the request."""
        limits = {name: getattr(self, name) for name in _LIMITS if getattr(self, name) is not None}
        skipped = {*_LIMITS, "links"}
        plain = {part.name: getattr(self, part.name) for part in fields(self) if part.name not in skipped}
        links = [dict(link) if isinstance(link, Mapping) else _link(*link) for link in self.links]
        granted = {name: plain.pop(name) for name in _GRANTS}
        return {
            **plain,
            "limits": limits,
            "links": links,
            **{name: grants for name, grants in granted.items() if grants},
        }


def _link(interface: str, target: str, configuration: Mapping[str, str] | None = None) -> dict[str, Any]:
    plain = {"interface": interface, "target": target}
    return {**plain, "configuration": dict(configuration)} if configuration else plain
