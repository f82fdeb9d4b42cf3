"""The configuration of a messaging trigger; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lattice.bus import QueueSettings
from lattice.errors import Invalid
from lattice.model import Trigger, TriggerKind
from lattice.names import check_name, did_you_mean
from lattice.patterns import parse_pattern, parse_subject
from lattice.quantities import parse_duration

CORE_KEYS = ("subject", "queue", "concurrency")
STREAM_KEYS = ("stream", "durable", "max_deliver", "ack_wait", "backoff", "dead_letter", "start")
KEYS = (*CORE_KEYS, *STREAM_KEYS)

STARTS = ("all", "new")
MAX_CONCURRENCY = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """How messages of a JetStream stream are taken; times in seconds."""

    stream: str
    durable: str
    max_deliver: int = 5
    """After so many attempts a message is given up; 0: never."""
    ack_wait_seconds: float = 30.0
    backoff_seconds: float = 1.0
    dead_letter: str | None = None
    from_start: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSettings:
    """Which messages a component is called with, and how many at a time on each node."""

    subject: str
    queue: str
    concurrency: int = 32
    stream: StreamSettings | None = None
    """None: messages of plain NATS."""


def parse_messages(component: str, name: str, given: Mapping[str, str]) -> MessageSettings:
    """The settings of a component's trigger. Raises `Invalid` that names the key."""
    for key in given:
        if key not in KEYS:
            near = did_you_mean(key, KEYS) or f": use {', '.join(KEYS)}"
            raise Invalid(f"a messaging trigger has no key `{key}`{near}")
        if key in STREAM_KEYS and "stream" not in given:
            raise Invalid(f"`{key}` is for messages of a stream: name it with `stream=NAME`")
    if "subject" not in given:
        raise Invalid("a messaging trigger needs `subject`, for instance `subject=orders.>`")
    if "stream" in given and "queue" in given:
        raise Invalid("`queue` is for plain messages: those who share a stream name the same `durable`")
    return MessageSettings(
        subject=_pattern(given["subject"]),
        queue=check_name(given.get("queue", component), "`queue`"),
        concurrency=_number(given, "concurrency", 32, 1, MAX_CONCURRENCY),
        stream=_stream(given, default_durable(component, name)) if "stream" in given else None,
    )


def queue_of(settings: MessageSettings, stream: StreamSettings, lattice: str) -> QueueSettings:
    """The durable queue of a trigger, as every node of the lattice opens it."""
    return QueueSettings(
        stream=stream.stream,
        name=stream.durable,
        subject=settings.subject,
        ack_wait_seconds=stream.ack_wait_seconds,
        prefetch=settings.concurrency,
        from_start=stream.from_start,
        owner=lattice,
    )


def queue_named_by(trigger: Trigger) -> tuple[str, str] | None:
    """The stream and the queue that a trigger names, whatever else of its configuration is wrong."""
    given = trigger.configuration
    if trigger.kind is not TriggerKind.MESSAGING or "stream" not in given:
        return None
    return given["stream"], given.get("durable", default_durable(trigger.component, trigger.name))


def default_durable(component: str, name: str) -> str:
    """What the queue of a component's trigger is called unless it says otherwise."""
    return f"{component}-{name}"


def _stream(given: Mapping[str, str], default_durable: str) -> StreamSettings:
    start = given.get("start", STARTS[0])
    if start not in STARTS:
        raise Invalid(f"`start`: {start!r} is none of {', '.join(STARTS)}")
    dead_letter = given.get("dead_letter")
    if dead_letter is not None:
        _subject(dead_letter)
    return StreamSettings(
        stream=_token(given["stream"], "stream"),
        durable=_token(given.get("durable", default_durable), "durable"),
        max_deliver=_number(given, "max_deliver", 5, 0, 1_000_000),
        ack_wait_seconds=_seconds(given, "ack_wait", 30.0),
        backoff_seconds=_seconds(given, "backoff", 1.0),
        dead_letter=dead_letter,
        from_start=start == STARTS[0],
    )


def _pattern(text: str) -> str:
    try:
        return ".".join(parse_pattern(text))
    except Invalid as error:
        raise Invalid(f"`subject`: {error.message}") from None


def _subject(text: str) -> None:
    try:
        parse_subject(text)
    except Invalid as error:
        raise Invalid(f"`dead_letter`: {error.message}") from None


def _token(text: str, key: str) -> str:
    is_plain = text.replace("-", "").replace("_", "").isalnum() and text.isascii() and len(text) <= 200
    if not is_plain:
        raise Invalid(f"`{key}`: {text!r} is not valid: use letters, digits, '-' and '_'")
    if text.startswith(("KV_", "OBJ_")):
        raise Invalid(f"`{key}`: {text!r} is a store's; its changes are no messages")
    return text


def _number(given: Mapping[str, str], key: str, default: int, least: int, most: int) -> int:
    text = given.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or not least <= int(text) <= most:
        raise Invalid(f"`{key}`: {text!r} is not a number from {least} to {most}")
    return int(text)


def _seconds(given: Mapping[str, str], key: str, default: float) -> float:
    if key not in given:
        return default
    seconds = parse_duration(given[key], f"`{key}`")
    if seconds <= 0:
        raise Invalid(f"`{key}`: {given[key]!r} must be longer than nothing")
    return seconds
