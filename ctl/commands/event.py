"""`latticectl events`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from ctl.command import command, session_of
from ctl.output import cell_text, visible
from ctl.session import Session

if TYPE_CHECKING:
    from ctl.client import ControlClient
    from ctl.models import Event

LISTEN_SECONDS = 10.0


@command()
@click.option("--follow", is_flag=True, help="Go on until interrupted.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many events.")
@session_of
def events(session: Session, follow: bool, count: int | None) -> None:
    """Print what happens in the lattice, as it happens.

    Events are not stored: it listens from now on, for as long as --timeout says (10s unless given), until
    --count events have come, or, with --follow, until interrupted. As JSON it prints one object a line.

    \b
    Examples:
      latticectl events --follow
      latticectl events --count 1 --timeout 1m --output json
    """
    seconds = None if follow else session.timeout_or(LISTEN_SECONDS)

    async def run(client: ControlClient) -> None:
        await _print_events(session, client, seconds, count)

    session.run(run)


async def _print_events(
    session: Session, client: ControlClient, seconds: float | None, count: int | None
) -> None:
    import anyio

    seen = missed = 0
    client.on_connection_change(session.output.tell_connection)
    async with client.events() as stream:
        with anyio.move_on_after(seconds):
            async for event in stream:
                session.output.stream_item(event, event_text(event))
                seen += 1
                if seen == count:
                    return
                if stream.dropped > missed:
                    session.output.warn(f"{stream.dropped - missed} events came too fast and are missing")
                    missed = stream.dropped


def event_text(event: Event) -> str:
    """The event on one line."""
    clock = time.strftime("%H:%M:%S", time.localtime(event.time)) + f".{int(event.time % 1 * 1000):03d}"
    subject = [part for part in (event.component, event.node_name or event.node) if part]
    details = [f"{name}={cell_text(value)}" for name, value in event.details.items()]
    return visible("  ".join([clock, f"{event.event:<20}", *subject, *details])).rstrip()
