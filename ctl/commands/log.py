"""`latticectl logs`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from ctl.arguments import component_argument
from ctl.command import command, session_of
from ctl.output import visible
from ctl.session import Session

if TYPE_CHECKING:
    from ctl.client import ControlClient
    from ctl.models import LogLine

MAX_LINES = 10_000
LEVELS = ("trace", "debug", "info", "warn", "error", "critical")


@command()
@component_argument()
@click.option("--follow", is_flag=True, help="Go on with new lines until interrupted.")
@click.option(
    "--lines",
    type=click.IntRange(0, MAX_LINES),
    default=100,
    show_default=True,
    metavar="N",
    help="Last lines.",
)
@click.option(
    "--level", type=click.Choice(LEVELS), help="Only messages of `wasi:logging` from this level up."
)
@session_of
def logs(session: Session, component: str, follow: bool, lines: int, level: str | None) -> None:
    """Print what a component wrote, from all nodes that ran it.

    People see its lines with time, node and stream or level; as JSON it prints one object a line.

    \b
    Examples:
      latticectl logs greeter --lines 20
      latticectl logs greeter --follow
      latticectl logs greeter --level warn
    """

    async def run(client: ControlClient) -> None:
        if follow:
            await _follow(session, client, component, lines, level)
        else:
            found = await client.log_lines(component, lines)
            _print_lines(session, found, level)
            if not found:
                session.output.say(f"`{component}` has written nothing so far")

    session.run(run)


async def _follow(
    session: Session, client: ControlClient, component: str, lines: int, level: str | None
) -> None:
    missed = 0
    client.on_connection_change(session.output.tell_connection)
    async with client.follow_log(component) as stream:  # before the past ones are asked for: none is missed
        past = await client.log_lines(component, lines)
        _print_lines(session, past, level)
        printed = set(past[-MAX_LINES:])
        async for line in stream:
            if line not in printed:
                _print_lines(session, [line], level)
            if stream.dropped > missed:
                session.output.warn(f"{stream.dropped - missed} lines came too fast and are missing")
                missed = stream.dropped


def _print_lines(session: Session, lines: list[LogLine], level: str | None) -> None:
    for line in lines:
        if level is not None and line.stream not in LEVELS[LEVELS.index(level) :]:
            continue
        session.output.stream_item(line, line_text(line))


def line_text(line: LogLine) -> str:
    """The line with where it comes from in front."""
    clock = time.strftime("%H:%M:%S", time.localtime(line.time)) + f".{int(line.time % 1 * 1000):03d}"
    context = f"[{visible(line.context)}] " if line.context else ""
    return f"{clock}  {line.node[:12]}  {line.stream}  {context}{visible(line.text, keep=chr(9))}"
