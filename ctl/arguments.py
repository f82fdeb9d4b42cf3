"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ctl.names import complete_component, complete_node
from ctl.parameters import FOLDER, LINK, NAME, PAIR

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


def grant_options() -> Decorator[Any]:
    """What a component may reach beyond its links; each may be repeated, none is granted by default."""
    options = [
        click.option(
            "--env", "environment", type=PAIR, multiple=True, help="Environment variable; repeatable."
        ),
        click.option(
            "--allow-host",
            "allow_hosts",
            multiple=True,
            metavar="HOST[:PORT]",
            help="Where its HTTP requests may go, also `*.example.com` or a range of addresses; repeatable.",
        ),
        click.option(
            "--folder",
            "folders",
            type=FOLDER,
            multiple=True,
            metavar="FOLDER:/PATH[:rw]",
            help="A folder that nodes offer, and where the component sees it; repeatable.",
        ),
        click.option(
            "--network",
            "network",
            multiple=True,
            metavar="GRANT",
            help="What its sockets may do, e.g. tcp:10.0.0.7:5432; repeatable.",
        ),
    ]
    return _all(options)


def link_option() -> Decorator[Any]:
    """Links of a component that is deployed or run."""
    return click.option(
        "--link",
        "links",
        type=LINK,
        multiple=True,
        metavar="INTERFACE=TARGET[,KEY=VALUE...]",
        help="Let TARGET, a component or provider, answer an import, and tell a provider this; repeatable. "
        "Beside KEY=VALUE, as `link put` has them: name:NAME, config-from:NAME, secret:KEY=NAME, idempotent.",
    )


def configuration_options(what: str) -> Decorator[Any]:
    """Configuration and secrets of a component or link."""
    options = [
        click.option(
            "--config",
            "configuration",
            type=PAIR,
            multiple=True,
            help=f"Configuration of {what}; repeatable.",
        ),
        click.option(
            "--config-from",
            "configuration_from",
            multiple=True,
            metavar="NAME",
            help="A configuration of the lattice to use; repeatable, later ones win.",
        ),
        click.option(
            "--secret",
            "secrets",
            type=PAIR,
            multiple=True,
            metavar="KEY=NAME",
            help=f"A secret, by the key under which {what} asks for it; repeatable.",
        ),
    ]
    return _all(options)


def _all(options: list[Decorator[Any]]) -> Decorator[Any]:
    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
