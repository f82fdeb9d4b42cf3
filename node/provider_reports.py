"""What a node tells of providers when asked: `get.providers` and `describe.provider`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import anyio

from lattice import subjects, wire
from lattice.bus import Bus
from lattice.errors import LatticeError, NotFound
from lattice.inventory import Offer
from lattice.model import Link
from lattice.names import did_you_mean
from lattice.observed import NodeView
from lattice.observer import Observer
from providers.hosting import DESCRIPTION, taken_name

DESCRIBE_SECONDS = 1.0

Offered = Mapping[str, tuple[NodeView, Offer]]
"""A provider's offers by node."""


class ProviderReports:
    """Reads the observer's state; asks the processes that offer a provider for its figures."""

    def __init__(self, bus: Bus, lattice: str, observer: Observer) -> None:
        self._bus = bus
        self._lattice = lattice
        self._observer = observer

    def table(self) -> dict[str, Any]:
        """Every operation by its name on the wire."""
        return {"get.providers": self.get_providers, "describe.provider": self.describe_provider}

    async def get_providers(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """All providers that any living node offers."""
        offers = self._observer.state.observed.offers
        return {"providers": [self._provider(name, offers[name]) for name in sorted(offers)]}

    async def describe_provider(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One provider: where it is offered, with which figures, and who is linked to it."""
        name = str(request.get("provider", ""))
        offers = self._observer.state.observed.offers
        if name not in offers:
            raise NotFound(f"no node offers a provider {name!r}{did_you_mean(name, offers)}")
        found = self._provider(name, offers[name])
        answers: dict[str, Mapping[str, Any]] = {}
        async with anyio.create_task_group() as tasks:
            for node in offers[name]:
                tasks.start_soon(self._ask, node, name, answers)
        exports: Any = next((answer["exports"] for answer in answers.values() if answer.get("exports")), [])
        for place in found["nodes"]:
            place["statistics"] = answers.get(place["node"], {}).get("statistics", {})
            if place["node"] not in answers and place["is_healthy"]:
                place["reason"] = "it does not answer at the moment"
        return {"provider": {**found, "exports": exports, "links": self._links(name)}}

    def _provider(self, name: str, offered: Offered) -> dict[str, Any]:
        if name in self._observer.state.desired.components:  # whatever the nodes that offer it say
            offered = {
                node: (view, replace(offer, is_healthy=False, reason=taken_name(name)))
                for node, (view, offer) in offered.items()
            }
        offers = [offer for _, offer in offered.values()]
        nodes = sorted(offered.values(), key=lambda item: (item[0].name, item[0].id))
        return {
            "name": name,
            "kind": ", ".join(sorted({offer.kind for offer in offers})),
            "interfaces": sorted({interface for offer in offers for interface in offer.interfaces}),
            "is_healthy": any(offer.is_healthy for offer in offers),
            "linked": len(self._links(name)),
            "nodes": [
                {
                    "node": view.id,
                    "node_name": view.name,
                    "is_healthy": offer.is_healthy,
                    "reason": offer.reason or None,
                }
                for view, offer in nodes
            ],
        }

    def _links(self, provider: str) -> list[dict[str, Any]]:
        return [
            {"source": link.source, "interface": link.interface, "name": link.name}
            for link in self._all_links()
            if link.target == provider
        ]

    def _all_links(self) -> Iterable[Link]:
        state = self._observer.state
        for application in state.desired.applications.values():
            yield from application.links
        yield from state.observed.all_job_links()

    async def _ask(self, node: str, provider: str, answers: dict[str, Mapping[str, Any]]) -> None:
        subject = subjects.node_call(self._lattice, node, provider, DESCRIPTION, "describe")
        headers = wire.CallHeaders(hops=1, budget_ms=int(DESCRIBE_SECONDS * 1000))
        try:
            reply = await self._bus.request(
                subject, b"", headers=wire.encode_headers(headers), timeout_seconds=DESCRIBE_SECONDS
            )
            if wire.decode_error(reply.headers, reply.data) is None:
                answers[node] = wire.decode_message(reply.data)
        except LatticeError:
            return  # its figures are left out; that it is silent is seen elsewhere
