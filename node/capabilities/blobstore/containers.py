"""The resources `container` and `stream-object-names`, and what is done with several containers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anyio.abc import TaskGroup

from lattice.sources import BytesSource
from node.capabilities.blobstore.incoming import IncomingValue
from node.capabilities.blobstore.outgoing import OutgoingValue
from node.capabilities.blobstore.remote import Blobs, Place, Refused
from node.engine.host import GuestCall

PAGE_LENGTH = 1000
NAMES_AT_ONCE = 10_000
"""What one read of a list of names gives at most; the guest asks again."""
MAX_U64 = 2**64 - 1


class Container:
    """A container that a guest has opened; holds no state of its own."""

    def __init__(self, blobs: Blobs, tasks: TaskGroup, place: Place) -> None:
        self._blobs = blobs
        self._tasks = tasks
        self.place = place

    @property
    def name(self) -> str:
        return self.place.container

    async def info(self, call: GuestCall) -> dict[str, Any]:
        found = await self._ask(call, "info")
        return {"name": self.name, "created-at": found["created-at"]}

    async def get_data(self, call: GuestCall, name: str, start: int, end: int) -> IncomingValue:
        """The bytes from `start` to `end`, both included, as far as there are any."""
        if end < start:
            raise Refused(f"the range ends at {end}, before it begins at {start}")
        stop = None if end == MAX_U64 else end + 1
        found, exchange = await self._blobs.read(call, self.place, name, start, stop)
        size = found["size"] if stop is None else min(stop, found["size"])
        return IncomingValue(self._tasks, exchange, max(0, size - start))

    def write_data(self, call: GuestCall, name: str, value: OutgoingValue) -> None:
        """Have the provider store what is written to the value; `finish` tells how that went."""
        value.send(lambda body: self._blobs.write(call, self.place, name, body))

    def list_objects(self) -> ObjectNames:
        return ObjectNames(self._blobs, self.place)

    async def has_object(self, call: GuestCall, name: str) -> bool:
        return await self._blobs.has(call, self.place, name)

    async def object_info(self, call: GuestCall, name: str) -> dict[str, Any]:
        found = await self._ask(call, "stat", name)
        return {
            "name": name,
            "container": self.name,
            "created-at": found["created-at"],
            "size": found["size"],
        }

    async def delete_objects(self, call: GuestCall, names: Sequence[str]) -> None:
        for start in range(0, len(names), PAGE_LENGTH):
            await self._ask(call, "remove", list(names[start : start + PAGE_LENGTH]))

    async def clear(self, call: GuestCall) -> None:
        await self._ask(call, "clear")

    async def _ask(self, call: GuestCall, function: str, *args: Any) -> Any:
        return await self._blobs.ask(call, self.place.link, function, self.name, *args)


class ObjectNames:
    """A list of names, fetched page by page as the guest reads it."""

    # The mutable state is what was fetched and not read, and where to go on.

    def __init__(self, blobs: Blobs, place: Place) -> None:
        self._blobs = blobs
        self._place = place
        self._names: list[str] = []
        self._cursor: str | None = ""

    async def read(self, call: GuestCall, length: int) -> tuple[list[str], bool]:
        """Up to so many names, and whether these were the last."""
        length = min(length, NAMES_AT_ONCE)
        while len(self._names) < length and self._cursor is not None:
            await self._fetch(call)
        taken, self._names = self._names[:length], self._names[length:]
        return taken, not self._names and self._cursor is None

    async def skip(self, call: GuestCall, count: int) -> tuple[int, bool]:
        """Pass over so many names; how many there were, and whether these were the last."""
        skipped = 0
        while True:
            names, is_last = await self.read(call, min(count - skipped, PAGE_LENGTH))
            skipped += len(names)
            if is_last or skipped == count:
                return skipped, is_last

    async def _fetch(self, call: GuestCall) -> None:
        page = await self._blobs.ask(
            call, self._place.link, "list", self._place.container, self._cursor, PAGE_LENGTH
        )
        self._names.extend(page["names"])
        self._cursor = page["cursor"] or None


async def copy(blobs: Blobs, call: GuestCall, source: tuple[Place, str], target: tuple[Place, str]) -> None:
    """Copy an object, through this node if its links lead to two providers."""
    (here, name), (there, new_name) = source, target
    if here.link == there.link:
        await blobs.ask(call, here.link, "copy", [here.container, name], [there.container, new_name])
        return
    async with blobs.reading(call, here, name) as body:
        await blobs.write(call, there, new_name, body or BytesSource(b""))


async def move(blobs: Blobs, call: GuestCall, source: tuple[Place, str], target: tuple[Place, str]) -> None:
    """The same, and delete the source once the target is there."""
    (here, name), (there, new_name) = source, target
    if here.link == there.link:
        places = ([here.container, name], [there.container, new_name])
        await blobs.ask(call, here.link, "move", *places, repeat=False)
        return
    await copy(blobs, call, source, target)
    await blobs.ask(call, here.link, "remove", here.container, [name])
