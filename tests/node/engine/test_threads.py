"""The epoch clock and the worker threads."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

import anyio
import pytest

from node.engine.ticker import IDLE_TICKS, Ticker
from node.engine.workers import Workers


def wait_until(condition: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.001)


def test_clock_ticks_while_it_is_wanted_and_then_stops() -> None:
    ticks: list[float] = []
    ticker = Ticker(lambda: ticks.append(time.monotonic()))
    try:
        ticker.note()
        wait_until(lambda: len(ticks) >= 5)
        wait_until(lambda: ticker.is_idle)
        stopped_at = len(ticks)

        ticker.note()
        wait_until(lambda: len(ticks) > stopped_at)
    finally:
        ticker.close()


def test_clock_that_rests_makes_up_for_ticks_now_and_then() -> None:
    ticks: list[float] = []
    ticker = Ticker(lambda: ticks.append(time.monotonic()))
    try:
        wait_until(lambda: ticker.is_idle)
        before = len(ticks)

        wait_until(lambda: len(ticks) >= before + 2 * IDLE_TICKS)
        assert ticker.is_idle
    finally:
        ticker.close()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no niceness of their own")
async def test_guests_on_threads_leave_the_processor_to_the_event_loop() -> None:
    workers = Workers(threads=1)
    here = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        there = await workers.run(lambda: os.getpriority(os.PRIO_PROCESS, 0))
    finally:
        await anyio.to_thread.run_sync(workers.close)

    assert there == min(here + 10, 19)
    assert os.getpriority(os.PRIO_PROCESS, 0) == here


async def test_cancelled_before_it_began_it_never_begins() -> None:
    workers = Workers(threads=1)
    may_end = threading.Event()
    began: list[str] = []
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(workers.run, may_end.wait)
            await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(0.01):
                await workers.run(lambda: began.append("second"))
            may_end.set()
    finally:
        await anyio.to_thread.run_sync(workers.close)
    assert began == []


async def test_cancelled_while_it_runs_its_end_is_awaited() -> None:
    workers = Workers(threads=1)
    has_begun, has_ended = threading.Event(), threading.Event()

    def work() -> None:
        has_begun.set()
        time.sleep(0.05)
        has_ended.set()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(workers.run, work)
            await anyio.to_thread.run_sync(has_begun.wait)
            tasks.cancel_scope.cancel()
        assert has_ended.is_set()
    finally:
        await anyio.to_thread.run_sync(workers.close)


async def test_exception_of_a_job_is_raised_to_who_asked() -> None:
    workers = Workers(threads=1)

    def work() -> None:
        raise ValueError("x")

    try:
        with pytest.raises(ValueError, match="x"):
            await workers.run(work)
    finally:
        await anyio.to_thread.run_sync(workers.close)
