"""Sizes and durations as people write them."""

from __future__ import annotations

import pytest

from lattice.errors import Invalid
from lattice.quantities import duration_text, parse_duration, parse_size, size_text


@pytest.mark.parametrize(
    ("text", "size"),
    [("65536", 65536), ("64KiB", 65536), ("1.5MB", 1_500_000), ("2 gib", 2**31), ("1k", 1024)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text, "memory") == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("30s", 30), ("1.5m", 90), ("1h", 3600), ("2", 2)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text, "deadline") == seconds


@pytest.mark.parametrize("text", ["", "x", "-1s", "10 parsecs", "1..2s", "1e9s"])
def test_what_is_not_understood_names_the_field_and_shows_how_to_write_it(text: str) -> None:
    with pytest.raises(Invalid, match=r"deadline: .* use for example"):
        parse_duration(text, "deadline")


def test_quantities_are_shown_for_people() -> None:
    assert [size_text(n) for n in (5, 2048, 3 * 2**20)] == ["5 B", "2.0 KiB", "3.0 MiB"]
    assert [duration_text(s) for s in (0.25, 12, 200, 7300)] == ["250 ms", "12.0 s", "3 m 20 s", "2 h 1 m"]
