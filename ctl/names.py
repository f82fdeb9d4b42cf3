"""Names of components and nodes for the shell's completion: asked of the lattice, quickly or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ctl.session import Session
from lattice.errors import LatticeError

if TYPE_CHECKING:
    from ctl.client import ControlClient

PATIENCE_SECONDS = 1.0
"""A person who presses Tab waits no longer."""


def complete_component(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of components that begin so."""

    async def ask(client: ControlClient) -> list[str]:
        return [component.name for component in await client.components()]

    return _beginning(ctx, ask, incomplete)


def complete_node(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of nodes that begin so."""

    async def ask(client: ControlClient) -> list[str]:
        return [node.name for node in await client.nodes()]

    return _beginning(ctx, ask, incomplete)


def complete_any(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of components and nodes that begin so."""
    return complete_component(ctx, param, incomplete) + complete_node(ctx, param, incomplete)


def _beginning(ctx: click.Context, ask: object, incomplete: str) -> list[str]:
    session = ctx.ensure_object(Session)
    session.options.setdefault("timeout", PATIENCE_SECONDS)
    try:
        names: list[str] = session.run(ask)  # type: ignore[arg-type]
    except (LatticeError, OSError):
        return []  # no lattice, no names: a message would end up in the middle of the person's line
    return [name for name in names if name.startswith(incomplete)]
