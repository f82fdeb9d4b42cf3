"""A byte stream that keeps what it needs until it has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import anyio

from lattice.errors import LatticeError
from lattice.streams import ByteReceiver


class HeldBody:
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

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
