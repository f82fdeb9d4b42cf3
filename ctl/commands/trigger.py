"""`latticectl trigger put|delete` and `latticectl get triggers`: what makes calls of components."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ctl.command import Group, command, session_of
from ctl.names import complete_component
from ctl.output import Column
from ctl.parameters import NAME, PAIR
from ctl.session import Session
from lattice.model import TriggerKind

if TYPE_CHECKING:
    from ctl import models
    from ctl.client import ControlClient

TRIGGER_COLUMNS: list[Column[models.Trigger]] = [
    ("COMPONENT", lambda trigger: trigger.component),
    ("KIND", lambda trigger: trigger.kind),
    ("NAME", lambda trigger: trigger.name),
    ("CONFIGURATION", lambda trigger: trigger.configuration),
]

_component = click.argument("component", type=NAME, shell_complete=complete_component)
_kind = click.argument("kind", type=click.Choice([kind.value for kind in TriggerKind]))
_name = click.option(
    "--name", type=NAME, default="default", show_default=True, metavar="NAME", help="Name of the trigger."
)


@click.group(cls=Group)
def trigger() -> None:
    """Have a component called when something happens: a time comes, a message, a request, a change.

    \b
    Examples:
      latticectl trigger put report cron schedule="0 6 * * MON" timezone=Europe/Berlin
      latticectl get triggers
    """


@command()
@_component
@_kind
@click.argument("configuration", type=PAIR, nargs=-1, metavar="[KEY=VALUE]...")
@_name
@session_of
def put(
    session: Session, component: str, kind: str, configuration: tuple[tuple[str, str], ...], name: str
) -> None:
    """Have COMPONENT called by a trigger of this KIND; of the same name it is replaced.

    \b
    Examples:
      latticectl trigger put report cron schedule="*/5 * * * *"
      latticectl trigger put report cron schedule="every 30s" delivery=at-least-once --name often
    """

    async def run(client: ControlClient) -> tuple[models.TriggerChange, str | None]:
        change = await client.put_trigger(component, kind, dict(configuration), name=name)
        return change, await client.missing(component)

    change, missing = session.run(run)
    if missing is not None:
        session.output.warn(missing)
    verb = "is set" if change.changed else "was set already"
    session.output.say(f"the {kind} trigger `{name}` of `{component}` {verb}")
    session.output.item(change, None)


@command()
@_component
@_kind
@_name
@session_of
def delete(session: Session, component: str, kind: str, name: str) -> None:
    """Take a trigger away; calls that it has made go on.

    \b
    Examples:
      latticectl trigger delete report cron --name often
    """

    async def run(client: ControlClient) -> models.TriggerChange:
        return await client.delete_trigger(component, kind, name=name)

    change = session.run(run)
    session.output.say(f"the {kind} trigger `{name}` of `{component}` is deleted")
    session.output.item(change, None)


@command()
@click.argument("component", type=NAME, required=False, shell_complete=complete_component)
@session_of
def triggers(session: Session, component: str | None) -> None:
    """List the triggers of one component, or all.

    \b
    Examples:
      latticectl get triggers
      latticectl get triggers report --output json
    """

    async def run(client: ControlClient) -> list[models.Trigger]:
        found = await client.triggers(component)
        return sorted(found, key=lambda trigger: (trigger.component, trigger.kind, trigger.name))

    empty = "there are no triggers; `latticectl trigger put COMPONENT KIND KEY=VALUE` makes one"
    session.output.items(session.run(run), TRIGGER_COLUMNS, empty=empty)


for _command in (put, delete):
    trigger.add_command(_command)
