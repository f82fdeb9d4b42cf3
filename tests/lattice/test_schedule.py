"""Schedules of cron triggers: which ticks are due, and what each calls."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lattice import schedule as cron
from lattice import wire, wit
from lattice.errors import Invalid, NotFound
from lattice.schedule import KEYS, MAX_MISSED, CronSettings, Schedule, due, parse_cron

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata")
EXPRESSIONS = ("*/5 * * * *", "30 2 * * *", "0 0 1 * *", "15 10 * * MON-FRI", "*/7 * * * * *", "0 0 L 2 *")
YEAR_MS = 366 * 86400 * 1000

schedules = st.builds(
    Schedule, st.sampled_from([*EXPRESSIONS, "every 30s", "every 90m", "every 0.5s"]), st.sampled_from(ZONES)
)
moments = st.integers(1_577_836_800_000, 1_900_000_000_000)


def ms(*parts: int, zone: str = "UTC") -> int:
    return round(datetime(*parts, tzinfo=ZoneInfo(zone)).timestamp() * 1000)  # type: ignore[arg-type,misc]


@given(schedule=schedules, start=moments)
def test_the_next_tick_is_later_and_the_last_one_before_the_next_but_one(
    schedule: Schedule, start: int
) -> None:
    first = schedule.after(start)
    second = schedule.after(first)

    assert start < first < second
    assert schedule.between(start, second - 1, 5) == [first]
    assert schedule.between(start, second, 5) == [first, second]
    assert schedule.between(first, first, 5) == []


@given(schedule=schedules, start=moments, count=st.integers(1, 20))
def test_backwards_there_are_the_same_ticks_as_forwards(schedule: Schedule, start: int, count: int) -> None:
    forwards = [schedule.after(start)]
    while len(forwards) < count:
        forwards.append(schedule.after(forwards[-1]))

    assert schedule.between(start, forwards[-1], count) == forwards
    assert schedule.between(start, forwards[-1], 3) == forwards[-3:]


@given(
    schedule=schedules,
    start=moments,
    steps=st.lists(st.integers(1, 7_200_000), min_size=1, max_size=12),
    jitter=st.sampled_from([0.0, 1.0, 600.0]),
)
def test_who_takes_all_ticks_takes_each_once_and_in_order_however_irregularly_it_looks(
    schedule: Schedule, start: int, steps: list[int], jitter: float
) -> None:
    assume((schedule.interval_ms or 10_000) >= 10_000 or sum(steps) < 40_000)
    settings = CronSettings(schedule=schedule, missed=cron.Missed.ALL, jitter_seconds=jitter)
    now = done = start
    taken: list[int] = []
    for step in steps:
        now += step
        found = due(settings, done, now, "a/b")
        assume(found.dropped is None)
        taken += found.ticks
        done = taken[-1] if taken else done
        assert found.next_ms > now or found.next_ms > done

    late = [tick for tick in schedule.between(start, now, MAX_MISSED) if tick not in taken]
    assert taken == sorted(set(taken))
    assert not late or late[0] + cron.delay_ms(settings, late[0], "a/b") > now


@given(schedule=schedules, start=moments, length=st.integers(1, YEAR_MS))
def test_however_many_were_missed_a_bounded_number_is_made_up_for(
    schedule: Schedule, start: int, length: int
) -> None:
    for missed in cron.Missed:
        found = due(CronSettings(schedule=schedule, missed=missed), start, start + length, "a/b")

        limit = MAX_MISSED if missed is cron.Missed.ALL else 1
        assert len(found.ticks) <= limit
        assert found.next_ms > start + length
        assert found.dropped is None or not found.ticks or found.dropped < found.ticks[0]


def test_a_tick_that_is_late_is_skipped_where_that_is_wanted() -> None:
    settings = CronSettings(schedule=Schedule("every 1h"), missed=cron.Missed.SKIP)
    start, tick = ms(2026, 1, 1, 11, 30), ms(2026, 1, 1, 12)

    assert due(settings, start, tick + 4_000, "a/b").ticks == (tick,)
    late = due(settings, start, tick + 6_000, "a/b")
    assert (late.ticks, late.dropped) == ((), tick)


def test_the_hour_that_a_zone_leaves_out_and_repeats_has_each_daily_tick_once() -> None:
    schedule = Schedule("30 2 * * *", "Europe/Berlin")

    spring = schedule.between(ms(2026, 3, 28, 12), ms(2026, 3, 30, 12), 10)
    autumn = schedule.between(ms(2026, 10, 24, 12), ms(2026, 10, 26, 12), 10)

    assert len(spring) == len(autumn) == 2
    assert spring[0] == ms(2026, 3, 29, 3, zone="Europe/Berlin")


def test_intervals_are_due_at_the_same_moments_everywhere() -> None:
    moment = datetime(2026, 5, 1, 12, 0, 7, tzinfo=UTC)

    after = Schedule("every 30s", "Asia/Kolkata").after(round(moment.timestamp() * 1000))

    assert after == round((moment + timedelta(seconds=23)).timestamp() * 1000)


def test_jitter_is_the_same_on_every_node_and_differs_between_ticks() -> None:
    settings = CronSettings(schedule=Schedule("every 1m"), jitter_seconds=20)
    ticks = range(0, 3_600_000, 60_000)

    delays = [cron.delay_ms(settings, tick, "a/b") for tick in ticks]

    assert delays == [cron.delay_ms(settings, tick, "a/b") for tick in ticks]
    assert all(0 <= delay < 20_000 for delay in delays)
    assert len(set(delays)) > 40


# Settings


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({}, "schedule is missing"),
        ({"schedule": "* * *"}, r"Wrong number of fields; use a cron expression"),
        ({"schedule": "61 * * * *"}, "Bad minute"),
        ({"schedule": "0 0 31 2 *"}, "Bad day-of-month|never due"),
        ({"schedule": "every 1ms"}, "its interval in seconds is 0.001"),
        ({"schedule": "every soon"}, "schedule"),
        ({"schedule": "@daily"}, "Wrong number of fields"),
        ({"schedule": "every 1s", "timezone": "Mars/Olympus"}, "timezone 'Mars/Olympus' is not known"),
        ({"schedule": "every 1s", "timezone": "../../etc/passwd"}, "is not known"),
        ({"schedule": "every 1s", "delivery": "once"}, "use one of at-most-once, at-least-once"),
        ({"schedule": "every 1s", "shedule": "x"}, "did you mean `schedule`"),
        ({"schedule": "every 1s", "args": "[1"}, "args is not JSON"),
        ({"schedule": "every 1s", "args": "1"}, "args must be"),
        ({"schedule": "every 1s", "budget": "2h"}, "budget is"),
        (
            {"schedule": "every 1s", "delivery": "at-least-once", "overlap": "allow"},
            "overlap=allow does not go",
        ),
    ],
)
def test_what_is_wrong_is_named(configuration: dict[str, str], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        parse_cron(configuration)


def test_defaults_depend_on_how_often_a_tick_must_be_done() -> None:
    careful = parse_cron({"schedule": "every 1s"})
    thorough = parse_cron({"schedule": "every 1s", "delivery": "at-least-once"})

    assert (careful.delivery, careful.overlap, careful.missed) == ("at-most-once", "skip", "last")
    assert thorough.missed == "all"


def test_every_setting_is_understood() -> None:
    given = {
        "schedule": "0  9 * * MON",
        "timezone": "Europe/Berlin",
        "call": "demo:a/b.c",
        "args": "[1]",
        "payload": "x",
        "delivery": "at-most-once",
        "overlap": "allow",
        "missed": "skip",
        "jitter": "1s",
        "budget": "2s",
        "retry": "5m",
    }
    assert given.keys() == KEYS.keys()

    assert parse_cron(given) == CronSettings(
        schedule=Schedule("0 9 * * MON", "Europe/Berlin"),
        call="demo:a/b.c",
        arguments=[1],
        payload="x",
        overlap=cron.Overlap.ALLOW,
        missed=cron.Missed.SKIP,
        jitter_seconds=1,
        budget_seconds=2,
        retry_seconds=300,
    )


# What is called


def component(**functions: dict[str, wit.Function]) -> wit.ComponentType:
    exports = {name: wit.Interface(name, items) for name, items in functions.items()}
    return wit.ComponentType({}, exports)


NOTHING = wit.Function((), None)
RUN = {"wasi:cli/run@0.2.3": {"run": NOTHING}}
INVOKE = {"wasmcloud:cron/scheduler@0.1.0": {"invoke": wit.Function((("payload", wit.BYTES),), None)}}
OWN: dict[str, dict[str, wit.Function]] = {"demo:jobs/nightly@1.2.0": {"tick": NOTHING}, "-": {"go": NOTHING}}


@pytest.mark.parametrize(
    ("exports", "call", "target"),
    [
        (RUN, "", ("wasi:cli/run@0.2.3", "run")),
        ({**RUN, **INVOKE}, "", ("wasmcloud:cron/scheduler@0.1.0", "invoke")),
        (OWN, "demo:jobs/nightly.tick", ("demo:jobs/nightly@1.2.0", "tick")),
        (OWN, "demo:jobs/nightly@1.0.0.tick", ("demo:jobs/nightly@1.2.0", "tick")),
        (OWN, "go", ("-", "go")),
    ],
)
def test_the_function_is_found(exports: Any, call: str, target: tuple[str, str]) -> None:
    settings = CronSettings(schedule=Schedule("every 1s"), call=call)

    assert cron.find_target(settings, component(**exports)) == target


def test_a_function_that_is_not_there_is_refused_with_what_is() -> None:
    plain = CronSettings(schedule=Schedule("every 1s"))
    wrong = CronSettings(schedule=Schedule("every 1s"), call="demo:jobs/nightly.tack")

    with pytest.raises(NotFound, match="neither wasmcloud:cron/scheduler nor wasi:cli/run"):
        cron.find_target(plain, component(**OWN))
    with pytest.raises(NotFound, match=r"did you mean `demo:jobs/nightly\.tick`"):
        cron.find_target(wrong, component(**OWN))


def test_a_call_that_can_not_be_made_is_refused_before_there_is_a_tick() -> None:
    numbered = {"demo:jobs/nightly": {"tick": wit.Function((("n", wit.Primitive("u32")),), None)}}
    plain = CronSettings(schedule=Schedule("every 1s"), call="demo:jobs/nightly.tick")
    numbered_call = CronSettings(schedule=Schedule("every 1s"), call=plain.call, arguments=[7])

    cron.check_target(numbered_call, component(**numbered))
    with pytest.raises(Invalid, match="argument"):
        cron.check_target(plain, component(**numbered))
    with pytest.raises(Invalid, match="does not export"):
        cron.check_target(plain, component(**RUN))


def test_the_tick_is_passed_where_the_function_takes_it() -> None:
    number, text, data = (("n", wit.Primitive("u32")),), (("tick", wit.STRING),), (("payload", wit.BYTES),)
    tick = cron.tick_id("shop/nightly", ms(2026, 1, 2, 3, 4, 5))
    plain = CronSettings(schedule=Schedule("every 1s"))
    one = CronSettings(schedule=Schedule("every 1s"), arguments=[7])
    named = CronSettings(schedule=Schedule("every 1s"), arguments={"n": 7, "tick": "$tick"})
    loaded = CronSettings(schedule=Schedule("every 1s"), payload="hello")

    assert tick == "shop/nightly/2026-01-02T03:04:05Z"
    assert cron.arguments_of(plain, wit.Function((), None), tick) == []
    assert cron.arguments_of(plain, wit.Function(text, None), tick) == [tick]
    assert cron.arguments_of(one, wit.Function(number, None), tick) == [7]
    assert cron.arguments_of(one, wit.Function(number + text, None), tick) == [7, tick]
    assert cron.arguments_of(named, wit.Function(number + text, None), tick) == [7, tick]
    assert cron.arguments_of(loaded, wit.Function(data, None), tick) == [b"hello"]
    assert cron.arguments_of(plain, wit.Function(data, None), tick) == [b'{"tick": "%s"}' % tick.encode()]
    with pytest.raises(Invalid):
        cron.arguments_of(plain, wit.Function(number, None), tick)


def test_all_calls_of_a_tick_share_id_and_trace() -> None:
    tick = cron.tick_id("shop/nightly", 1500)

    assert tick.endswith("1970-01-01T00:00:01.500Z")
    assert wire.check_traceparent(cron.traceparent(tick)) is not None
    assert len(cron.call_id(tick)) == 16
