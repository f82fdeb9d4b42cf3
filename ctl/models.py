"""What the control client returns and `latticectl --output json` prints: one dataclass per kind of answer.

Their fields are the documented output: they may gain fields, never lose or rename one. The text in each
annotation is the field's line in `docs/cli.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from lattice.fields import Value

Text = str | None


# What runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Node(Value):
    """A node of the lattice."""

    id: Annotated[str, "the node's public key, its identity"]
    name: Annotated[str, "its name"]
    labels: Annotated[Mapping[str, str], "its labels"] = field(default_factory=dict)
    state: Annotated[str, "`ready`, `draining` or `silent`"] = "ready"
    is_controller: Annotated[bool, "whether it leads: places replicas and writes the desired state"] = False
    replicas: Annotated[int, "how many replicas it runs"] = 0
    capacity: Annotated[int, "how many replicas it takes at most"] = 0
    load: Annotated[float, "how busy it is, 0 to 1 and above"] = 0.0
    calls_in_flight: Annotated[int, "calls that it is answering now"] = 0
    version: Annotated[str, "version of the program"] = ""
    uptime_seconds: Annotated[float, "how long it has been running"] = 0.0
    memory_bytes: Annotated[int, "resident memory of its process"] = 0
    address: Annotated[Text, "host and process, as far as it says"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaCounts(Value):
    """How many replicas of a component there are, by state."""

    desired: Annotated[int, "how many were asked for"] = 0
    running: Annotated[int, "how many answer calls"] = 0
    starting: Annotated[int, "how many are being prepared"] = 0
    failed: Annotated[int, "how many could not be started"] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Component(Value):
    """A deployed component."""

    name: Annotated[str, "its name, under which it is called"]
    digest: Annotated[str, "`sha256:` and the digest of its file"] = ""
    size: Annotated[int, "bytes of its file"] = 0
    replicas: Annotated[ReplicaCounts, "`{desired, running, starting, failed}`"] = field(
        default_factory=ReplicaCounts
    )
    generation: Annotated[int, "counts the changes made to it"] = 0
    revision: Annotated[Text, "identifies the code and limits that its replicas run with"] = None
    exports: Annotated[tuple[str, ...], "names of the interfaces that it exports"] = ()
    imports: Annotated[tuple[str, ...], "names of the interfaces that it imports"] = ()
    state: Annotated[str, "`ready`, `progressing`, `pending` or `failed`"] = "progressing"
    reason: Annotated[Text, "why it is not ready"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica(Value):
    """One replica of a component, on one node."""

    id: Annotated[str, "its id, unique on its node"]
    component: Annotated[str, "the component's name"]
    node: Annotated[str, "the node's id"]
    node_name: Annotated[str, "the node's name"] = ""
    revision: Annotated[Text, "the revision that it runs"] = None
    state: Annotated[str, "`starting`, `running`, `draining` or `failed`"] = "running"
    calls: Annotated[int, "calls answered so far"] = 0
    errors: Annotated[int, "calls that ended with an error"] = 0
    in_flight: Annotated[int, "calls that it is answering now"] = 0
    since_seconds: Annotated[float, "how long it has been in this state"] = 0.0


# One thing in full


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement(Value):
    """The replicas of a component that are to run on one node."""

    node: Annotated[str, "the node's id"]
    node_name: Annotated[str, "the node's name"] = ""
    count: Annotated[int, "how many replicas it shall run"] = 0
    running: Annotated[int, "how many answer calls"] = 0
    state: Annotated[str, "`starting`, `running`, `draining` or `failed`"] = ""
    reason: Annotated[Text, "why it failed or waits"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending(Value):
    """Replicas that have no node."""

    count: Annotated[int, "how many"]
    reason: Annotated[str, "why no node takes them"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link(Value):
    """What grants a component's import: where calls to it go."""

    source: Annotated[str, "the component that imports"]
    interface: Annotated[str, "the interface that it imports"]
    name: Annotated[str, "the link's name, `default` unless said otherwise"] = "default"
    target: Annotated[str, "the component or provider that answers"] = ""
    idempotent: Annotated[bool, "whether interrupted calls are repeated"] = False
    route: Annotated[str, "where calls go now: `local`, `remote` or `unresolved`"] = "unresolved"
    configuration: Annotated[Mapping[str, str], "what the provider is told"] = field(default_factory=dict)
    configuration_from: Annotated[tuple[str, ...], "configurations of the lattice that it is told too"] = ()
    secrets: Annotated[Mapping[str, str], "names of secrets, by the key under which the provider asks"] = (
        field(default_factory=dict)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger(Value):
    """What makes calls of a component."""

    component: Annotated[str, "the component that is called"]
    kind: Annotated[str, "`http`, `cron`, `messaging` or `keyvalue`"]
    name: Annotated[str, "the trigger's name, `default` unless said otherwise"] = "default"
    configuration: Annotated[Mapping[str, str], "what it was told"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerChange(Trigger):
    """What a change of a trigger came to."""

    changed: Annotated[bool, "whether anything was different before"] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferPlace(Value):
    """A node, or a process of its own, that offers a provider."""

    node: Annotated[str, "its id"]
    node_name: Annotated[str, "its name"] = ""
    is_healthy: Annotated[bool, "whether calls go there"] = True
    reason: Annotated[Text, "why not"] = None
    statistics: Annotated[Mapping[str, Any], "`calls`, `errors` by code, `in_progress`, ..."] = field(
        default_factory=dict
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider(Value):
    """A provider that nodes offer."""

    name: Annotated[str, "what links have as target"]
    kind: Annotated[str, "what it is, e.g. `keyvalue-redis`"] = ""
    interfaces: Annotated[tuple[str, ...], "the interfaces that it serves"] = ()
    is_healthy: Annotated[bool, "whether it can be called anywhere"] = True
    linked: Annotated[int, "how many links lead to it"] = 0
    nodes: Annotated[tuple[OfferPlace, ...], "where it is offered"] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderDescription(Provider):
    """A provider with its functions and links."""

    exports: Annotated[tuple[Any, ...], "the interfaces whose types are known, with all functions"] = ()
    links: Annotated[tuple[Any, ...], "the links that lead to it: `source`, `interface`, `name`"] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant(Value):
    """Where calls of an import go, and what was granted."""

    interface: Annotated[str, "the interface that the component imports"]
    route: Annotated[str, "`built-in`, `local`, `remote`, `unresolved` or `denied`"]
    target: Annotated[str, "the component or provider that a link leads to"] = ""
    name: Annotated[str, "the link's name"] = ""
    granted: Annotated[str, "what it may do there; where it is denied, what would grant it"] = ""
    reason: Annotated[str, "why calls go nowhere, where the route is `unresolved`"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentDescription(Component):
    """A component with its interfaces, settings and placements."""

    incarnation: Annotated[int, "identifies this life of the name, from deploy to delete"] = 0
    type: Annotated[Mapping[str, Any], "imports and exports with all functions and types"] = field(
        default_factory=dict
    )
    limits: Annotated[Mapping[str, Any], "its limits"] = field(default_factory=dict)
    labels: Annotated[Mapping[str, str], "labels that a node must have to run it"] = field(
        default_factory=dict
    )
    links: Annotated[tuple[Link, ...], "its links"] = ()
    grants: Annotated[tuple[Grant, ...], "where calls of each import go, and what was granted"] = ()
    triggers: Annotated[tuple[Trigger, ...], "what makes calls of it"] = ()
    placements: Annotated[tuple[Placement, ...], "where its replicas are"] = ()
    pending: Annotated[tuple[Pending, ...], "replicas that have no node, and why"] = ()
    ready_to_take_over: Annotated[tuple[str, ...], "nodes that have it compiled"] = ()
    settings: Annotated[Mapping[str, Any], "its other settings"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDescription(Node):
    """A node with what it runs."""

    components: Annotated[tuple[Mapping[str, Any], ...], "what it runs, one map per component"] = ()
    compiled: Annotated[tuple[str, ...], "digests that it has compiled"] = ()
    statistics: Annotated[Mapping[str, Any], "counters of its parts"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted(Value):
    """A job that has begun."""

    job: Annotated[str, "the job's id, under which its log is found"]
    node: Annotated[str, "the id of the node that runs it"]
    node_name: Annotated[str, "the node's name"] = ""
    warnings: Annotated[tuple[str, ...], "what you may not have meant"] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(JobStarted):
    """A job that runs."""

    name: Annotated[str, "its name"] = ""
    digest: Annotated[str, "`sha256:` and the digest of its file"] = ""
    is_detached: Annotated[bool, "whether it goes on without whoever began it"] = False
    since_seconds: Annotated[float, "how long it has been running"] = 0.0
    links: Annotated[tuple[str, ...], "what it is linked to, each as `INTERFACE=TARGET`"] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStopped(Value):
    """A job that was ended."""

    job: Annotated[str, "the job's id, under which its log is found"]
    node: Annotated[str, "the id of the node that ran it"] = ""


# What an operation answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared(Value):
    """A component file that a node has compiled."""

    digest: Annotated[str, "`sha256:` and the digest of the file"]
    size: Annotated[int, "bytes of the file"] = 0
    type: Annotated[Mapping[str, Any], "imports and exports with all functions and types"] = field(
        default_factory=dict
    )
    compile_seconds: Annotated[float, "how long compiling took"] = 0.0
    cached: Annotated[bool, "whether it had been compiled before"] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Value):
    """What a change of a component came to."""

    name: Annotated[str, "the component's name"]
    generation: Annotated[int, "its generation now"] = 0
    incarnation: Annotated[int, "identifies this life of the name, from deploy to delete"] = 0
    changed: Annotated[bool, "whether anything was different before"] = True
    warnings: Annotated[tuple[str, ...], "what you may not have meant"] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkChange(Value):
    """What a change of a link came to."""

    source: Annotated[str, "the component that imports"] = ""
    interface: Annotated[str, "the interface that it imports"] = ""
    name: Annotated[str, "the link's name"] = "default"
    target: Annotated[Text, "the component or provider that answers"] = None
    changed: Annotated[bool, "whether anything was different before"] = True
    warnings: Annotated[tuple[str, ...], "what you may not have meant"] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained(Value):
    """A node that has drained and leaves."""

    node: Annotated[str, "the node's id"]
    moved: Annotated[int, "how many replicas other nodes have taken over"] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed(Value):
    """A deployment that has come to rest."""

    name: Annotated[str, "the component's name"]
    digest: Annotated[str, "`sha256:` and the digest of its file"]
    generation: Annotated[int, "its generation now"]
    changed: Annotated[bool, "whether anything was different before"]
    replicas: Annotated[ReplicaCounts, "`{desired, running, starting, failed}`"] = field(
        default_factory=ReplicaCounts
    )
    nodes: Annotated[tuple[str, ...], "names of the nodes that run it"] = ()
    warnings: Annotated[tuple[str, ...], "what you may not have meant"] = ()
    seconds: Annotated[float, "how long it took"] = 0.0


# Configurations and secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(Value):
    """A named configuration, without its values."""

    name: Annotated[str, "its name"]
    generation: Annotated[int, "counts the changes made to it"] = 0
    keys: Annotated[tuple[str, ...], "the keys that it has values for"] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigValues(Value):
    """A named configuration with its values."""

    name: Annotated[str, "its name"]
    generation: Annotated[int, "counts the changes made to it"] = 0
    values: Annotated[Mapping[str, str], "its values"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChange(Config):
    """What a change of a configuration came to."""

    changed: Annotated[bool, "whether anything was different before"] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretInfo(Value):
    """What may be known of a secret; never its value."""

    name: Annotated[str, "its name; `env:...` and `file:...` are a node's own"]
    generation: Annotated[int, "counts the values that it has had; 0 for a node's own"] = 0
    kind: Annotated[str, "`string` or `bytes`"] = "string"
    changed_at: Annotated[float, "when it got its value, in seconds since 1970; 0 for a node's own"] = 0.0
    readers: Annotated[tuple[str, ...], "ids of the nodes that may read it; all when empty"] = ()
    reader_providers: Annotated[
        tuple[str, ...], "providers whose own processes may read it beside these nodes"
    ] = ()
    nodes: Annotated[tuple[str, ...], "names of the living nodes that can read it now"] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretChange(Value):
    """What a change of a secret came to."""

    name: Annotated[str, "its name"]
    changed: Annotated[bool, "whether anything was different before"] = True


# What happens


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Value):
    """Something that happened in the lattice."""

    time: Annotated[float, "when, in seconds since 1970"]
    event: Annotated[str, "what, as `noun.verb`, e.g. `replica.running`"]
    node: Annotated[Text, "id of the node concerned, or of the one that tells"] = None
    node_name: Annotated[Text, "its name"] = None
    component: Annotated[Text, "the component concerned"] = None
    details: Annotated[Mapping[str, Any], "what else there is to say"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine(Value):
    """A line that a component wrote."""

    time: Annotated[float, "when, in seconds since 1970"]
    node: Annotated[str, "name of the node on which it ran"] = ""
    stream: Annotated[str, "`stdout`, `stderr` or the level of `wasi:logging`"] = "stdout"
    context: Annotated[str, "the context that the component gave with its message"] = ""
    text: Annotated[str, "the line"] = ""
    call_id: Annotated[Text, "the call during which it was written"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection(Value):
    """A component file, as `inspect` sees it."""

    digest: Annotated[str, "`sha256:` and the digest of the file"]
    size: Annotated[int, "bytes of the file"]
    type: Annotated[Mapping[str, Any], "imports and exports with all functions and types"] = field(
        default_factory=dict
    )
    warnings: Annotated[tuple[str, ...], "what keeps parts of it from being called"] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Version(Value):
    """The version of the program."""

    version: Annotated[str, "version of latticectl"]
    python: Annotated[str, "version of Python"]
    wire: Annotated[str, "version of the wire protocol"]
