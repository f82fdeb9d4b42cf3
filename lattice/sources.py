"""Byte streams that are pulled from where the bytes lie: whoever receives sets the pace."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Mapping

import anyio

from lattice.errors import LatticeError
from lattice.streams import Receiving


class Source(Receiving):
    """A `ByteReceiver` over something that is read piece by piece: fill in `_pull`, and `_release`."""

    # The mutable state is what broke it, and whether it is over.

    def __init__(self) -> None:
        self._error: LatticeError | None = None
        self._is_over = False

    @abstractmethod
    async def _pull(self) -> bytes:
        """The next bytes; none at the end."""

    async def _release(self) -> None:
        """Free what it holds; called once, at the end or when it is left early."""

    @property
    def trailers(self) -> Mapping[str, str]:
        return {}

    async def receive(self) -> bytes:
        if self._error is not None:
            raise self._error
        if self._is_over:
            raise anyio.EndOfStream
        try:
            data = await self._pull()
        except LatticeError as error:
            self._error = error
            raise
        if not data:
            await self.aclose()
            raise anyio.EndOfStream
        return data

    def abort(self, error: LatticeError) -> None:
        self._error = self._error or error

    async def aclose(self) -> None:
        if not self._is_over:
            self._is_over = True
            with anyio.CancelScope(shield=True):
                await self._release()


class BytesSource(Source):
    """Bytes that are there already, as one stream."""

    def __init__(self, data: bytes, piece_bytes: int = 64 * 1024) -> None:
        super().__init__()
        self._data = data
        self._piece_bytes = piece_bytes
        self._position = 0

    async def _pull(self) -> bytes:
        piece = self._data[self._position : self._position + self._piece_bytes]
        self._position += len(piece)
        return piece


async def rechunked(chunks: AsyncIterable[bytes], size: int) -> AsyncGenerator[bytes]:
    """The same bytes in chunks of `size`; only the last one may be shorter, and none is empty."""
    held = bytearray()
    async for chunk in chunks:
        held += chunk
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)
