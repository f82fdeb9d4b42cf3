"""Decides where the calls of a function begin: on the event loop, or on a worker thread.

    unknown --a call ended in time--> trusted      begins on the loop
       |                                 |
       +------ a call overran -----------+--> slow  begins on a worker
       ^                                       |
       +------ PROBATION calls in time --------+

Of a component's unknown functions one call at a time may try a first slice on the loop, so that a burst of
calls to a component that spins can't block it. Instantiation counts as a function.
"""

from __future__ import annotations

import enum

PROBATION = 16
"""Calls in time, one after the other, after which a slow function gets another chance; then twice as many."""
MAX_PROBATION = 1 << 14


class Standing(enum.Enum):
    UNKNOWN = "unknown"
    TRUSTED = "trusted"
    SLOW = "slow"


class Start(enum.Enum):
    """How a call begins."""

    LOOP = "loop"
    TRIAL = "trial"
    """On the loop, as the only one of its component that has yet to show how it behaves."""
    WORKER = "worker"


class Trial:
    """The one trial that a component may have; shared by the paces of its functions."""

    __slots__ = ("is_running",)

    def __init__(self) -> None:
        self.is_running = False


class Pace:
    """How the calls of one function have behaved so far."""

    __slots__ = ("_in_time", "_probation", "_trial", "standing")

    def __init__(self, trial: Trial) -> None:
        self.standing = Standing.UNKNOWN
        self._trial = trial
        self._in_time = 0
        self._probation = PROBATION // 2

    def begin(self) -> Start:
        """Where a call begins; follow with `overran` as soon as it did, or with `in_time` when it ended."""
        if self.standing is Standing.TRUSTED:
            return Start.LOOP
        if self.standing is Standing.SLOW or self._trial.is_running:
            return Start.WORKER
        self._trial.is_running = True
        return Start.TRIAL

    def suspended(self, start: Start) -> Start:
        """A call waits for the host in time, so that others may try; it goes on as the answer says."""
        if start is Start.TRIAL:
            self._trial.is_running = False
            return Start.LOOP
        return start

    def overran(self, start: Start) -> None:
        """A call in progress has used up its slice."""
        if start is Start.TRIAL:
            self._trial.is_running = False
        if self.standing is not Standing.SLOW:
            self._probation = min(self._probation * 2, MAX_PROBATION)
        self.standing = Standing.SLOW
        self._in_time = 0

    def in_time(self, start: Start) -> None:
        """A call has ended, however it did, without using up a slice."""
        if start is Start.TRIAL:
            self._trial.is_running = False
        if self.standing is Standing.UNKNOWN:
            self.standing = Standing.TRUSTED
        elif self.standing is Standing.SLOW:
            self._in_time += 1
            if self._in_time >= self._probation:
                self.standing = Standing.UNKNOWN
