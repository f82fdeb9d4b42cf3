"""What a call has come to when it has been begun: most never wait, and need neither a coroutine nor a task.

Each layer between who calls and what runs has a function `begin` that returns an outcome: `Done`, or what is
to be awaited at once. Failures come by awaiting only, so that each layer treats them in one place.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")


class Done(Generic[T]):
    """A call that has ended well. A type of its own, so that no value can be taken for something to await."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"<Done {self.value!r}>"


Outcome: TypeAlias = Done[T] | Awaitable[T]


async def ended(outcome: Outcome[T]) -> T:
    """The value, for callers that may wait."""
    return outcome.value if isinstance(outcome, Done) else await outcome


async def failed(error: Exception) -> T:
    """The outcome of a call that failed before it could wait."""
    raise error
