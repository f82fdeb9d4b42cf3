"""What calls can be served by within this node: its replicas, its providers, and services of its own.

Components and providers share one namespace. A service, such as HTTP or jobs, is called with streams and
known by its interface, whichever component the call names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from typing import Any

from lattice.caller import CallBatch, CallRequest, LocalReplicas, Reply
from lattice.exchange import Exchange, ExchangeTarget
from lattice.model import unversioned
from lattice.outcome import Outcome
from lattice.streams import ByteReceiver


class Targets:
    """`lattice.caller.LocalReplicas` over all of them; the mutable state is which services there are."""

    def __init__(
        self,
        replicas: LocalReplicas,
        services: Mapping[str, ExchangeTarget],
        providers: LocalReplicas | None = None,
    ) -> None:
        """`services` by the interface, without a version, that they serve instead of the component."""
        self._replicas = replicas
        self._providers = providers
        self._services = dict(services)

    def add(self, interface: str, service: ExchangeTarget) -> None:
        """Serve calls of the interface by this."""
        self._services[interface] = service

    def serves(self, component: str) -> bool:
        """Whether a replica or provider of that name takes calls here now."""
        providers = self._providers
        return self._replicas.serves(component) or (providers is not None and providers.serves(component))

    def begin(self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any]) -> Outcome[Any]:
        """Call with values."""
        return self._of(request.component).begin(request, args)

    def begin_batch(self, batch: CallBatch) -> Awaitable[list[Outcome[Any]]] | None:
        """Have a replica make calls one after the other, if it can."""
        return self._of(batch.component).begin_batch(batch)

    async def call_encoded(self, request: CallRequest, body: bytes, content_type: str) -> Reply:
        """Call with encoded arguments; the reply has the same encoding."""
        return await self._of(request.component).call_encoded(request, body, content_type)

    def exchange(
        self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any], body: ByteReceiver | None
    ) -> Coroutine[Any, Any, Exchange]:
        """Call with byte streams beside arguments and value."""
        target = self._services.get(unversioned(request.interface)) or self._of(request.component)
        return target.exchange(request, args, body)

    def _of(self, component: str) -> LocalReplicas:
        """Whom to ask, and who says that there is nothing: the replicas, unless a provider has the name."""
        if self._providers is not None and self._providers.serves(component):
            return self._providers
        return self._replicas
