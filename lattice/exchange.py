"""Calls with byte streams beside them: arguments and result are small values, the bytes are of any length.

HTTP bodies, blobs and the output of jobs travel so. An `Exchange` is what such a call returned: its value,
and the bytes that follow. Within a process both are handed over as they are; over the bus the value is a
reply like any other, and each direction of bytes is a stream (`lattice.streams`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from lattice.errors import LatticeError
from lattice.frames import FIRST_CREDIT_BYTES
from lattice.streams import ByteReceiver, Receiving

if TYPE_CHECKING:
    from lattice.caller import CallRequest


class Exchange:
    """The result of a call with streams. Leave it, or close its body: what runs of the callee ends then.

    Without a body the call is over; with one it is over when the body has ended. Errors of the callee after
    its result are raised by `body.receive`.
    """

    __slots__ = ("body", "value")

    def __init__(self, value: Any, body: ByteReceiver | None = None) -> None:
        self.value = value
        self.body = body

    def __repr__(self) -> str:
        return f"<Exchange {'without' if self.body is None else 'with'} a body>"

    async def aclose(self) -> None:
        """Cancel the callee if its body has not ended; may be called again."""
        if self.body is not None:
            await self.body.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class ExchangeTarget(Protocol):
    """Whatever serves calls with streams within a process."""

    async def exchange(
        self,
        request: CallRequest,
        args: Sequence[Any] | Mapping[str, Any],
        body: ByteReceiver | None,
    ) -> Exchange:
        """Serve a call; `body` is closed when no more of it is wanted, with the exchange at the latest.

        `request.deadline` bounds the time to the result. Closing the body of what is returned ends all that
        runs for it. Raises `Unreachable` or `Overloaded` only while nothing has begun. May be begun without
        a task: what needs one awaits `lattice.tasks.own_task` first.
        """


class Replayable(Receiving):
    """A body that may be sent again while all that was taken of it is still here: a window, and one chunk.

    A `ByteReceiver`. Attempts close it as often as they like; the body is closed when `settle` says so.
    """

    def __init__(self, body: ByteReceiver, *, keep_bytes: int = FIRST_CREDIT_BYTES) -> None:
        self._body = body
        self._room = keep_bytes
        # The mutable state: what was taken, what of it is to be given again, and what attempts wanted.
        self._taken: list[bytes] = []
        self._again: deque[bytes] = deque()
        self._is_recording = True
        self._is_closed = False

    @property
    def is_whole(self) -> bool:
        """Whether another attempt can have all of it."""
        return self._is_recording

    @property
    def trailers(self) -> Mapping[str, str]:
        return self._body.trailers

    def rewind(self) -> None:
        """Begin anew, for the next attempt."""
        self._again = deque(self._taken)
        self._is_closed = False

    async def settle(self, *, is_over: bool) -> None:
        """There is no other attempt: forget what was kept; close if this one did, or the call is over."""
        self._forget()
        if self._is_closed or is_over:
            await self._body.aclose()

    async def receive(self) -> bytes:
        if self._again:
            return self._again.popleft()
        chunk = await self._body.receive()
        if self._room > 0:
            self._room -= len(chunk)
            self._taken.append(chunk)
        elif self._is_recording:
            self._forget()
        return chunk

    def abort(self, error: LatticeError) -> None:
        self._body.abort(error)

    async def aclose(self) -> None:
        self._is_closed = True
        if not self._is_recording:
            await self._body.aclose()

    def _forget(self) -> None:
        self._is_recording, self._room = False, 0
        self._taken = []
