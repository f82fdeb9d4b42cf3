"""`latticectl route put|delete`: which HTTP requests go to which component."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ctl.command import Group, command, session_of
from ctl.names import complete_component
from ctl.parameters import NAME, ROUTE
from ctl.session import Session
from lattice.errors import Invalid
from lattice.routes import route_configuration, route_name, route_of, route_text

if TYPE_CHECKING:
    from ctl import models
    from ctl.client import ControlClient

KIND = "http"

_route = click.argument("route", type=ROUTE, metavar="HOST/PREFIX")
_component = click.argument("component", type=NAME, shell_complete=complete_component)


@click.group(cls=Group)
def route() -> None:
    """Send HTTP requests to a component, or no longer.

    Every node that listens (`lattice-node start --http ADDRESS:PORT`) serves all routes, wherever the
    component runs. `latticectl get routes` lists them.

    \b
    Examples:
      latticectl route put shop.example.org/ shop
      latticectl route put /api stock
    """


@command()
@_route
@_component
@session_of
def put(session: Session, route: tuple[str, str], component: str) -> None:
    """Send requests for HOST, below the path /PREFIX, to COMPONENT.

    HOST is a name, `*.DOMAIN`, or nothing for any. An exact host wins over `*.DOMAIN`, that over none; then
    the longest prefix wins. COMPONENT must export wasi:http/incoming-handler.

    \b
    Examples:
      latticectl route put shop.example.org/ shop
      latticectl route put *.example.org/api stock
      latticectl route put / shop
    """

    async def run(client: ControlClient) -> tuple[list[str], models.TriggerChange, str | None]:
        others = [each.component for each in await client.triggers(kind=KIND) if _is(each, route)]
        change = await client.put_trigger(
            component, KIND, route_configuration(*route), name=route_name(*route)
        )
        return others, change, await client.missing(component)

    others, change, missing = session.run(run)
    if missing is not None:
        session.output.warn(missing)
    for other in others:
        if other != component:
            session.output.warn(f"`{other}` has this route too: the older application's is in force")
    verb = "goes" if change.changed else "went already"
    session.output.say(f"{route_text(*route)} {verb} to `{component}`")
    session.output.item(change, None)


@command()
@_route
@_component
@session_of
def delete(session: Session, route: tuple[str, str], component: str) -> None:
    """Send no more requests for HOST, below /PREFIX, to COMPONENT.

    \b
    Examples:
      latticectl route delete shop.example.org/ shop
    """

    async def run(client: ControlClient) -> models.TriggerChange:
        return await client.delete_trigger(component, KIND, name=route_name(*route))

    change = session.run(run)
    verb = "goes no longer" if change.changed else "did not go"
    session.output.say(f"{route_text(*route)} {verb} to `{component}`")
    session.output.item(change, None)


def _is(trigger: models.Trigger, route: tuple[str, str]) -> bool:
    try:
        return route_of(trigger.configuration) == route
    except Invalid:
        return False


for _command in (put, delete):
    route.add_command(_command)
