"""The values that describe a lattice: what is asked for (applications), what runs (reports), and orders.

All are frozen and checked when made, wherever they come from. `to_dict` and `from_dict` (`lattice.fields`)
give the form in which they are stored and sent.

Versions. An application's version is `(incarnation, generation)`, written in the value itself: a revision of
the store is worth nothing after the store was lost. A new application, also one whose name was used before,
gets an incarnation above all that ever were, so that no copy of an older one can win. An order's version is
`(fence, generation)`: the fence names the leader, the generation counts its orders.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from lattice.errors import Invalid
from lattice.fields import Value, check_range, check_unique
from lattice.names import check_label, check_name

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
MAX_REPLICAS = 100_000
"""Of one component. Far above what a lattice holds; refuses slips of the keyboard."""
MAX_SPARES = 16
MAX_COMPONENTS = 1_000
"""Of one application: it is one value of the store."""
TOMBSTONE_SECONDS = 7 * 24 * 3600
"""How long a deletion is remembered, so that no copy of the deleted application brings it back."""
MAX_NUMBER = 2**63 - 1
"""Of versions, sizes and counters: what every msgpack and JSON library of a peer can carry."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_INTERFACE = re.compile(r"[a-z][a-z0-9-]*:[a-z][a-z0-9:/-]*(@[0-9A-Za-z.+-]+)?")
_ENVIRONMENT_KEY = re.compile(r"[^=\0]{1,256}")

ApplicationVersion: TypeAlias = tuple[int, int]
"""(incarnation, generation)."""
OrderVersion: TypeAlias = tuple[int, int]
"""(fence, generation)."""


def check_digest(digest: str, field_name: str = "digest") -> str:
    """Return `digest`, or raise `Invalid`."""
    if not _DIGEST.fullmatch(digest):
        raise Invalid(
            f"{field_name} {digest[:80]!r} is not a digest: use `sha256:` and 64 hexadecimal digits"
        )
    return digest


# What is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Value):
    """What a component may use, per instance unless said otherwise; the defaults suit a stranger's code."""

    memory_bytes: int = 64 * MIB
    budget_seconds: float = 30.0
    """Of a call that brings no budget of its own, and the most that a call may bring."""
    max_concurrency: int = 16
    """Calls that one replica runs at a time."""
    queue_length: int = 64
    """Calls of one replica that may wait for a slot."""
    queue_seconds: float = 5.0
    """How long one may wait before it ends with `overloaded`."""
    payload_bytes: int = 8 * MIB
    """Of a call's arguments, and of its result."""
    reuse: int = 1
    """Calls that one instance serves before it is replaced; 1 is a fresh instance per call."""
    prewarm: int = 16
    """Instances made ahead per busy component and node."""
    log_bytes_per_second: int = 64 * KIB
    """Of one component on one node; what is above is dropped and counted."""

    def __post_init__(self) -> None:
        for name, (low, high) in LIMIT_RANGES.items():
            check_range(getattr(self, name), low, high, f"limits.{name}")


