"""`latticectl config put|get|delete` and `latticectl get configs`: named configurations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ctl.command import Group, command, session_of
from ctl.output import Column, visible
from ctl.parameters import NAME, PAIR
from ctl.session import Session
from lattice.errors import Invalid

if TYPE_CHECKING:
    from ctl import models
    from ctl.client import ControlClient

CONFIG_COLUMNS: list[Column[models.Config]] = [
    ("NAME", lambda config: config.name),
    ("GENERATION", lambda config: config.generation),
    ("KEYS", lambda config: config.keys),
]

_name = click.argument("name", type=NAME)
_file = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Group)
def config() -> None:
    """Named configurations, which components and links are given by name.

    A change is seen by the next call; nothing is restarted. For what must not be read by others see
    `latticectl secret`.

    \b
    Examples:
      latticectl config put shop colour=red size=9
      latticectl deploy shop.wasm --config-from shop
    """


@command()
@_name
@click.argument("values", type=PAIR, nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--from-file",
    "files",
    type=PAIR,
    multiple=True,
    metavar="KEY=FILE",
    help="A value that is a file's text.",
)
@click.option(
    "--env-file", "env_files", type=_file, multiple=True, metavar="FILE", help="Values as lines KEY=VALUE."
)
@click.option("--merge", is_flag=True, help="Keep values of other keys.")
@click.option("--empty", is_flag=True, help="Leave no values.")
@session_of
def put(
    session: Session,
    name: str,
    values: tuple[tuple[str, str], ...],
    files: tuple[tuple[str, str], ...],
    env_files: tuple[Path, ...],
    merge: bool,
    empty: bool,
) -> None:
    """Make or replace the configuration NAME.

    Of a key that is given several times an argument counts before --from-file, and that before --env-file.

    \b
    Examples:
      latticectl config put shop colour=red size=9
      latticectl config put shop --env-file shop.env --from-file banner=banner.txt
      latticectl config put shop size=10 --merge
      latticectl config put shop --empty
    """
    from lattice.configuration_sources import parse_lines

    given: dict[str, str] = {}
    for file in env_files:
        given.update(parse_lines(_text(file), str(file)))
    given.update({key: _text(Path(path)) for key, path in files})
    given.update(values)
    _check_count(name, given, empty=empty, merge=merge)

    async def run(client: ControlClient) -> models.ConfigChange:
        return await client.put_config(name, given, merge=merge)

    change = session.run(run)
    values_text = "1 value" if len(change.keys) == 1 else f"{len(change.keys)} values"
    verb = f"has {values_text} now" if change.changed else "is as it was"
    session.output.say(f"configuration `{name}` {verb}")
    session.output.item(change, None)


@command()
@_name
@session_of
def get(session: Session, name: str) -> None:
    """Print the configuration NAME with its values.

    \b
    Examples:
      latticectl config get shop
      latticectl config get shop --output json
    """

    async def run(client: ControlClient) -> models.ConfigValues:
        return await client.config(name)

    found = session.run(run)
    lines = [f"{key}={visible(value)}" for key, value in sorted(found.values.items())]
    session.output.item(found, lambda: "\n".join(lines))


@command()
@_name
@session_of
def delete(session: Session, name: str) -> None:
    """Delete the configuration NAME; components that name it get an error.

    \b
    Examples:
      latticectl config delete shop
    """

    async def run(client: ControlClient) -> models.ConfigChange:
        return await client.delete_config(name)

    change = session.run(run)
    session.output.say(f"configuration `{name}` is deleted")
    session.output.item(change, None)


@command()
@session_of
def configs(session: Session) -> None:
    """List the named configurations.

    \b
    Examples:
      latticectl get configs
    """

    async def run(client: ControlClient) -> list[models.Config]:
        return await client.configs()

    empty = "there are no configurations; `latticectl config put NAME KEY=VALUE` makes one"
    session.output.items(session.run(run), CONFIG_COLUMNS, empty=empty)


def _check_count(name: str, given: Mapping[str, str], *, empty: bool, merge: bool) -> None:
    if empty and (given or merge):
        raise click.UsageError("--empty is for a configuration without values: give none, and no --merge")
    if not given and not empty:
        raise click.UsageError(
            f"no values are given for configuration {name!r}: give KEY=VALUE, or --empty to leave it "
            f"without any, or `latticectl config delete {name}`"
        )


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"cannot read {file} as text: {error}") from error


for _command in (put, get, delete):
    config.add_command(_command)
