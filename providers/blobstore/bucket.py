"""What keeps blobs: buckets, with containers in them, with objects in those.

A bucket is what a link opens; nothing of another one can be seen through it. Names are any text without NUL,
up to `MAX_NAME_BYTES`: a store encodes them, so that no name can reach out of its container.

Operations raise `BlobError` for what the interface calls an error, and `LatticeError` when the store fails.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from lattice.streams import ByteReceiver

MAX_NAME_BYTES = 1024
PAGE_LENGTH = 1000
"""At most so many names are listed at once."""

Case: TypeAlias = Literal["no-such-container", "no-such-object", "not-granted", "invalid", "quota-exceeded"]


class BlobError(Exception):
    """An error of the interface: which one, and in words."""

    def __init__(self, case: Case, text: str) -> None:
        super().__init__(text)
        self.case = case
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerInfo:
    """Times in seconds since the epoch."""

    name: str
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobInfo:
    """Times in seconds since the epoch, size in bytes."""

    name: str
    size: int
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some names in a container, and where to go on; an empty cursor means that these were the last."""

    names: tuple[str, ...]
    cursor: str = ""


class Bucket(Protocol):
    """One bucket. All but `create` raise `no-such-container` for a container that does not exist."""

    async def create(self, container: str) -> ContainerInfo:
        """Make a container; one that exists stays as it is."""

    async def info(self, container: str) -> ContainerInfo:
        """What is known of a container."""

    async def delete(self, container: str) -> None:
        """Delete a container and all that is in it."""

    async def clear(self, container: str) -> None:
        """Delete all objects of a container."""

    async def page(self, container: str, cursor: str = "", limit: int = PAGE_LENGTH) -> Page:
        """Names in a container from a cursor on, in no order; what changes meanwhile may be missed."""

    async def stat(self, container: str, name: str) -> BlobInfo:
        """What is known of an object; raises `no-such-object`."""

    async def read(
        self, container: str, name: str, start: int = 0, end: int | None = None
    ) -> tuple[BlobInfo, ByteReceiver]:
        """An object's bytes from `start` to before `end`; raises `no-such-object`. Close the stream."""

    async def write(self, container: str, name: str, chunks: AsyncIterable[bytes]) -> BlobInfo:
        """Store an object, or replace one; nothing is visible before the last byte was stored.

        What `chunks` raises is raised, and nothing was changed. Holds a bounded number of chunks.
        """

    async def remove(self, container: str, name: str) -> None:
        """Delete an object if it exists."""

    async def copy(self, source: tuple[str, str], target: tuple[str, str]) -> None:
        """Copy from (container, name) to (container, name); replaces what is there."""

    async def move(self, source: tuple[str, str], target: tuple[str, str]) -> None:
        """The same, and the source is gone once the target is there."""


class Store(Protocol):
    """A backend: all its buckets."""

    async def start(self) -> None:
        """Get ready; raises what is wrong."""

    async def check(self) -> None:
        """Raises what is wrong with the backend."""

    async def aclose(self) -> None:
        """Release everything."""

    def bucket(self, name: str) -> Bucket:
        """A bucket; it exists without being made."""


def check_container(name: str) -> str:
    """The name, or `invalid`."""
    return _check(name, "container")


def check_object(name: str) -> str:
    """The name, or `invalid`."""
    return _check(name, "object")


def check_range(start: int, end: int | None, size: int) -> tuple[int, int]:
    """The range as far as there are bytes. Raises `invalid` for one that begins behind the end."""
    stop = size if end is None else min(end, size)
    if start > size or (start == size and size > 0):
        raise BlobError("invalid", f"the range begins at {start}, but the object has {size} bytes")
    return start, max(start, stop)


def no_container(name: str) -> BlobError:
    return BlobError("no-such-container", f"there is no container {name!r}")


def no_object(container: str, name: str) -> BlobError:
    return BlobError("no-such-object", f"there is no object {name!r} in container {container!r}")


def _check(name: str, what: str) -> str:
    if not name or "\0" in name:
        raise BlobError("invalid", f"{what} name {name!r} is not valid: it must have text and no NUL")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise BlobError("invalid", f"the {what} name {name[:40]!r}... has more than {MAX_NAME_BYTES} bytes")
    return name
