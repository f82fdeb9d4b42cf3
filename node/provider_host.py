"""The providers that a node offers: those of every node, and what its operator configured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from lattice.bus import Bus
from lattice.inventory import Offer
from providers.bindings import LinkSettings, LinksOf
from providers.hosting import Providers
from providers.kinds import KINDS
from providers.registry import Kind, ProviderContext, ProviderSpec, offer_of, with_defaults


def make_providers(
    bus: Bus,
    lattice: str,
    configured: Sequence[ProviderSpec],
    *,
    links_of: LinksOf,
    wait_for_news: Callable[[], Awaitable[object]],
    on_change: Callable[[Sequence[Offer]], None],
    settings: LinkSettings | None = None,
    is_component: Callable[[str], bool] = lambda name: False,
    kinds: Mapping[str, Kind] = KINDS,
) -> Providers:
    """All providers of a node, none of them running. Raises `Invalid` for a setting that can't be."""

    def context(name: str) -> ProviderContext:
        return ProviderContext(name=name, lattice=lattice, bus=bus)

    return Providers(
        [offer_of(spec, kinds, context) for spec in with_defaults(configured, kinds)],
        links_of=links_of,
        wait_for_news=wait_for_news,
        settings=settings,
        on_change=on_change,
        is_component=is_component,
    )
