"""`latticectl drain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctl.arguments import node_argument
from ctl.command import command, session_of
from ctl.session import Session

if TYPE_CHECKING:
    from ctl import models
    from ctl.client import ControlClient


@command()
@node_argument()
@session_of
def drain(session: Session, node: str) -> None:
    """Have a node hand over its replicas, finish its calls and leave the lattice.

    NODE is its name, its id or a unique beginning of the id. Returns when the node has drained.

    \b
    Examples:
      latticectl drain node-2
      latticectl drain NBX4 --timeout 5m
    """
    from ctl.client import DRAIN_SECONDS

    async def run(client: ControlClient) -> models.Drained:
        return await client.drain(node, timeout_seconds=session.timeout_or(DRAIN_SECONDS))

    drained = session.run(run)
    plural = "" if drained.moved == 1 else "s"
    session.output.say(f"`{node}` has drained; {drained.moved} replica{plural} moved to other nodes")
    session.output.item(drained, None)
