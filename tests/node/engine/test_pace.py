"""Where the calls of a function begin."""

from __future__ import annotations

from node.engine.pace import PROBATION, Pace, Standing, Start, Trial


def test_one_unknown_call_at_a_time_tries_on_the_loop() -> None:
    trial = Trial()
    one, other = Pace(trial), Pace(trial)

    assert (one.begin(), one.begin(), other.begin()) == (Start.TRIAL, Start.WORKER, Start.WORKER)


def test_call_in_time_earns_trust_and_frees_the_trial() -> None:
    trial = Trial()
    one, other = Pace(trial), Pace(trial)

    one.in_time(one.begin())

    assert (one.begin(), one.begin(), other.begin()) == (Start.LOOP, Start.LOOP, Start.TRIAL)


def test_call_that_waits_for_the_host_lets_others_try() -> None:
    pace = Pace(Trial())

    start = pace.suspended(pace.begin())

    assert start is Start.LOOP
    assert pace.begin() is Start.TRIAL


def test_overrun_counts_at_once_for_the_calls_that_come_next() -> None:
    pace = Pace(Trial())
    pace.in_time(pace.begin())
    first = pace.begin()

    pace.overran(first)

    assert pace.begin() is Start.WORKER


def test_trial_is_freed_even_if_trust_was_earned_meanwhile_on_a_worker() -> None:
    trial = Trial()
    one, other = Pace(trial), Pace(trial)
    first, second = one.begin(), one.begin()

    one.in_time(second)
    one.in_time(first)

    assert other.begin() is Start.TRIAL


def test_slow_function_is_tried_again_after_its_probation() -> None:
    pace = Pace(Trial())
    pace.overran(pace.begin())

    for _ in range(PROBATION):
        assert pace.standing is Standing.SLOW
        pace.in_time(pace.begin())

    assert pace.standing is Standing.UNKNOWN


def test_overrun_on_a_worker_begins_the_probation_anew() -> None:
    pace = Pace(Trial())
    pace.overran(pace.begin())
    for _ in range(PROBATION - 1):
        pace.in_time(pace.begin())

    pace.overran(pace.begin())
    pace.in_time(pace.begin())

    assert pace.standing is Standing.SLOW


def test_probation_doubles_each_time() -> None:
    pace = Pace(Trial())
    for calls in (PROBATION, 2 * PROBATION, 4 * PROBATION):
        pace.overran(pace.begin())
        for _ in range(calls):
            assert pace.standing is Standing.SLOW
            pace.in_time(pace.begin())
        assert pace.standing is Standing.UNKNOWN
