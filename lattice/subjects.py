"""Every subject and bucket of a lattice: built and parsed here and nowhere else.

All subjects begin with `lattice.1.{lattice}`; the `1` is the version of the wire protocol. Whatever is put
into a subject is checked first, so no name can add a token or a wildcard; whatever is parsed is checked by
the same rules, so `parse` accepts exactly what the builders make. In interface and function tokens `.` is
written `_`: names and versions of WIT contain no `_`, so the way back is exact.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from lattice.errors import Invalid
from lattice.names import MAX_NAME_LENGTH, check_name

WIRE_VERSION = "1"
PREFIX = f"lattice.{WIRE_VERSION}"

MAX_SUBJECT_LENGTH = 1024
"""Far above what the limits of the tokens allow, far below the 4096 of a NATS control line."""

MAX_INTERFACE_LENGTH = 200
MAX_FUNCTION_LENGTH = 128
MAX_NODE_LENGTH = 64
"""A node id is a public nkey of 56 characters; clients choose an id of their own for streams."""

CACHED_SUBJECTS = 4096
"""Distinct call subjects remembered per process in each direction; bounded, as clients choose them."""

_WORD = r"[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)*"
_VERSION = r"[0-9]+(?:\.[0-9]+){0,2}(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?"
_INTERFACE = re.compile(rf"-|{_WORD}|{_WORD}(?::{_WORD})+(?:/{_WORD})+(?:@{_VERSION})?")
_FUNCTION = re.compile(_WORD)
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_STREAM = re.compile(r"[A-Za-z0-9]{16,64}")
_DOTTED = re.compile(r"[a-z][a-z-]*(?:\.[a-z][a-z-]*)?")
_EVENT = re.compile(r"[a-z][a-z-]*\.[a-z][a-z-]*")

Announcements: TypeAlias = Literal["heartbeat", "delta"]
Requests: TypeAlias = Literal["order", "inventory", "ping"]
StreamParts: TypeAlias = Literal["data", "credit"]

_ANNOUNCEMENTS: dict[str, Announcements] = {"heartbeat": "heartbeat", "delta": "delta"}
_REQUESTS: dict[str, Requests] = {"order": "order", "inventory": "inventory", "ping": "ping"}
_STREAM_PARTS: dict[str, StreamParts] = {"data": "data", "credit": "credit"}


# What a subject says


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call to a component, at whichever node takes it or at `node`."""

    lattice: str
    component: str
    interface: str
    function: str
    node: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A control operation, for the lattice or for one node."""

    lattice: str
    operation: str
    node: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a node tells everybody about itself."""

    lattice: str
    kind: Announcements
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of one node by the controller or a neighbour."""

    lattice: str
    kind: Requests
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened; `event` is `noun.verb`."""

    lattice: str
    event: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Lines of a component's log, from all nodes."""

    lattice: str
    component: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One direction of a byte stream: the subject on which `owner` listens."""

    lattice: str
    owner: str
    stream: str
    part: StreamParts


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Says that nobody waits for a call any more: to the node that runs it, or to all."""

    lattice: str
    node: str | None = None


Subject: TypeAlias = Call | Cancel | Control | Announcement | Request | Event | Log | Stream


# Calls


@lru_cache(CACHED_SUBJECTS)
def call(lattice: str, component: str, interface: str, function: str) -> str:
    """`lattice.1.{lattice}.call.{component}.{interface}.{function}`: any node answers or passes it on."""
    return f"{_lattice(lattice)}.call.{_callee(component, interface, function)}"


@lru_cache(CACHED_SUBJECTS)
def node_call(lattice: str, node: str, component: str, interface: str, function: str) -> str:
    """`lattice.1.{lattice}.node.{node}.call.{component}.{interface}.{function}`: that node answers."""
    return f"{_node(lattice, node)}.call.{_callee(component, interface, function)}"


