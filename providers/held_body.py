"""A byte stream that keeps what it needs until it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack

import anyio

from lattice.errors import LatticeError
from lattice.streams import ByteReceiver, Receiving


class HeldBody(Receiving):
    """A `ByteReceiver`; `held`, which closes the stream as well, is closed at its end."""

    def __init__(self, body: ByteReceiver, held: AsyncExitStack) -> None:
        self._body = body
        self._held = held

    @property
    def trailers(self) -> Mapping[str, str]:
        return self._body.trailers

    async def receive(self) -> bytes:
        try:
            return await self._body.receive()
        except anyio.EndOfStream:
            await self._held.aclose()
            raise
        except LatticeError:
            await self._held.aclose()
            raise

    def abort(self, error: LatticeError) -> None:
        self._body.abort(error)

    async def aclose(self) -> None:
        await self._held.aclose()
