"""`latticectl link put|delete|get`: which component answers which import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ctl.arguments import configuration_options
from ctl.command import Group, command, session_of
from ctl.names import complete_component
from ctl.output import Column
from ctl.parameters import NAME
from ctl.session import Session

if TYPE_CHECKING:
    from ctl import models
    from ctl.client import ControlClient

LINK_COLUMNS: list[Column[models.Link]] = [
    ("SOURCE", lambda link: link.source),
    ("INTERFACE", lambda link: link.interface),
    ("NAME", lambda link: link.name),
    ("TARGET", lambda link: link.target),
    ("ROUTE", lambda link: link.route),
    ("IDEMPOTENT", lambda link: link.idempotent),
    ("CONFIGURATION", lambda link: _settings(link)),
]

_source = click.argument("source", type=NAME, shell_complete=complete_component)
_interface = click.argument("interface")
_name = click.option(
    "--name", type=NAME, default="default", show_default=True, metavar="NAME", help="Name of the link."
)


@click.group(cls=Group)
def link() -> None:
    """Link a component's import to the component or provider that answers it, or take the link away.

    A component gets what it is linked to and nothing else.

    \b
    Examples:
      latticectl link put shop demo:stock/items stock
      latticectl link get shop
    """


@command()
@_source
@_interface
@click.argument("target", type=NAME, shell_complete=complete_component)
@_name
@click.option(
    "--idempotent", is_flag=True, help="Calls over it may be repeated when a node dies during them."
)
@configuration_options("the provider")
@session_of
def put(session: Session, /, source: str, interface: str, target: str, **options: Any) -> None:
    """Let TARGET, a component or provider, answer what SOURCE imports as INTERFACE.

    INTERFACE may be a whole package, such as wasi:keyvalue. Refused when the types do not fit. Calls stay in
    the process when both are on one node. A change takes effect on the next call.

    \b
    Examples:
      latticectl link put shop demo:stock/items stock
      latticectl link put shop demo:stock/items stock --name overseas --idempotent
      latticectl link put shop wasi:keyvalue keyvalue-nats --config bucket=orders
    """
    options |= {key: dict(options[key]) for key in ("configuration", "secrets")}

    async def run(client: ControlClient) -> models.LinkChange:
        return await client.put_link(source, interface, target, **options)

    change = session.run(run)
    verb = "is linked" if change.changed else "was linked already"
    session.output.say(f"`{source}` {verb} to `{target}` for {interface}")
    for warning in change.warnings:
        session.output.warn(warning)
    session.output.item(change, None)


@command()
@_source
@_interface
@_name
@session_of
def delete(session: Session, source: str, interface: str, name: str) -> None:
    """Take the link of SOURCE for INTERFACE away.

    \b
    Examples:
      latticectl link delete shop demo:stock/items
    """

    async def run(client: ControlClient) -> models.LinkChange:
        return await client.delete_link(source, interface, name=name)

    change = session.run(run)
    verb = "is no longer linked" if change.changed else "was not linked"
    session.output.say(f"`{source}` {verb} for {interface}")
    session.output.item(change, None)


@command()
@click.argument("source", type=NAME, required=False, shell_complete=complete_component)
@session_of
def get(session: Session, source: str | None) -> None:
    """List the links of SOURCE, or all, and where each goes now.

    \b
    Examples:
      latticectl link get
      latticectl link get shop --output json
    """

    async def run(client: ControlClient) -> list[models.Link]:
        return await client.links(source)

    empty = "there are no links; `latticectl link put SOURCE INTERFACE TARGET` makes one"
    session.output.items(session.run(run), LINK_COLUMNS, empty=empty)


def _settings(link: models.Link) -> list[str]:
    """All that the provider is told; of a secret its name."""
    found = [f"{key}={value}" for key, value in link.configuration.items()]
    found += [f"configuration {name}" for name in link.configuration_from]
    return [*found, *(f"secret {name} as {key}" for key, name in link.secrets.items())]


for _command in (put, delete, get):
    link.add_command(_command)
