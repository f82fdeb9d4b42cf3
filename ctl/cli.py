"""The root of `latticectl`: the table of commands, and how errors end the program.

Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 the called function returned an `err`; 4 not found;
5 unreachable or timed out; 130 interrupted by the user.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import click

from ctl.command import Group, Stop
from ctl.hints import hint_for
from ctl.output import Output
from ctl.session import Session
from lattice.errors import LatticeError
from lattice.standard_streams import replace_closed

COMMANDS: Mapping[str, str] = {
    "deploy": "ctl.commands.deploy",
    "call": "ctl.commands.call",
    "run": "ctl.commands.run",
    "job": "ctl.commands.job",
    "get": "ctl.commands.get",
    "describe": "ctl.commands.describe",
    "inspect": "ctl.commands.inspect",
    "scale": "ctl.commands.component",
    "update": "ctl.commands.component",
    "delete": "ctl.commands.component",
    "wait": "ctl.commands.component",
    "link": "ctl.commands.link",
    "route": "ctl.commands.route",
    "config": "ctl.commands.config",
    "secret": "ctl.commands.secret",
    "trigger": "ctl.commands.trigger",
    "logs": "ctl.commands.log",
    "events": "ctl.commands.event",
    "drain": "ctl.commands.node",
    "version": "ctl.commands.version",
    "completion": "ctl.commands.completion",
}
"""Each command and the module that has it under the same name, imported when it is needed."""

EXIT_CODES: Mapping[str, int] = {"not-found": 4, "unreachable": 5, "timed-out": 5}
FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a file that takes the output has no room."""


class Root(Group):
    """`latticectl` itself: imports commands when they are needed and turns errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        module = COMMANDS.get(name)
        return getattr(importlib.import_module(module), name) if module else None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # before click sees it, which would exit with 1
            _discard_output()
            raise Stop(0) from None

    def main(  # type: ignore[override]  # always ends the process, whatever the mode
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run and exit; the only place where an error becomes a message."""
        session = extra.pop("obj", None) or Session()
        extra["standalone_mode"] = False
        run = super().main
        sys.exit(_exit_code(lambda: run(args, prog_name or "latticectl", obj=session, **extra), session))


def _exit_code(run: Callable[[], Any], session: Session) -> int:
    output = Output()
    try:
        code = run()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except Stop as stop:
        return stop.exit_code
    except click.UsageError as error:
        output.fail(_sentence(error.format_message()), _usage_hint(error))
        return WRONG_USAGE
    except click.ClickException as error:
        output.fail(_sentence(error.format_message()), "`latticectl --help` lists the commands")
        return FAILED
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return 0
    except LatticeError as error:
        output.fail(error.message, hint_for(error))
        return EXIT_CODES.get(error.code, FAILED)
    except OSError as error:
        if error.errno not in NO_ROOM:
            return _report_fault(error, session, output)
        _discard_output()
        output.fail(f"the output can't be written: {error.strerror}", "make room, or write it elsewhere")
        return FAILED
    except Exception as error:  # a fault of ours: the person gets one line, a developer can see more
        return _report_fault(error, session, output)


def _report_fault(error: Exception, session: Session, output: Output) -> int:
    if session.is_verbose:
        raise error
    output.fail(
        f"latticectl itself failed: {type(error).__name__}: {error}",
        "run it again with --verbose for the traceback, and report it",
    )
    return FAILED


def _sentence(message: str) -> str:
    return message[:1].lower() + message[1:].rstrip(".") if message[:2].istitle() else message.rstrip(".")


def _usage_hint(error: click.UsageError) -> str:
    path = error.ctx.command_path if error.ctx else "latticectl"
    return f"`{path} --help` shows the usage and examples"


def _discard_output() -> None:
    """Nobody reads any more: let the interpreter's own last flush succeed."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return


@click.group(
    name="latticectl",
    cls=Root,
    reads_environment=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    no_args_is_help=True,
)
@click.version_option(package_name="lattice-runtime", message="latticectl %(version)s")
def cli() -> None:
    """Control a lattice: deploy components, call them, see what runs where.

    Data goes to stdout, messages to stderr. Without --nats the nodes of this machine are found by themselves.
    """


def main() -> NoReturn:
    """Entry point of the `latticectl` program."""
    replace_closed()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    cli.main(prog_name="latticectl")
