"""When cron triggers are due, and what each calls: settings, ticks and arguments. Pure.

A tick is a moment that follows from the schedule alone, so all nodes agree on it: it is named by its nominal
time, whoever runs it and however late. Cron expressions have five fields, or six with seconds in front, in a
time zone; intervals are counted from 1970, so that `every 30s` is due at :00 and :30 on every node.
"""

from __future__ import annotations

import enum
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from lattice import values, wit
from lattice.compatibility import match_interface
from lattice.errors import Invalid, NotFound
from lattice.fields import Value, check_range
from lattice.model import unversioned
from lattice.names import did_you_mean
from lattice.quantities import parse_duration

MIN_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS = 0.1, 366 * 86400.0
MAX_MISSED = 100
"""Ticks that are made up for at once; older ones are dropped."""
LATE_SECONDS = 5.0
"""A tick that is later than this counts as missed."""
EVERY = "every "
TICK = "$tick"
"""Stands for the tick's id in `args`."""
SCHEDULER = "wasmcloud:cron/scheduler"
RUN = "wasi:cli/run"


class Delivery(enum.StrEnum):
    """Whether a tick is claimed before the call or after it."""

    AT_MOST_ONCE = "at-most-once"
    AT_LEAST_ONCE = "at-least-once"


class Overlap(enum.StrEnum):
    """What to do with a tick while the call of the one before is still running."""

    SKIP = "skip"
    ALLOW = "allow"


