"""Figures and what they are compared with."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the results."""

    name: str
    ours: float
    theirs: float | None
    """The alternative, measured in the same run; None where there is none."""
    unit: str
    ratio: float | None
    """Ours to theirs."""
    target: str
    """Empty where nothing is promised."""
    met: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured. `quick` only shows that the benchmarks run; its figures mean nothing."""

    rounds: int = 9
    calls: int = 1000
    """Of each contender in each round."""
    kills: int = 20
    replicas: int = 10_000
    components: int = 500
    nodes: int = 1000
    """Simulated ones."""
    seconds: float = 3.0
    """How long what is watched over time is watched."""


QUICK = Effort(rounds=1, calls=20, kills=1, replicas=60, components=3, nodes=30, seconds=0.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is promised; more than one bound may hold."""

    at_most: float | None = None
    ratio_at_most: float | None = None
    ratio_at_least: float | None = None

    def text(self, unit: str) -> str:
        """As people write it."""
        parts = [
            f"<= {self.at_most:g} {unit}" if self.at_most is not None else "",
            f"<= {self.ratio_at_most:g}x" if self.ratio_at_most is not None else "",
            f">= {self.ratio_at_least:g}x" if self.ratio_at_least is not None else "",
        ]
        return " and ".join(part for part in parts if part)

    def is_met(self, ours: float, ratio: float | None) -> bool:
        """Whether all bounds hold."""
        bounds = [
            self.at_most is None or ours <= self.at_most,
            self.ratio_at_most is None or (ratio is not None and ratio <= self.ratio_at_most),
            self.ratio_at_least is None or (ratio is not None and ratio >= self.ratio_at_least),
        ]
        return all(bounds)


def compare(name: str, ours: float, theirs: float | None, unit: str, target: Target | None = None) -> Row:
    """A row of the results."""
    ratio = ours / theirs if theirs else None
    return Row(
        name=name,
        ours=ours,
        theirs=theirs,
        unit=unit,
        ratio=ratio,
        target=target.text(unit) if target else "",
        met=target.is_met(ours, ratio) if target else None,
    )


def interleave(rounds: int, *contenders: Callable[[], float]) -> list[float]:
    """Let each measure once a round, in turn; gives each one's median, so that a disturbed round is lost."""
    results: list[list[float]] = [[] for _ in contenders]
    for _ in range(rounds):
        for figures, measure in zip(results, contenders, strict=True):
            figures.append(measure())
    return [statistics.median(figures) for figures in results]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered) + 0.5) - 1))]
