"""A guest's links that lead straight to providers, without a lattice between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lattice.clock import now
from lattice.errors import Denied, Failed
from lattice.exchange import Exchange
from lattice.streams import ByteReceiver
from node.capabilities.bus.selection import selected
from node.engine.host import GuestCall
from providers.provider import BoundLink, Provider, ProviderCall, Streamed


@dataclass
class _Link:
    provider: Provider
    link: BoundLink
    binding: Any


class ProviderLinks:
    """`node.links.Links` of one component, as far as capabilities use it."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}
        self.calls: list[tuple[str, str]] = []

    async def add(self, provider: Provider, name: str = "default", **configuration: str) -> None:
        """Link to a provider."""
        link = BoundLink(source="guest", name=name, interface="wasi:blobstore", configuration=configuration)
        self._links[name] = _Link(provider, link, await provider.bind(link))

    def remove(self, name: str) -> None:
        """Take a link away."""
        del self._links[name]

    def names(self, source: str, interface: str) -> list[str]:
        return list(self._links)

    async def call(self, call: GuestCall, **request: Any) -> Any:
        value = await self._run(call, None, **request)
        assert not isinstance(value, Streamed)
        return value

    async def exchange(
        self, call: GuestCall, *, body: ByteReceiver | None = None, **request: Any
    ) -> Exchange:
        try:
            value = await self._run(call, body, **request)
        finally:
            if body is not None:
                await body.aclose()
        return Exchange(value.value, value.body) if isinstance(value, Streamed) else Exchange(value)

    async def _run(
        self,
        call: GuestCall,
        body: ByteReceiver | None,
        *,
        interface: str,
        function: tuple[str, str],
        args: Sequence[Any],
        name: str | None = None,
        idempotent: bool = False,
    ) -> Any:
        chosen = name or selected(call, interface)
        if chosen not in self._links:
            raise Denied(f"no link {chosen!r}")
        found = self._links[chosen]
        self.calls.append((chosen, function[1]))
        provider_call = ProviderCall(
            link=found.link, binding=found.binding, call_id="1", deadline=now() + 10, body=body
        )
        run = found.provider.interfaces.get(function[0], {}).get(function[1])
        if run is None:
            raise Failed(f"no function {function}")
        return await run(provider_call, *args)