class Missed(enum.StrEnum):
    """What to do with ticks at which nobody led."""

    SKIP = "skip"
    LAST = "last"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Value):
    """How far a trigger's schedule is done, as the store has it."""

    fingerprint: str
    """Of the schedule that the tick belongs to."""
    tick: int
    """The last tick that needs nothing more, in milliseconds since 1970."""
    claim: str = ""
    """Tells whose write this is, for a writer that got no answer."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Moments in milliseconds since 1970."""

    text: str
    timezone: str = "UTC"

    @property
    def interval_ms(self) -> int | None:
        """Of an interval; None for a cron expression."""
        if not self.text.startswith(EVERY):
            return None
        seconds = parse_duration(self.text.removeprefix(EVERY).strip(), "schedule")
        field = f"schedule {self.text!r}: its interval in seconds"
        return round(1000 * check_range(seconds, MIN_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS, field))

    def after(self, ms: int) -> int:
        """The first tick later than `ms`."""
        interval = self.interval_ms
        if interval is not None:
            return (ms // interval + 1) * interval
        return _ms(next(self._cron(ms, is_reverse=False)))

    def between(self, after_ms: int, until_ms: int, limit: int) -> list[int]:
        """The last ticks, at most `limit`, that are later than the one moment and not than the other."""
        found: Iterable[int]
        interval = self.interval_ms
        if interval is not None:
            last = until_ms // interval * interval
            found = range(last, after_ms, -interval)
        else:
            # Backwards, a tick at the very beginning is left out: begin a second later, drop what is late.
            past = map(_ms, self._cron(until_ms + 1000, is_reverse=True))
            upto = itertools.dropwhile(lambda tick: tick > until_ms, past)
            found = itertools.takewhile(lambda tick: tick > after_ms, upto)
        return list(itertools.islice(found, limit))[::-1]

    def _cron(self, ms: int, *, is_reverse: bool) -> CronSim:
        start = datetime.fromtimestamp(ms / 1000, UTC if self.timezone == "UTC" else _zone(self.timezone))
        return CronSim(self.text, start, reverse=is_reverse)


@dataclass(frozen=True, slots=True, kw_only=True)
class CronSettings:
    """The configuration of a cron trigger, understood."""

    schedule: Schedule
    call: str = ""
    """`INTERFACE.FUNCTION`, or a function of the world; the default of the component when empty."""
    arguments: Sequence[Any] | Mapping[str, Any] | None = None
    payload: str | None = None
    delivery: Delivery = Delivery.AT_MOST_ONCE
    overlap: Overlap = Overlap.SKIP
    missed: Missed = Missed.LAST
    jitter_seconds: float = 0.0
    budget_seconds: float | None = None
    retry_seconds: float = 3600.0

    @property
    def fingerprint(self) -> str:
        """Equal for equal schedules."""
        text = f"{self.schedule.text}|{self.schedule.timezone}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


KEYS: Mapping[str, str] = {
    "schedule": "a cron expression of five fields (six with seconds in front), or `every 30s`",
    "timezone": "name of a time zone, such as Europe/Berlin; UTC by default",
    "call": "INTERFACE.FUNCTION; by default wasmcloud:cron/scheduler or wasi:cli/run, whichever is exported",
    "args": "JSON array or object of arguments; `$tick` stands for the id of the tick",
    "payload": "text for a function that takes bytes; by default JSON with the tick",
    "delivery": "at-most-once (default) or at-least-once",
    "overlap": "skip (default) or allow: a tick while the call of the one before is still running",
    "missed": "ticks at which nobody led: last (default), all (default at least once) or skip",
    "jitter": "each tick is late by up to this time",
    "budget": "time that a call may take; by default the component's own",
    "retry": "how long a tick is repeated that must be done at least once; 1h by default",
}
"""What a cron trigger may be told, for messages and tables."""


def parse_cron(configuration: Mapping[str, str]) -> CronSettings:
    """The settings; raises `Invalid` that names the key. Reads files of time zones."""
    for key in configuration:
        if key not in KEYS:
            raise Invalid(f"a cron trigger has no setting {key!r}{did_you_mean(key, KEYS)}")
    delivery = _choice(Delivery, configuration, "delivery", Delivery.AT_MOST_ONCE)
    is_thorough = delivery is Delivery.AT_LEAST_ONCE
    overlap = _choice(Overlap, configuration, "overlap", Overlap.SKIP)
    if is_thorough and overlap is Overlap.ALLOW:
        raise Invalid(
            "overlap=allow does not go with delivery=at-least-once, which does one tick after another"
        )
    return CronSettings(
        schedule=_schedule(configuration),
        call=configuration.get("call", ""),
        arguments=_arguments(configuration),
        payload=configuration.get("payload"),
        delivery=delivery,
        overlap=overlap,
        missed=_choice(Missed, configuration, "missed", Missed.ALL if is_thorough else Missed.LAST),
        jitter_seconds=_duration(configuration, "jitter", 0, 86400) or 0.0,
        budget_seconds=_duration(configuration, "budget", 0.001, 3600),
        retry_seconds=_duration(configuration, "retry", 0, 30 * 86400) or 3600.0,
    )


def _schedule(configuration: Mapping[str, str]) -> Schedule:
    text = " ".join(configuration.get("schedule", "").split())
    if not text:
        raise Invalid(f"schedule is missing from the cron trigger: give {KEYS['schedule']}")
    schedule = Schedule(text, configuration.get("timezone", "UTC"))
    _zone(schedule.timezone)
    try:
        schedule.after(0)
    except CronSimError as error:
        raise Invalid(f"schedule {text!r}: {error}; use {KEYS['schedule']}") from None
    except StopIteration:
        raise Invalid(f"schedule {text!r} is never due") from None
    return schedule


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, or not the name of a file below the zones
        raise Invalid(f"timezone {name!r} is not known: use a name such as Europe/Berlin, or UTC") from None


def _choice(kind: Any, configuration: Mapping[str, str], key: str, default: Any) -> Any:
    try:
        return kind(configuration.get(key, default))
    except ValueError:
        allowed = ", ".join(member.value for member in kind)
        raise Invalid(f"{key} is {configuration[key]!r}: use one of {allowed}") from None


def _duration(configuration: Mapping[str, str], key: str, low: float, high: float) -> float | None:
    if key not in configuration:
        return None
    return check_range(parse_duration(configuration[key], key), low, high, key)


def _arguments(configuration: Mapping[str, str]) -> Any:
    if "args" not in configuration:
        return None
    try:
        found = json.loads(configuration["args"])
    except (ValueError, RecursionError) as error:
        raise Invalid(f"args is not JSON: {error}") from None
    if not isinstance(found, list | dict):
        raise Invalid("args must be a JSON array, or an object of arguments by name")
    return found


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


# What is due


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What to do now, and when to look again."""

    ticks: tuple[int, ...] = ()
    """In order."""
    dropped: int | None = None
    """The last of those that are not to be done at all; all of them come before `ticks`."""
    next_ms: int = 0


def due(settings: CronSettings, done_ms: int, now_ms: int, identity: str) -> Due:
    """The ticks later than `done_ms` whose time has come; `identity` names the trigger."""
    candidates = settings.schedule.between(done_ms, now_ms, MAX_MISSED + 1)
    ready = list(
        itertools.takewhile(lambda tick: tick + delay_ms(settings, tick, identity) <= now_ms, candidates)
    )
    chosen = _chosen(settings, ready, now_ms, identity)
    dropped = next((tick for tick in reversed(ready) if not chosen or tick < chosen[0]), None)
    following = candidates[len(ready)] if len(ready) < len(candidates) else settings.schedule.after(now_ms)
    return Due(
        ticks=tuple(chosen),
        dropped=dropped,
        next_ms=following + delay_ms(settings, following, identity),
    )


def _chosen(settings: CronSettings, ready: list[int], now_ms: int, identity: str) -> list[int]:
    if settings.missed is Missed.ALL:
        return ready[-MAX_MISSED:]
    newest = ready[-1:]
    if settings.missed is Missed.SKIP:
        late = LATE_SECONDS * 1000
        return [tick for tick in newest if now_ms - tick - delay_ms(settings, tick, identity) <= late]
    return newest


def delay_ms(settings: CronSettings, tick: int, identity: str) -> int:
    """The jitter of one tick: the same on every node."""
    if not settings.jitter_seconds:
        return 0
    share = int.from_bytes(_digest(f"{identity}|{tick}|jitter")[:4], "big") / 2**32
    return int(share * settings.jitter_seconds * 1000)


# What a tick is called, and what it calls


def tick_id(identity: str, tick: int) -> str:
    """`COMPONENT/NAME/2026-11-20T19:30:00Z`; with milliseconds only if there are some."""
    moment = datetime.fromtimestamp(tick / 1000, UTC)
    precision = "milliseconds" if tick % 1000 else "seconds"
    return f"{identity}/{moment.isoformat(timespec=precision).replace('+00:00', 'Z')}"


def call_id(tick: str) -> str:
    """The id of all calls of a tick; 16 hexadecimal digits."""
    return _digest(tick).hex()[:16]


def traceparent(tick: str) -> str:
    """The trace of all calls of a tick."""
    digest = _digest(tick).hex()
    return f"00-{digest[:32]}-{digest[32:48]}-01"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def find_target(settings: CronSettings, component: wit.ComponentType) -> tuple[str, str]:
    """The exported interface and function to call; raises `NotFound` that says what there is."""
    exports = component.exports
    if not settings.call:
        for interface, function in ((SCHEDULER, "invoke"), (RUN, "run")):
            name = next((item for item in exports if unversioned(item) == interface), None)
            if name is not None:
                return name, function
        raise NotFound(f"the component exports neither {SCHEDULER} nor {RUN}: say what to call with `call`")
    interface, _, function = settings.call.rpartition(".")
    name = _exported(interface or wit.WORLD, exports)
    if name is None or function not in exports[name].functions:
        listed = [
            f"{unversioned(item)}.{key}" if item != wit.WORLD else key
            for item in exports
            for key in exports[item].functions
        ]
        raise NotFound(f"the component does not export {settings.call}{did_you_mean(settings.call, listed)}")
    return name, function


def check_target(settings: CronSettings, component: wit.ComponentType) -> None:
    """Raise `Invalid` if the component has nothing to call, or it can't be called with these arguments."""
    try:
        interface, function = find_target(settings, component)
    except NotFound as error:
        raise Invalid(error.message) from None
    arguments_of(settings, component.exports[interface].functions[function], tick_id("check", 0))


def _exported(interface: str, exports: Iterable[str]) -> str | None:
    names = list(exports)
    plain = next((name for name in names if "@" not in interface and unversioned(name) == interface), None)
    return plain or match_interface(interface, names)


def arguments_of(settings: CronSettings, function: wit.Function, tick: str) -> list[Any]:
    """The arguments of a tick's call.

    A function that takes one text more than `args` gives gets the tick's id there. Raises `Invalid`.
    """
    params = [type_ for _, type_ in function.params]
    given = settings.arguments
    if given is None:
        if params == [wit.BYTES]:
            payload = settings.payload if settings.payload is not None else json.dumps({"tick": tick})
            return [payload.encode()]
        given = []
    if isinstance(given, list):
        is_one_short = len(given) + 1 == len(params) and params[-1] == wit.STRING
        given = [*given, TICK] if is_one_short else given
    return values.arguments_from_json(function, _with_tick(given, tick))


def _with_tick(data: Any, tick: str) -> Any:
    if isinstance(data, list):
        return [_with_tick(item, tick) for item in data]
    if isinstance(data, dict):
        return {key: _with_tick(item, tick) for key, item in data.items()}
    return tick if data == TICK else data
