"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ctl.names import complete_component, complete_node
from ctl.parameters import NAME

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]

MAX_REPLICAS = 100_000
"""As the lattice has it; refuses slips of the keyboard before anything is sent."""


def component_argument() -> Decorator[Any]:
    return click.argument("component", type=NAME, shell_complete=complete_component)


def node_argument() -> Decorator[Any]:
    return click.argument("node", shell_complete=complete_node)


def file_argument() -> Decorator[Any]:
    """A file whose absence the command itself reports, with more than click would say."""
    return click.argument("file", metavar="FILE.wasm", type=click.Path(path_type=Path))


def replicas_option(help: str, **details: Any) -> Decorator[Any]:
    return click.option("--replicas", type=click.IntRange(0, MAX_REPLICAS), metavar="N", help=help, **details)


def wait_option() -> Decorator[Any]:
    return click.option(
        "--wait/--no-wait", "waits", default=True, help="Wait until the replicas answer. [default: --wait]"
    )