def calls(lattice: str) -> str:
    """`lattice.1.{lattice}.call.*.*.*`: all calls that name no node, for the queue group of all nodes."""
    return f"{_lattice(lattice)}.call.*.*.*"


def node_calls(lattice: str, node: str) -> str:
    """`lattice.1.{lattice}.node.{node}.call.*.*.*`: all calls to that node."""
    return f"{_node(lattice, node)}.call.*.*.*"


def node_calls_prefix(lattice: str, node: str) -> str:
    """`lattice.1.{lattice}.node.{node}.call.`: what all subjects of calls to that node begin with."""
    return f"{_node(lattice, node)}.call."


def cancel(lattice: str) -> str:
    """`lattice.1.{lattice}.call.cancel`: whichever node took the call ends it."""
    return f"{_lattice(lattice)}.call.cancel"


def node_cancel(lattice: str, node: str) -> str:
    """`lattice.1.{lattice}.node.{node}.call.cancel`: that node ends the call."""
    return f"{_node(lattice, node)}.call.cancel"


# Control and what nodes tell each other


def control(lattice: str, operation: str) -> str:
    """`lattice.1.{lattice}.control.{operation}`; an operation is one or two words, e.g. `link.put`."""
    return f"{_lattice(lattice)}.control.{check_operation(operation)}"


def controls(lattice: str) -> str:
    """`lattice.1.{lattice}.control.>`: all control operations that name no node."""
    return f"{_lattice(lattice)}.control.>"


def node_control(lattice: str, node: str, operation: str) -> str:
    """`lattice.1.{lattice}.node.{node}.control.{operation}`."""
    return f"{_node(lattice, node)}.control.{check_operation(operation)}"


def node_controls(lattice: str, node: str) -> str:
    """`lattice.1.{lattice}.node.{node}.control.>`."""
    return f"{_node(lattice, node)}.control.>"


def heartbeat(lattice: str, node: str) -> str:
    """`lattice.1.{lattice}.heartbeat.{node}`."""
    return f"{_lattice(lattice)}.heartbeat.{check_node(node)}"


def heartbeats(lattice: str) -> str:
    """`lattice.1.{lattice}.heartbeat.*`: of all nodes."""
    return f"{_lattice(lattice)}.heartbeat.*"


def delta(lattice: str, node: str) -> str:
    """`lattice.1.{lattice}.delta.{node}`: a change of that node's inventory."""
    return f"{_lattice(lattice)}.delta.{check_node(node)}"


def deltas(lattice: str) -> str:
    """`lattice.1.{lattice}.delta.*`: of all nodes."""
    return f"{_lattice(lattice)}.delta.*"


def order(lattice: str, node: str) -> str:
    """`lattice.1.{lattice}.node.{node}.order`: what the controller orders that node to run."""
    return f"{_node(lattice, node)}.order"


def inventory(lattice: str, node: str) -> str:
    """`lattice.1.{lattice}.node.{node}.inventory`: asks for pages of what that node has."""
    return f"{_node(lattice, node)}.inventory"


def ping(lattice: str, node: str) -> str:
    """`lattice.1.{lattice}.node.{node}.ping`: answered by a node that is alive."""
    return f"{_node(lattice, node)}.ping"


def event(lattice: str, name: str) -> str:
    """`lattice.1.{lattice}.event.{noun}.{verb}`; `>` as the name subscribes to all events."""
    return f"{_lattice(lattice)}.event.{name if name == '>' else check_event(name)}"


def log(lattice: str, component: str) -> str:
    """`lattice.1.{lattice}.log.{component}`; `*` as the component subscribes to all logs."""
    return f"{_lattice(lattice)}.log.{component if component == '*' else _component(component)}"


# Byte streams


def stream_data(lattice: str, owner: str, stream: str) -> str:
    """`lattice.1.{lattice}.stream.{owner}.{stream}.data`: where the receiving end listens."""
    return f"{_stream(lattice, owner, stream)}.data"


