"""`latticectl describe`: one component, provider or node in full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ctl.command import command, session_of
from ctl.commands.provider import provider_text
from ctl.names import complete_any
from ctl.output import fields_text, visible
from ctl.session import Session
from lattice.quantities import duration_text, size_text

if TYPE_CHECKING:
    from ctl import models
    from ctl.client import ControlClient


@command()
@click.argument("name", metavar="COMPONENT|PROVIDER|NODE", shell_complete=complete_any)
@session_of
def describe(session: Session, name: str) -> None:
    """Show a component, a provider or a node in full.

    Of a component: its functions, limits, links, where its replicas are, why some are pending or failed, and
    which nodes are ready to take over. Of a provider: where it is offered, and who is linked to it. Of a node
    (by its name, its id or a beginning of it): what it runs.

    \b
    Examples:
      latticectl describe greeter
      latticectl describe keyvalue-nats
      latticectl describe node-1 --output json
    """
    from ctl.models import ComponentDescription, ProviderDescription

    async def run(
        client: ControlClient,
    ) -> models.ComponentDescription | models.ProviderDescription | models.NodeDescription:
        return await client.describe(name)

    found = session.run(run)
    if isinstance(found, ComponentDescription):
        session.output.item(found, lambda: component_text(found))
    elif isinstance(found, ProviderDescription):
        session.output.item(found, lambda: provider_text(found))
    else:
        session.output.item(found, lambda: node_text(found))


def component_text(component: models.ComponentDescription) -> str:
    """The component for people, in sections."""
    counts = component.replicas
    head = fields_text(
        [
            ("component", component.name),
            ("state", component.state),
            ("reason", component.reason),
            ("replicas", _counts_text(counts)),
            ("generation", component.generation),
            ("revision", component.revision),
            ("digest", component.digest),
            ("size", size_text(component.size)),
            ("labels", component.labels),
            ("limits", quantities(component.limits)),
            ("settings", component.settings),
            ("ready to take over", component.ready_to_take_over),
        ]
    )
    return "\n".join(
        [head, *_placements(component), *_triggers(component), *_grants(component), *_interfaces(component)]
    )


def node_text(node: models.NodeDescription) -> str:
    """The node for people, in sections."""
    head = fields_text(
        [
            ("node", node.name),
            ("id", node.id),
            ("state", node.state),
            ("controller", node.is_controller),
            ("replicas", f"{node.replicas} of {node.capacity}"),
            ("load", node.load),
            ("calls in flight", node.calls_in_flight),
            ("memory", size_text(node.memory_bytes)),
            ("up", duration_text(node.uptime_seconds)),
            ("version", node.version),
            ("address", node.address),
            ("labels", node.labels),
            ("compiled", [digest.removeprefix("sha256:")[:12] for digest in node.compiled]),
            *_counters(node.statistics),
        ]
    )
    components = [f"  {visible(_runs_text(component))}" for component in node.components]
    return "\n".join([head, *_section("components", components)])


def _counters(statistics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The node's own counters; those of its components are in `get replicas`."""
    return [(name, value) for name, value in statistics.items() if not isinstance(value, Mapping)]


def _runs_text(component: Mapping[str, Any]) -> str:
    name, count, running, state = (component.get(key) for key in ("component", "count", "running", "state"))
    reason = f": {component['reason']}" if component.get("reason") else ""
    shown = "" if state == "running" else f", {state}"
    return f"{name}  {running} of {count} running{shown}{reason}"


def quantities(values: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes and durations with units instead of in their names: `memory=64.0 MiB` for `memory_bytes`."""
    shown: dict[str, Any] = {}
    for name, value in values.items():
        if name.endswith("_bytes"):
            shown[name.removesuffix("_bytes")] = size_text(value)
        elif name.endswith("_seconds"):
            shown[name.removesuffix("_seconds")] = duration_text(value)
        else:
            shown[name] = value
    return shown


def _counts_text(counts: models.ReplicaCounts) -> str:
    others = [
        f"{count} {word}"
        for word, count in (("starting", counts.starting), ("failed", counts.failed))
        if count
    ]
    return ", ".join([f"{counts.running} of {counts.desired} running", *others])


def _placements(component: models.ComponentDescription) -> list[str]:
    lines = [
        f"  {place.node_name or place.node[:8]}  {place.running} of {place.count} running"
        + (f", {place.state}" if place.state != "running" else "")
        + (f": {visible(place.reason)}" if place.reason else "")
        for place in component.placements
    ]
    lines += [f"  {pending.count} pending: {visible(pending.reason)}" for pending in component.pending]
    return _section("placements", lines)


def _links(component: models.ComponentDescription) -> list[str]:
    lines = [
        f"  {link.interface} -> {link.target}  {link.route}"
        + ("" if link.name == "default" else f"  (name {link.name})")
        for link in component.links
    ]
    return _section("links", lines)


def _triggers(component: models.ComponentDescription) -> list[str]:
    lines = [
        f"  {trigger.kind} {trigger.name}"
        + "".join(f"  {key}={visible(value)}" for key, value in sorted(trigger.configuration.items()))
        for trigger in component.triggers
    ]
    return _section("triggers", lines)


_ROUTES = {"built-in": "this node", "local": "this node", "remote": "another node"}


def _grants(component: models.ComponentDescription) -> list[str]:
    """Where each import goes; links as they are, where no node has described the component yet."""
    if not component.grants:
        return _links(component)
    return _section("imports", [f"  {visible(_grant_text(grant))}" for grant in component.grants])


def _grant_text(grant: models.Grant) -> str:
    target = f" -> {grant.target}" if grant.target else ""
    name = f" (name {grant.name})" if grant.name not in ("", "default") else ""
    granted = f": {grant.granted}" if grant.granted else ""
    reason = f" ({grant.reason})" if grant.reason else ""
    return f"{grant.interface}{target}{name}  {_ROUTES.get(grant.route, grant.route)}{reason}{granted}"


def _interfaces(component: models.ComponentDescription) -> list[str]:
    if not component.type:
        return []
    from ctl.interfaces import component_text as interfaces_text
    from lattice.wit import component_type_from_json

    type_ = component_type_from_json(component.type)
    if component.grants:
        type_ = replace(type_, imports={})  # shown with where they go
    text = interfaces_text(type_, imports_in_full=False)
    return _section("interfaces", [f"  {line}" for line in text.splitlines()])


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", f"{title}:", *lines] if lines else []
