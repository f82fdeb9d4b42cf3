"""The groups of benchmarks, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from benchmarks import calls
from benchmarks.measurement import Effort, Row

GROUPS: Mapping[str, Callable[[Effort], Iterable[Row]]] = {
    "calls": calls.run,
}