def stream_credit(lattice: str, owner: str, stream: str) -> str:
    """`lattice.1.{lattice}.stream.{owner}.{stream}.credit`: where the sending end listens."""
    return f"{_stream(lattice, owner, stream)}.credit"


def streams_of(lattice: str, owner: str) -> str:
    """`lattice.1.{lattice}.stream.{owner}.*.*`: all on which `owner` may listen."""
    return f"{_lattice(lattice)}.stream.{check_node(owner)}.*.*"


# Buckets


def state_bucket(lattice: str) -> str:
    """`LATTICE_{lattice}_state`: the desired state, one key per application."""
    return f"LATTICE_{check_name(lattice, 'lattice')}_state"


def lease_bucket(lattice: str) -> str:
    """`LATTICE_{lattice}_lease`: who leads."""
    return f"LATTICE_{check_name(lattice, 'lattice')}_lease"


def artifacts_bucket(lattice: str) -> str:
    """`LATTICE_{lattice}_artifacts`: the bytes of components, by digest."""
    return f"LATTICE_{check_name(lattice, 'lattice')}_artifacts"


def configuration_bucket(lattice: str) -> str:
    """`LATTICE_{lattice}_configuration`: named configurations, one key each."""
    return f"LATTICE_{check_name(lattice, 'lattice')}_configuration"


def secrets_bucket(lattice: str) -> str:
    """`LATTICE_{lattice}_secrets`: secrets, each sealed to the nodes that may read it."""
    return f"LATTICE_{check_name(lattice, 'lattice')}_secrets"


def ticks_bucket(lattice: str) -> str:
    """`LATTICE_{lattice}_ticks`: how far the schedule of each cron trigger is done."""
    return f"LATTICE_{check_name(lattice, 'lattice')}_ticks"


def keyvalue_bucket(lattice: str, namespace: str) -> str:
    """`LATTICE_{lattice}_keyvalue_{namespace}`: what components store; letters, digits, `-` and `_`."""
    return f"LATTICE_{check_name(lattice, 'lattice')}_keyvalue_{namespace}"


def blobs_prefix(lattice: str) -> str:
    """`BLOBS_{lattice}_`: how the object stores begin that keep what components store."""
    return f"BLOBS_{check_name(lattice, 'lattice')}_"


# Parsing


@lru_cache(CACHED_SUBJECTS)
def parse_call(subject: str) -> Call:
    """The call that the subject names; raises `Invalid` for any other subject. Remembers what it parsed."""
    parsed = parse(subject)
    if isinstance(parsed, Call):
        return parsed
    raise Invalid(f"{_shown(subject)} is no subject of a call: its shape is in docs/wire-format.md")


def parse(subject: str) -> Subject:
    """What the subject says; the inverse of the builders. Raises `Invalid` for foreign and malformed ones."""
    if len(subject) > MAX_SUBJECT_LENGTH:
        raise Invalid(f"a subject of {len(subject)} characters is too long, at most {MAX_SUBJECT_LENGTH}")
    match subject.split("."):
        case ["lattice", version, lattice, *rest] if version == WIRE_VERSION:
            parsed = _parse_rest(check_name(lattice, "lattice"), rest)
            if parsed is not None:
                return parsed
        case ["lattice", version, *_] if version.isdecimal():
            raise Invalid(f"{_shown(subject)} has wire version {version}; this process speaks {WIRE_VERSION}")
    raise Invalid(f"{_shown(subject)} is no subject of a lattice")


