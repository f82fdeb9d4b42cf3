"""Failed calls in the node's log, under the error id that their callers get; bounded."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import structlog

from lattice import wire
from lattice.errors import Failed, LatticeError, TimedOut, Trapped

log = structlog.get_logger()

LOGGED = (Trapped, TimedOut, Failed)
"""What an operator may have to look into; all else is the caller's affair, and said to it."""
LINES_PER_SECOND = 20


def new_error_id() -> str:
    """Short enough to be read out, long enough to be found in a log."""
    return os.urandom(4).hex()


def internal_failure(event: str, subject: str, *, what: str = "the node") -> Failed:
    """Log the exception at hand; the error that its caller gets says no more than where to look.

    `what` failed: the node, or what this process runs of somebody else's.
    """
    error_id = new_error_id()
    log.exception(event, subject=subject, error_id=error_id)
    return Failed(
        f"{what} failed; the log of its process has the reason under the error id", error_id=error_id
    )


class LineLimit:
    """Lets so many lines a second into a log, and says how many it kept out of a second before the next."""

    # The mutable state is the second at hand, and what was let in and kept out in it.

    def __init__(
        self, tell_omitted: Callable[[int], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell_omitted = tell_omitted
        self._clock = clock
        self._second = 0
        self._lines = 0
        self._omitted = 0

    def lets_in(self) -> bool:
        """Count a line, and say whether it may be written."""
        second = int(self._clock())
        if second != self._second:
            if self._omitted:
                self._tell_omitted(self._omitted)
            self._second, self._lines, self._omitted = second, 0, 0
        self._lines += 1
        if self._lines <= LINES_PER_SECOND:
            return True
        self._omitted += 1
        return False


class FailureLog:
    """What is written of failed calls."""

    def __init__(self) -> None:
        self._limit = LineLimit(lambda omitted: log.warning("calls.failed", omitted=omitted))

    def record(self, subject: str, headers: wire.CallHeaders, error: LatticeError) -> None:
        """Give the error an id if it has none, and log it while the second's lines last."""
        if not isinstance(error, LOGGED) or error.error_id is not None:
            return
        error.error_id = new_error_id()
        if self._limit.lets_in():
            log.warning(
                "call.failed",
                subject=subject,
                code=error.code,
                reason=error.message,
                error_id=error.error_id,
                call_id=headers.call_id,
                caller=headers.caller,
            )
