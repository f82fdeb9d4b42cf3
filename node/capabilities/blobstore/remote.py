"""What the guest's half asks of a provider, over which link, and how errors come back.

An error of the provider, or of the way to it, is an error of the interface: its text. The guest goes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from lattice.errors import LatticeError
from lattice.exchange import Exchange
from lattice.streams import ByteReceiver
from node.capabilities.bus.selection import DEFAULT, selected
from node.engine.host import GuestCall

PACKAGE = "wasi:blobstore"
INTERFACE = f"{PACKAGE}/blobstore"
CONTAINER_INTERFACE = f"{PACKAGE}/container"
FLAT = "lattice:blobstore/blobs"


class Refused(Exception):
    """Raised with the text that the guest shall see; `case` is the provider's, if it was it that refused."""

    def __init__(self, text: str, case: str = "") -> None:
        super().__init__(text)
        self.case = case


class LinkedCalls(Protocol):
    """What is needed of the node's links; see `node.links.Links`."""

    def names(self, source: str, interface: str) -> Sequence[str]: ...

    async def call(
        self,
        call: GuestCall,
        *,
        interface: str,
        function: tuple[str, str],
        args: Sequence[Any],
        name: str | None = None,
        idempotent: bool = False,
    ) -> Any: ...

    async def exchange(
        self,
        call: GuestCall,
        *,
        interface: str,
        function: tuple[str, str],
        args: Sequence[Any],
        body: ByteReceiver | None = None,
        name: str | None = None,
        idempotent: bool = False,
    ) -> Exchange: ...


@dataclass(frozen=True, slots=True)
class Place:
    """A container as a guest sees it: its name, and the link that it is reached over."""

    link: str
    container: str


class Blobs:
    """A provider's functions over the guest's links; holds no state."""

    def __init__(self, links: LinkedCalls) -> None:
        self._links = links

    def place(self, call: GuestCall, container: str) -> Place:
        """A link of the container's name if there is one, else the one that the guest chose.

        The link named `default` is that of no container: it would undo the guest's choice.
        """
        if container != DEFAULT and container in self._links.names(call.component, INTERFACE):
            return Place(container, container)
        chosen = selected(call, INTERFACE)
        if chosen == DEFAULT:
            chosen = selected(call, CONTAINER_INTERFACE)
        return Place(chosen, container)

    async def ask(self, call: GuestCall, link: str, function: str, *args: Any, repeat: bool = True) -> Any:
        """The value of a function; `repeat` if asking again does no harm. Raises `Refused`."""
        try:
            answer = await self._links.call(
                call,
                interface=INTERFACE,
                function=(FLAT, function),
                args=args,
                name=link,
                idempotent=repeat,
            )
        except LatticeError as error:
            raise Refused(error.message) from error
        return _value(answer)

    async def exists(self, call: GuestCall, place: Place) -> bool:
        """Whether the container does."""
        return await self._is_there(call, place.link, "no-such-container", "info", place.container)

    async def has(self, call: GuestCall, place: Place, name: str) -> bool:
        """Whether the container has the object."""
        return await self._is_there(call, place.link, "no-such-object", "stat", place.container, name)

    async def _is_there(self, call: GuestCall, link: str, missing: str, function: str, *args: Any) -> bool:
        try:
            await self.ask(call, link, function, *args)
        except Refused as error:
            if error.case == missing:
                return False
            raise
        return True

    async def read(
        self, call: GuestCall, place: Place, name: str, start: int = 0, end: int | None = None
    ) -> tuple[Any, Exchange]:
        """What is known of an object, and its bytes from `start` to before `end`. Close the exchange."""
        exchange = await self._exchange(call, place, "get", [place.container, name, start, end], None)
        try:
            return _value(exchange.value), exchange
        except BaseException:
            await exchange.aclose()
            raise

    async def write(self, call: GuestCall, place: Place, name: str, body: ByteReceiver) -> None:
        """Store an object from a stream, and return once it is stored; closes the stream."""
        async with await self._exchange(call, place, "put", [place.container, name], body) as exchange:
            _value(exchange.value)

    async def _exchange(
        self, call: GuestCall, place: Place, function: str, args: list[Any], body: ByteReceiver | None
    ) -> Exchange:
        try:
            return await self._links.exchange(
                call,
                interface=INTERFACE,
                function=(FLAT, function),
                args=args,
                body=body,
                name=place.link,
                idempotent=True,
            )
        except LatticeError as error:
            raise Refused(error.message) from error

    @asynccontextmanager
    async def reading(self, call: GuestCall, place: Place, name: str) -> AsyncIterator[ByteReceiver | None]:
        """The whole object as a stream; None for one without bytes."""
        _, exchange = await self.read(call, place, name)
        async with exchange:
            yield exchange.body


def _value(answer: Any) -> Any:
    if isinstance(answer, dict) and "ok" in answer:
        return answer["ok"]
    error = answer.get("err") if isinstance(answer, dict) else None
    if isinstance(error, dict) and error:
        case, text = next(iter(error.items()))
        raise Refused(str(text), str(case))
    raise Refused("the provider gave an answer that is none")
