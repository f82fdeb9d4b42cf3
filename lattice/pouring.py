"""Receiving ends that do without being asked for each chunk, and sockets that are lent to them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from lattice.errors import LatticeError
from lattice.streams import Receiving


class Loan(NamedTuple):
    """A socket that its owner leaves alone until it has it back."""

    descriptor: int
    length: int
    """Bytes that may be read, or written, at the most."""
    is_chunked: bool = False
    """Whether what is written goes out in the chunks of HTTP/1.1."""


UNLIMITED = (1 << 64) - 1


class Lender(Protocol):
    """Who has the socket that bytes come from, or go to. Of one direction."""

    @property
    def left(self) -> int:
        """Bytes to read that could be lent, and are announced: none if nobody knows how many will come."""

    def lend(self, recall: Callable[[], None]) -> Loan | None:
        """Lend it, or don't, for now. `recall` may be called to have it back at once."""

    def give_back(self, moved: int, rest: bytes) -> None:
        """So many bytes were read, or written; what is written next must be `rest`, the end of a chunk."""


class Sublender:
    """A base of who lends on the socket that somebody lends to it; implements `Lender`."""

    # The mutable state is who has the socket to lend, and how to call it back from who borrowed it.

    _lender: Lender | None = None
    _recall: Callable[[], None] | None = None

    @property
    def left(self) -> int:
        return 0 if self._lender is None else self._lender.left

    def lend(self, recall: Callable[[], None]) -> Loan | None:
        loan = None if self._lender is None else self._lender.lend(recall)
        self._recall = None if loan is None else recall
        return loan

    def give_back(self, moved: int, rest: bytes) -> None:
        assert self._lender is not None
        self._recall = None
        self._lender.give_back(moved, rest)

    def _end_loan(self) -> None:
        """Have the socket back at once, if it is lent."""
        if self._recall is not None:
            self._recall()


class Sink(Protocol):
    """What bytes are poured into, as they come."""

    @property
    def size(self) -> int:
        """The bytes that wait there."""

    def add(self, data: bytes) -> None:
        """These came."""

    def end(self, trailers: Mapping[str, str]) -> None:
        """These were all."""

    def break_off(self, error: LatticeError) -> None:
        """No more will come."""

    def discard(self) -> None:
        """Nobody wants them any more."""

    def await_room(self, wake: Callable[[], None]) -> bool:
        """Have `wake` called, maybe for nothing, when there may be room: true if there is already."""

    def borrow_from(self, lender: Lender) -> None:
        """Where the sink may borrow the socket that the bytes come from."""


class Pouring(Receiving):
    """A receiving end that can do without being asked for each chunk."""

    @abstractmethod
    def pour_into(self, sink: Sink) -> None:
        """Hand on what comes to the sink, from now on; nobody may receive any more."""


class Borrowing(Receiving):
    """A receiving end that can do without being received from, as long as it has the socket."""

    @abstractmethod
    def borrow_from(self, lender: Lender) -> None:
        """Where it may borrow the socket that its bytes go to, while somebody waits in `receive`."""
