"""Decides where the calls of one component begin: on the event loop, or on a worker thread.

    unknown --a call completed in time--> trusted       begin on the loop
       |                                      |
       +----- a call overran its slice -------+--> slow  begin on a worker
       ^                                             |
       +------- PROBATION calls in time -------------+

Unknown: one call at a time may try on the loop, so that a burst of a component that spins can't block it.
"""

from __future__ import annotations

import enum

PROBATION = 16
"""Calls in time, one after the other, after which a slow component gets another chance."""


class Standing(enum.Enum):
    UNKNOWN = "unknown"
    TRUSTED = "trusted"
    SLOW = "slow"


class Pace:
    """How one component's calls have behaved so far."""

    __slots__ = ("_in_time", "_trials", "standing")

    def __init__(self) -> None:
        self.standing = Standing.UNKNOWN
        self._trials = 0
        self._in_time = 0

    def begin(self) -> bool:
        """Whether a call may begin on the event loop; follow with `end`."""
        if self.standing is Standing.TRUSTED:
            return True
        if self.standing is Standing.UNKNOWN and not self._trials:
            self._trials = 1
            return True
        return False

    def end(self, *, began_on_loop: bool, has_overrun: bool) -> None:
        """A call for which `begin` was asked has ended, however it did."""
        if began_on_loop:
            self._trials = 0
        if has_overrun:
            self.standing = Standing.SLOW
            self._in_time = 0
        elif self.standing is Standing.UNKNOWN:
            self.standing = Standing.TRUSTED
        elif self.standing is Standing.SLOW:
            self._in_time += 1
            if self._in_time >= PROBATION:
                self.standing = Standing.UNKNOWN