def _parse_rest(lattice: str, rest: list[str]) -> Subject | None:
    match rest:
        case ["call", component, interface, function]:
            return _parse_callee(lattice, None, component, interface, function)
        case ["call", "cancel"]:
            return Cancel(lattice=lattice)
        case ["node", node, *of_node]:
            return _parse_of_node(lattice, check_node(node), of_node)
        case ["control", *operation]:
            return Control(lattice=lattice, operation=check_operation(".".join(operation)))
        case [kind, node] if kind in _ANNOUNCEMENTS:
            return Announcement(lattice=lattice, kind=_ANNOUNCEMENTS[kind], node=check_node(node))
        case ["event", noun, verb]:
            return Event(lattice=lattice, event=check_event(f"{noun}.{verb}"))
        case ["log", component]:
            return Log(lattice=lattice, component=_component(component))
        case ["stream", owner, stream, part] if part in _STREAM_PARTS:
            owner, stream = check_node(owner), check_stream(stream)
            return Stream(lattice=lattice, owner=owner, stream=stream, part=_STREAM_PARTS[part])
    return None


def _parse_of_node(lattice: str, node: str, rest: list[str]) -> Subject | None:
    match rest:
        case ["call", component, interface, function]:
            return _parse_callee(lattice, node, component, interface, function)
        case ["call", "cancel"]:
            return Cancel(lattice=lattice, node=node)
        case ["control", *operation]:
            return Control(lattice=lattice, node=node, operation=check_operation(".".join(operation)))
        case [kind] if kind in _REQUESTS:
            return Request(lattice=lattice, kind=_REQUESTS[kind], node=node)
    return None


def _parse_callee(lattice: str, node: str | None, component: str, interface: str, function: str) -> Call:
    return Call(
        lattice=lattice,
        node=node,
        component=_component(component),
        interface=check_interface(interface.replace("_", ".")),
        function=check_function(function.replace("_", ".")),
    )


# The rules of the tokens


def check_interface(name: str) -> str:
    """Return the name of an interface as it stands in a component, or raise `Invalid`."""
    return _check(name, _INTERFACE, MAX_INTERFACE_LENGTH, "interface", "e.g. `demo:greeter/greet@1.0.0`")


def check_function(name: str) -> str:
    """Return the name of a function that can be called from outside, or raise `Invalid`."""
    if name.startswith("["):
        raise Invalid(f"function {name!r} belongs to a resource: such functions can't be called from outside")
    return _check(name, _FUNCTION, MAX_FUNCTION_LENGTH, "function", "a WIT name such as `say-hello`")


def check_node(node: str) -> str:
    """Return the id of a node or of a client's end of a stream, or raise `Invalid`."""
    return _check(node, _NODE, MAX_NODE_LENGTH, "node id", "letters, digits, '-' and '_'")


def check_stream(stream: str) -> str:
    """Return the id of a stream, or raise `Invalid`."""
    return _check(stream, _STREAM, 64, "stream id", "16 to 64 letters and digits, chosen at random")


def check_operation(operation: str) -> str:
    """Return the name of a control operation, or raise `Invalid`."""
    return _check(operation, _DOTTED, MAX_NAME_LENGTH, "operation", "e.g. `deploy` or `link.put`")


def check_event(name: str) -> str:
    """Return the name of an event, or raise `Invalid`."""
    return _check(name, _EVENT, MAX_NAME_LENGTH, "event", "`noun.verb`, e.g. `node.joined`")


def _check(value: str, rule: re.Pattern[str], limit: int, field: str, example: str) -> str:
    if len(value) <= limit and rule.fullmatch(value):
        return value
    raise Invalid(f"{field} {_shown(value)} is not valid: use at most {limit} characters, {example}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:100] + "…")


def _lattice(lattice: str) -> str:
    return f"{PREFIX}.{check_name(lattice, 'lattice')}"


def _node(lattice: str, node: str) -> str:
    return f"{_lattice(lattice)}.node.{check_node(node)}"


def _stream(lattice: str, owner: str, stream: str) -> str:
    return f"{_lattice(lattice)}.stream.{check_node(owner)}.{check_stream(stream)}"


def _component(component: str) -> str:
    return check_name(component, "component")


def _callee(component: str, interface: str, function: str) -> str:
    interface = check_interface(interface).replace(".", "_")
    return f"{_component(component)}.{interface}.{check_function(function)}"
