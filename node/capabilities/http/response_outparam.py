"""The resource `response-outparam`: where a guest puts its response, or why there is none."""

from __future__ import annotations

import anyio

from lattice.errors import LatticeError
from node.capabilities.http.messages import OutgoingResponse


class ResponseOutparam:
    """Set once, by the guest or, when it ended without, by the host."""

    # The mutable state: what was set, and whether anything was.

    def __init__(self) -> None:
        self.response: OutgoingResponse | None = None
        self.error: LatticeError | None = None
        self._is_set = anyio.Event()

    @property
    def is_set(self) -> bool:
        return self._is_set.is_set()

    def set(self, response: OutgoingResponse) -> None:
        """The guest's response; its body may still be being written."""
        self.response = response
        self._is_set.set()

    def refuse(self, error: LatticeError) -> None:
        """There will be no response; does nothing if there is one."""
        if not self.is_set:
            self.error = error
            self._is_set.set()

    async def wait(self) -> OutgoingResponse:
        """The response, as soon as it is set; raises why there is none."""
        await self._is_set.wait()
        if self.error is not None:
            raise self.error
        assert self.response is not None
        return self.response
