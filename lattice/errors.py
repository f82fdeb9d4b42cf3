"""The errors of a lattice: a small closed set, divided by what the caller can do about each.

The same errors are raised in process, sent between nodes and printed by the command line. `code` is the
value on the wire and never changes; `message` is for people; `error_id` is also in the log of the process
where the error arose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class LatticeError(Exception):
    """Base of all errors that cross a border of the lattice."""

    code: ClassVar[str] = "failed"
    is_retryable: ClassVar[bool] = False
    """Whether the call surely has not begun, so that another replica may be asked at once."""

    def __init__(
        self, message: str, *, error_id: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_id = error_id
        self.details: dict[str, Any] = dict(details or {})


class Unreachable(LatticeError):
    """Raised when nobody took the call, so it has surely not begun. Safe to retry."""

    code = "unreachable"
    is_retryable = True


class Interrupted(LatticeError):
    """Raised when the callee or the way to it was lost after the call may have begun.

    Retry only if the function is idempotent.
    """

    code = "interrupted"


class TimedOut(LatticeError):
    """Raised when the call's budget ended before its result came."""

    code = "timed-out"


class Overloaded(LatticeError):
    """Raised when every slot and place in the queue was taken; the call has not begun."""

    code = "overloaded"
    is_retryable = True


class NotFound(LatticeError):
    """Raised when the component, interface, function, node or link does not exist."""

    code = "not-found"


class Denied(LatticeError):
    """Raised when what was asked for has not been granted; the message names the grant that is missing."""

    code = "denied"


class Invalid(LatticeError):
    """Raised when an argument, a name, a setting or a file breaks a rule that the message names."""

    code = "invalid"


class Trapped(LatticeError):
    """Raised when the guest stopped: a trap, an exhausted stack or memory, or an exit."""

    code = "trapped"


class Failed(LatticeError):
    """Raised when a provider or the runtime itself failed; the log has the rest under the error id."""

    code = "failed"


class Conflict(LatticeError):
    """Raised when a control operation lost against a concurrent one or contradicts the present state."""

    code = "conflict"


BY_CODE: Mapping[str, type[LatticeError]] = {
    error.code: error
    for error in (
        Unreachable,
        Interrupted,
        TimedOut,
        Overloaded,
        NotFound,
        Denied,
        Invalid,
        Trapped,
        Failed,
        Conflict,
    )
}
