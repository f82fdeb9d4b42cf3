"""Receiving ends that hand on what comes, instead of being asked for each chunk."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Protocol

from lattice.errors import LatticeError
from lattice.streams import Receiving


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


class Pouring(Receiving):
    """A receiving end that can do without being asked for each chunk."""

    @abstractmethod
    def pour_into(self, sink: Sink) -> None:
        """Hand on what comes to the sink, from now on; nobody may receive any more."""
