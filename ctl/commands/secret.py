"""`latticectl secret put|get|delete` and `latticectl get secrets`: values that only nodes can open."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ctl.command import Group, command, session_of
from ctl.output import Column, fields_text
from ctl.parameters import NAME
from ctl.session import Session
from lattice.errors import Invalid

if TYPE_CHECKING:
    from ctl import models
    from ctl.client import ControlClient
    from lattice.sealing import Secret

SECRET_COLUMNS: list[Column[models.SecretInfo]] = [
    ("NAME", lambda secret: secret.name),
    ("GENERATION", lambda secret: secret.generation or None),
    ("KIND", lambda secret: secret.kind),
    ("CHANGED", lambda secret: _time_text(secret.changed_at) if secret.changed_at else None),
    ("NODES", lambda secret: secret.nodes),
]

_name = click.argument("name", type=NAME)


@click.group(cls=Group)
def secret() -> None:
    """Secrets: sealed to the nodes before they leave this machine, and never shown again.

    A component reads those that it was granted, by a key of its own. A new value is seen by the next call.

    \b
    Examples:
      latticectl secret put db-password --from-file password.txt
      latticectl deploy shop.wasm --secret password=db-password
    """


@command()
@_name
@click.option(
    "--from-file",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Read the value from a file, or with - from the input. [default: asked for, or the input]",
)
@click.option("--binary", is_flag=True, help="Keep the value as bytes, exactly as it is read.")
@click.option(
    "--for",
    "nodes",
    multiple=True,
    metavar="NODE",
    help="Only this node may read it, and with provider:NAME the own processes of a provider; repeatable. "
    "[default: all]",
)
@click.option("--empty", is_flag=True, help="Take an empty value, which is refused otherwise.")
@session_of
def put(
    session: Session, name: str, file: Path | None, binary: bool, nodes: tuple[str, ...], empty: bool
) -> None:
    """Make the secret NAME, or give it a new value.

    The value is never an argument, which others on this machine could see. The last line end of a text is
    dropped.

    \b
    Examples:
      latticectl secret put db-password
      latticectl secret put session-key --from-file key.txt
      latticectl secret put certificate --from-file server.p12 --binary --for node-a
      latticectl secret put redis-password --for node-a --for provider:cache
    """
    value = _read(name, file, is_binary=binary)
    if not value.reveal() and not empty:
        raise click.UsageError(
            f"the value of secret {name!r} is empty: does what it is read from fail? "
            f"Give --empty to take it, or `latticectl secret delete {name}`"
        )

    async def run(client: ControlClient) -> models.SecretInfo:
        return await client.put_secret(name, value, nodes=nodes)

    found = session.run(run)
    session.output.say(f"secret `{name}` is sealed to {', '.join(found.nodes)}")
    session.output.item(found, None)


@command()
@_name
@session_of
def get(session: Session, name: str) -> None:
    """Print what may be known of the secret NAME; never its value.

    \b
    Examples:
      latticectl secret get db-password
    """

    async def run(client: ControlClient) -> models.SecretInfo:
        return await client.secret(name)

    found = session.run(run)
    fields = [(heading, value(found)) for heading, value in SECRET_COLUMNS]
    session.output.item(found, lambda: fields_text(fields))


@command()
@_name
@session_of
def delete(session: Session, name: str) -> None:
    """Delete the secret NAME; components that were granted it find none.

    \b
    Examples:
      latticectl secret delete db-password
    """

    async def run(client: ControlClient) -> models.SecretChange:
        return await client.delete_secret(name)

    change = session.run(run)
    session.output.say(f"secret `{name}` is deleted")
    session.output.item(change, None)


@command()
@session_of
def secrets(session: Session) -> None:
    """List the secrets; never their values. Those of one node (`env:`, `file:`) are local to it.

    \b
    Examples:
      latticectl get secrets
    """

    async def run(client: ControlClient) -> list[models.SecretInfo]:
        return await client.secrets()

    empty = "there are no secrets; `latticectl secret put NAME` makes one"
    session.output.items(session.run(run), SECRET_COLUMNS, empty=empty)


def _time_text(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _ask(name: str) -> str:
    answer: str = click.prompt(f"Value of {name}", hide_input=True, confirmation_prompt=True, err=True)
    return answer


def _read(name: str, file: Path | None, *, is_binary: bool) -> Secret:
    from lattice.sealing import Secret

    try:
        if file is not None and str(file) != "-":
            data = file.read_bytes()
        elif file is None and sys.stdin.isatty():
            data = _ask(name).encode()
        else:
            data = sys.stdin.buffer.read()
        return Secret(data if is_binary else data.decode().removesuffix("\n").removesuffix("\r"))
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise Invalid("the value is not text: give --binary to keep it as bytes") from None


for _command in (put, get, delete):
    secret.add_command(_command)