LIMIT_RANGES: Mapping[str, tuple[float, float]] = {
    "memory_bytes": (64 * KIB, 4 * GIB),
    "budget_seconds": (0.001, 3600),
    "max_concurrency": (1, 10_000),
    "queue_length": (0, 100_000),
    "queue_seconds": (0, 600),
    "payload_bytes": (1 * KIB, 128 * MIB),
    "reuse": (1, 1_000_000_000),
    "prewarm": (0, 64),
    "log_bytes_per_second": (0, 64 * MIB),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderGrant(Value):
    """Gives a component a folder that the operators of nodes have opened under a name."""

    folder: str
    path: str
    """Absolute, as the guest sees it."""
    writable: bool = False

    def __post_init__(self) -> None:
        check_name(self.folder, "folder")
        if not self.path.startswith("/") or "\0" in self.path or ".." in self.path.split("/"):
            raise Invalid(f"folder path {self.path[:80]!r} is not valid: use an absolute one, without `..`")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentSpec(Value):
    """One component of an application, as asked for."""

    name: str
    digest: str
    replicas: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    """Which a node must have to run it."""
    spread: str | None = None
    """The node label (such as `zone`) over whose values replicas are balanced; over nodes when None."""
    limits: Limits = Limits()
    environment: Mapping[str, str] = field(default_factory=dict)
    idempotent: bool = False
    """Whether every call of it may be repeated after `interrupted`."""
    spares: int = 2
    """Nodes without a replica that compile it ahead, to be ready to take over."""
    configuration: Mapping[str, str] = field(default_factory=dict)
    """What `wasi:config` answers; wins over `configuration_from`."""
    configuration_from: tuple[str, ...] = ()
    """Names of configurations of the lattice; later ones win."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Names of secrets, by the key under which the guest asks for each."""
    allow_hosts: tuple[str, ...] = ()
    """Where its outgoing HTTP requests may go."""
    folders: tuple[FolderGrant, ...] = ()
    """Only nodes that offer all of them run it."""
    network: tuple[str, ...] = ()
    """What its sockets may do, such as `tcp:10.0.0.7:5432`."""

    def __post_init__(self) -> None:
        check_name(self.name, "component name")
        check_digest(self.digest)
        check_range(self.replicas, 0, MAX_REPLICAS, "replicas")
        check_range(self.spares, 0, MAX_SPARES, "spares")
        for key, value in self.labels.items():
            check_label(key, value)
        if self.spread is not None:
            check_label(self.spread, "")
        check_unique((grant.path for grant in self.folders), "folders")
        _check_environment(self.environment)
        _check_environment(self.configuration, "configuration key")
        _check_environment(self.secrets, "secret key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link(Value):
    """Grants a component the use of an interface of another component or of a provider."""

    source: str
    interface: str
    """Or a whole package, such as `wasi:keyvalue`; a link of the interface itself counts more."""
    target: str
    name: str = "default"
    idempotent: bool = False
    """Whether calls over it may be repeated after `interrupted`."""
    configuration: Mapping[str, str] = field(default_factory=dict)
    """For the provider; wins over `configuration_from`."""
    configuration_from: tuple[str, ...] = ()
    """Names of configurations of the lattice; later ones win."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Names of secrets, by the key under which the provider looks for each."""

    def __post_init__(self) -> None:
        check_name(self.source, "link source")
        check_name(self.target, "link target")
        check_name(self.name, "link name")
        if not _INTERFACE.fullmatch(self.interface):
            raise Invalid(
                f"link interface {self.interface[:80]!r} is not an interface: "
                "write it as `namespace:package/interface`"
            )
        _check_environment(self.configuration, "configuration key")
        _check_environment(self.secrets, "secret key")

    @property
    def identity(self) -> tuple[str, str, str]:
        """What at most one link may have: source, interface without its version, name."""
        return self.source, unversioned(self.interface), self.name

    def covers(self, interface: str) -> bool:
        """Whether calls of the interface may go over this link; versions are not compared."""
        return unversioned(self.interface) in (unversioned(interface), package_of(interface))


class TriggerKind(enum.StrEnum):
    """What can make calls of a component, beside links and clients."""

    HTTP = "http"
    CRON = "cron"
    MESSAGING = "messaging"
    KEYVALUE = "keyvalue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger(Value):
    """Has a component called when something happens; what, says its configuration.

    Who runs the triggers of a kind checks their configuration and reads it anew after each change.
    """

    component: str
    kind: TriggerKind
    name: str = "default"
    configuration: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.component, "trigger component")
        check_name(self.name, "trigger name")
        _check_environment(self.configuration, "configuration key")

    @property
    def identity(self) -> tuple[str, TriggerKind, str]:
        """What at most one trigger may have."""
        return self.component, self.kind, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Application(Value):
    """The unit of desired state: one value of the store. With `deleted_at` it is a tombstone."""

    name: str
    incarnation: int
    generation: int = 1
    components: tuple[ComponentSpec, ...] = ()
    links: tuple[Link, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    deleted_at: int | None = None
    """Milliseconds since 1970 by the deleter's clock; decides only when the tombstone may be forgotten."""

    def __post_init__(self) -> None:
        check_name(self.name, "application name")
        check_range(self.incarnation, 1, MAX_NUMBER, "incarnation")
        check_range(self.generation, 1, MAX_NUMBER, "generation")
        check_range(len(self.components), 0, MAX_COMPONENTS, "number of components")
        check_unique((component.name for component in self.components), "components")
        check_unique((link.identity for link in self.links), "links")
        check_unique((trigger.identity for trigger in self.triggers), "triggers")
        # A link may be made before its source is deployed: the application then bears the source's name.
        names = {component.name for component in self.components} | {self.name}
        for link in self.links:
            if link.source not in names:
                raise Invalid(f"link source {link.source!r} is not a component of application {self.name!r}")
        for trigger in self.triggers:
            if trigger.component not in names:
                raise Invalid(
                    f"trigger component {trigger.component!r} is not a component of application {self.name!r}"
                )

    @property
    def version(self) -> ApplicationVersion:
        """Grows with every change; decides between copies."""
        return self.incarnation, self.generation

    @property
    def is_deleted(self) -> bool:
        """Whether this is a tombstone."""
        return self.deleted_at is not None

    def component(self, name: str) -> ComponentSpec | None:
        """The component of that name."""
        return next((component for component in self.components if component.name == name), None)

    def links_of(self, component: str) -> tuple[Link, ...]:
        """The links whose source is the component."""
        return tuple(link for link in self.links if link.source == component)

    def triggers_of(self, component: str) -> tuple[Trigger, ...]:
        """What makes calls of the component."""
        return tuple(trigger for trigger in self.triggers if trigger.component == component)

    def supersedes(self, other: Application | None) -> bool:
        """Whether this copy wins over `other`: the higher version, then the tombstone.

        Two different values of one version exist only if the store lost a write that some node had seen; then
        any rule does that all nodes share.
        """
        if other is None or self.version != other.version:
            return other is None or self.version > other.version
        return (self.is_deleted, _canonical(self)) > (other.is_deleted, _canonical(other))

    def changed(
        self,
        *,
        components: Iterable[ComponentSpec] | None = None,
        links: Iterable[Link] | None = None,
        triggers: Iterable[Trigger] | None = None,
    ) -> Application:
        """The next generation; what is not given stays."""
        return replace(
            self,
            generation=self.generation + 1,
            components=self.components if components is None else tuple(components),
            links=self.links if links is None else tuple(links),
            triggers=self.triggers if triggers is None else tuple(triggers),
            deleted_at=None,
        )

    def tombstone(self, now_ms: int) -> Application:
        """The next generation, which says that the application is deleted."""
        return replace(
            self, generation=self.generation + 1, components=(), links=(), triggers=(), deleted_at=now_ms
        )

    def is_forgettable(self, now_ms: int) -> bool:
        """Whether this is a tombstone old enough to be removed."""
        return self.deleted_at is not None and now_ms - self.deleted_at > TOMBSTONE_SECONDS * 1000


def new_application(
    name: str,
    previous: Application | None,
    now_ms: int,
    *,
    components: Iterable[ComponentSpec],
    links: Iterable[Link] = (),
    triggers: Iterable[Trigger] = (),
) -> Application:
    """The first generation of an application; `previous` is what was last seen under its name, or None."""
    return Application(
        name=name,
        incarnation=max(previous.incarnation + 1 if previous else 1, now_ms),
        components=tuple(components),
        links=tuple(links),
        triggers=tuple(triggers),
    )


def summary_of(application: Application) -> int:
    """A number of 62 bits that stands for this version of the application."""
    parts = [application.name, *application.version, application.is_deleted]
    return int.from_bytes(hashlib.sha256(_json(parts)).digest()[:8], "big") >> 2


def revision_of(spec: ComponentSpec) -> str:
    """A short hash of all that changes how a component runs; replicas that share it are interchangeable.

    Links, triggers, configuration, secrets and allowed hosts are looked up when they are used, so that a
    change of them needs no other replicas.
    """
    parts: dict[str, Any] = {
        "digest": spec.digest,
        "limits": spec.limits.to_dict(),
        "environment": dict(spec.environment),
    }
    if spec.folders or spec.network:
        parts |= {"folders": [grant.to_dict() for grant in spec.folders], "network": list(spec.network)}
    return hashlib.sha256(_json(parts)).hexdigest()[:12]


def unversioned(interface: str) -> str:
    """`demo:greeter/greet` of `demo:greeter/greet@0.1.0`."""
    return interface.partition("@")[0]


def package_of(interface: str) -> str:
    """`demo:greeter` of `demo:greeter/greet@0.1.0`."""
    return unversioned(interface).partition("/")[0]


# What the store holds beside applications


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseValue(Value):
    """Who leads. `renewals` changes with each renewal, so that others see that the holder lives."""

    holder: str
    fence: int
    renewals: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker(Value):
    """Says that the store holds all desired state; a store without it is lost, not empty."""

    incarnation: int


def _check_environment(values: Mapping[str, str], what: str = "environment variable") -> None:
    for key, value in values.items():
        if not _ENVIRONMENT_KEY.fullmatch(key) or "\0" in value:
            raise Invalid(f"{what} {key[:80]!r} is not valid: no '=' in its name, no NUL anywhere")


def _canonical(value: Value) -> bytes:
    return _json(value.to_dict())


def _json(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
