"""A log takes so many lines of failures a second, and is told how many it was spared."""

from __future__ import annotations

from lattice.failures import LINES_PER_SECOND, LineLimit


def test_a_second_has_so_many_lines_and_the_next_one_says_what_was_kept_out() -> None:
    seconds, told = [100.0], list[int]()
    limit = LineLimit(told.append, clock=lambda: seconds[0])

    let_in = [limit.lets_in() for _ in range(LINES_PER_SECOND + 7)]
    told_meanwhile = list(told)
    seconds[0] += 1
    is_let_in_again = limit.lets_in()

    assert let_in == [True] * LINES_PER_SECOND + [False] * 7
    assert (told_meanwhile, told, is_let_in_again) == ([], [7], True)


def test_nothing_is_said_of_seconds_that_kept_nothing_out() -> None:
    seconds, told = [100.0], list[int]()
    limit = LineLimit(told.append, clock=lambda: seconds[0])

    for _ in range(3):
        assert limit.lets_in()
        seconds[0] += 1

    assert told == []
