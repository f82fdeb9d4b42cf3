"""Sizes and durations as people write them: `64MiB`, `1.5GB`, `30s`, `250ms`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lattice.errors import Invalid

_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")

_SIZE_UNITS = {
    "": 1, "b": 1,
    "k": 2**10, "kb": 10**3, "kib": 2**10,
    "m": 2**20, "mb": 10**6, "mib": 2**20,
    "g": 2**30, "gb": 10**9, "gib": 2**30,
}  # fmt: skip

_DURATION_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_size(text: str | int, field: str) -> int:
    """Bytes; raises `Invalid` that names `field` and shows how to write it."""
    number, unit = _split(str(text), field, _SIZE_UNITS, "use for example 65536, 64KiB, 64MiB or 1GiB")
    return int(number * _SIZE_UNITS[unit])


def parse_duration(text: str | float, field: str) -> float:
    """Seconds; raises `Invalid` that names `field` and shows how to write it."""
    number, unit = _split(str(text), field, _DURATION_UNITS, "use for example 250ms, 30s, 5m or 1h")
    return number * _DURATION_UNITS[unit]


def _split(text: str, field: str, units: Mapping[str, float], cure: str) -> tuple[float, str]:
    match = _NUMBER_AND_UNIT.fullmatch(text)
    if match is None or match[2].lower() not in units:
        raise Invalid(f"{field}: {text!r} is not understood; {cure}")
    return float(match[1]), match[2].lower()


def size_text(count: float) -> str:
    """Bytes for people, e.g. `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def duration_text(seconds: float) -> str:
    """Seconds for people, e.g. `850 ms`, `12.0 s`, `3 m 20 s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} m" if hours else f"{minutes} m {rest} s"
