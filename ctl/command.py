"""The kind of command that `latticectl` has: takes the global options anywhere and shows them apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ctl.hints import hint_for
from ctl.output import FORMATS
from ctl.parameters import DURATION, NAME
from ctl.session import Session
from ctl.settings import ENVIRONMENT
from lattice.errors import LatticeError
from lattice.names import did_you_mean

WIT_ERROR = 3
"""Exit code when the called function returned an `err`."""

session_of = click.make_pass_decorator(Session, ensure=True)
"""Hands the session to the command as its first argument."""


class Stop(Exception):
    """Raised by a command that has said all there is to say and ends with an exit code."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class GlobalOption(click.Option):
    """An option of every command; its value goes to the session and not to the command."""

    def __init__(self, *declarations: str, **kwargs: Any) -> None:
        super().__init__(declarations, expose_value=False, callback=_remember, default=None, **kwargs)


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value not in (None, False):
        ctx.ensure_object(Session).options[str(param.name)] = value


class Command(click.Command):
    """A command that takes the global options too, so that they may stand before or after its name."""

    def __init__(self, name: str | None, **kwargs: Any) -> None:
        own = kwargs.pop("params", None) or []
        super().__init__(name, params=[*own, *global_options(with_environment=False)], **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LatticeError as error:
            component = ctx.params.get("component")
            error.details["hint"] = hint_for(error, command=ctx.command_path, component=component)
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_options(self, ctx, formatter)


class Group(click.Group):
    """A group whose commands are of our kind and that suggests the nearest for an unknown one."""

    command_class = Command

    def __init__(self, name: str | None, *, reads_environment: bool = False, **kwargs: Any) -> None:
        own = kwargs.pop("params", None) or []
        super().__init__(name, params=[*own, *global_options(with_environment=reads_environment)], **kwargs)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            near = did_you_mean(name, self.list_commands(ctx))
            raise click.UsageError(f"there is no command `{ctx.command_path} {name}`{near}", ctx)
        return super().resolve_command(ctx, args)


def _write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """The command's own options, then the global ones; arguments are explained in the text above."""
    sections: dict[str, list[tuple[str, str]]] = {"Options": [], "Global options": []}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
        if record:
            sections["Global options" if isinstance(param, GlobalOption) else "Options"].append(record)
    for title, records in sections.items():
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


def command(**kwargs: Any) -> Callable[[Callable[..., Any]], Command]:
    """Like `click.command`, with the global options."""
    return click.command(cls=Command, **kwargs)


def global_options(*, with_environment: bool) -> list[click.Parameter]:
    """The options of every command, made anew; only those of the root read the environment."""
    file = click.Path(path_type=Path, dir_okay=False)
    declared: dict[str, dict[str, Any]] = {
        "nats": {"metavar": "URL", "help": "NATS server. [default: the embedded server of this machine]"},
        "creds": {"type": file, "help": "NATS credentials file."},
        "tls-ca": {"type": file, "help": "Certificate authority of the NATS server."},
        "tls-cert": {"type": file, "help": "Client certificate for the NATS server."},
        "tls-key": {"type": file, "help": "Key of the client certificate."},
        "lattice": {"type": NAME, "metavar": "NAME", "help": "Name of the lattice. [default: default]"},
        "timeout": {"type": DURATION, "metavar": "TIME", "help": "How long to wait. [default: 10s or more]"},
        "output": {"type": click.Choice(FORMATS), "help": "Form of the data. [default: table]"},
    }
    options: list[click.Parameter] = []
    for name, details in declared.items():
        variable = ENVIRONMENT[name.replace("-", "_")] if with_environment else None
        options.append(GlobalOption(f"--{name}", envvar=variable, show_envvar=with_environment, **details))
    verbose = GlobalOption("--verbose", is_flag=True, help="Show what the client does, and tracebacks.")
    return [*options, verbose]
