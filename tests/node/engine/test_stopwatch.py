"""Computing counts, waiting does not."""

from __future__ import annotations

import time

from node.engine.stopwatch import STALE_SECONDS, Stopwatch


def test_waiting_is_not_computing() -> None:
    stopwatch = Stopwatch()
    stopwatch.begin()

    time.sleep(0.02)

    assert stopwatch.computed_seconds() < 0.01


def test_computing_is_measured() -> None:
    stopwatch = Stopwatch()
    stopwatch.begin()

    began = time.thread_time()
    while time.thread_time() - began < 0.01:
        pass

    assert stopwatch.computed_seconds() >= 0.01 - 2 * STALE_SECONDS
