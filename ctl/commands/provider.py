"""`latticectl get providers`, and what `describe` shows of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ctl.command import command, session_of
from ctl.output import Column, fields_text, visible
from ctl.session import Session

if TYPE_CHECKING:
    from ctl import models
    from ctl.client import ControlClient

PROVIDER_COLUMNS: list[Column[models.Provider]] = [
    ("NAME", lambda provider: provider.name),
    ("KIND", lambda provider: provider.kind),
    ("STATE", lambda provider: "healthy" if provider.is_healthy else "unhealthy"),
    ("NODES", lambda provider: _nodes_text(provider)),
    ("LINKED", lambda provider: provider.linked),
    ("INTERFACES", lambda provider: provider.interfaces),
    ("REASON", lambda provider: _reason(provider)),
]


@command()
@session_of
def providers(session: Session) -> None:
    """List the providers that nodes and processes offer.

    NODES says how many of those that offer one can be called now, REASON why others can't.

    \b
    Examples:
      latticectl get providers
      latticectl get providers --output jsonl | jq -r 'select(.is_healthy | not) | .name'
    """

    async def run(client: ControlClient) -> list[models.Provider]:
        return await client.providers()

    session.output.items(session.run(run), PROVIDER_COLUMNS, empty="no node offers a provider")


def provider_text(provider: models.ProviderDescription) -> str:
    """The provider for people, in sections."""
    head = fields_text(
        [
            ("provider", provider.name),
            ("kind", provider.kind),
            ("state", "healthy" if provider.is_healthy else "unhealthy"),
            ("interfaces", provider.interfaces),
        ]
    )
    lines = [head, "", "nodes:", *(f"  {visible(_place_text(place))}" for place in provider.nodes)]
    if provider.links:
        lines += ["", "links:", *(f"  {_link_text(link)}" for link in provider.links)]
    return "\n".join([*lines, *_functions(provider)])


def _functions(provider: models.ProviderDescription) -> list[str]:
    if not provider.exports:
        return []
    from ctl.interfaces import component_text
    from lattice.wit import component_type_from_json

    text = component_text(component_type_from_json({"imports": [], "exports": list(provider.exports)}))
    return ["", "interfaces:", *(f"  {line}" for line in text.splitlines())]


def _nodes_text(provider: models.Provider) -> str:
    return f"{sum(place.is_healthy for place in provider.nodes)}/{len(provider.nodes)}"


def _reason(provider: models.Provider) -> str | None:
    return next((place.reason for place in provider.nodes if place.reason), None)


def _place_text(place: models.OfferPlace) -> str:
    state = "healthy" if place.is_healthy else "unhealthy"
    state += f": {place.reason}" if place.reason else ""
    figures = {key: value for key, value in place.statistics.items() if key != "busy_seconds" and value}
    shown = "".join(f"  {key.replace('_', ' ')} {_figure(value)}" for key, value in figures.items())
    return f"{place.node_name or place.node[:8]}  {state}{shown}"


def _figure(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {count}" for key, count in value.items())
    return str(value)


def _link_text(link: Mapping[str, Any]) -> str:
    name = "" if link.get("name") == "default" else f"  (name {link.get('name')})"
    return f"{link.get('source')} {link.get('interface')}{name}"
