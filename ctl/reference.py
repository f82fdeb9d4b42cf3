"""Writes `docs/cli.md` from the commands themselves: `python -m ctl.reference > docs/cli.md`."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import click

from ctl import cli, models
from ctl.command import GlobalOption
from lattice.fields import Value

OUTPUTS: Mapping[str, tuple[type[Value], ...]] = {
    "deploy": (models.Deployed, models.ReplicaCounts),
    "update": (models.Deployed,),
    "run": (models.JobStarted,),
    "job stop": (models.JobStopped,),
    "get jobs": (models.Job,),
    "scale": (models.Change,),
    "delete": (models.Change,),
    "wait": (models.ComponentDescription,),
    "get nodes": (models.Node,),
    "get components": (models.Component, models.ReplicaCounts),
    "get replicas": (models.Replica,),
    "get providers": (models.Provider, models.OfferPlace),
    "get routes": (models.Trigger,),
    "describe": (
        models.ComponentDescription,
        models.Placement,
        models.Pending,
        models.Grant,
        models.ProviderDescription,
        models.NodeDescription,
    ),
    "inspect": (models.Inspection,),
    "link put": (models.LinkChange,),
    "link delete": (models.LinkChange,),
    "link get": (models.Link,),
    "route put": (models.TriggerChange,),
    "route delete": (models.TriggerChange,),
    "config put": (models.ConfigChange,),
    "config get": (models.ConfigValues,),
    "config delete": (models.ConfigChange,),
    "get configs": (models.Config,),
    "secret put": (models.SecretInfo,),
    "secret get": (models.SecretInfo,),
    "secret delete": (models.SecretChange,),
    "get secrets": (models.SecretInfo,),
    "trigger put": (models.TriggerChange,),
    "trigger delete": (models.TriggerChange,),
    "get triggers": (models.Trigger,),
    "logs": (models.LogLine,),
    "events": (models.Event,),
    "drain": (models.Drained,),
    "version": (models.Version,),
}
"""What each command prints as JSON; `call` prints the function's result, `completion` a script."""

INTRODUCTION = """\
# latticectl

Generated from the program by `python -m ctl.reference`; do not edit.

Data goes to stdout, messages to stderr. `--output table` (the default) is for people; `--output json` prints
one JSON value, an array for every listing; `--output jsonl` prints one JSON object a line. What comes without
end (`events`, `logs`) is one object a line in both. Fields may be added to an object, never renamed or
removed. Colours appear on terminals only, and not at all when `NO_COLOR` is set.

Without `--nats` the client finds the embedded NATS server that the nodes of this machine share, by the file
`<state>/<lattice>/server/server.json`; the state folder is `LATTICE_STATE`, else `$XDG_STATE_HOME/lattice`,
else `~/.local/state/lattice`.

Everything here can be done from Python, by the same names, with `ctl.client.ControlClient`.

## Exit codes

| code | meaning |
| --- | --- |
| 0 | done; also when the reader of the output left early |
| 1 | refused or failed; the message says why and the hint what to do |
| 2 | wrong usage |
| 3 | the called function returned an `err`, which was printed like any result |
| 4 | the component, function, node or link does not exist |
| 5 | nobody could be reached, or the time was over |
| 130 | interrupted with Ctrl-C |

## Values on the command line

A duration is a number with `ms`, `s`, `m` or `h` (`250ms`, `1.5m`), seconds without a unit. A size is a
number with `KiB`, `MiB`, `GiB`, `KB`, `MB` or `GB`, bytes without a unit. A name has 1 to 63 of `a-z`, `0-9`
and `-`, neither first nor last a `-`.

## Global options

They may stand before or after the command; one after it wins over one before, and any over its environment
variable.
"""

COMPLETION = """
## Completion

`latticectl completion SHELL` prints a script for bash, zsh or fish. To have it in every new shell:

    latticectl completion bash > ~/.local/share/bash-completion/completions/latticectl
    latticectl completion zsh > ~/.zfunc/_latticectl        # with fpath+=~/.zfunc before compinit
    latticectl completion fish > ~/.config/fish/completions/latticectl.fish

Commands, options, and the names of components and nodes are completed; names are asked of the lattice, for a
second at most.
"""


def reference() -> str:
    """The whole page."""
    root = click.Context(cli.cli, info_name="latticectl")
    parts = [INTRODUCTION, _table(_global_rows(root)), COMPLETION]
    for path, command in commands():
        parts.append(_section(path, command))
    return "\n".join(parts).rstrip() + "\n"


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its path below `latticectl`, in the order of the help."""
    root = click.Context(cli.cli, info_name="latticectl")
    for name in cli.COMMANDS:
        command = cli.cli.get_command(root, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {part}", found) for part, found in sorted(command.commands.items()))


def example_of(command: click.Command) -> str:
    """The example lines of a command's help."""
    _, _, examples = inspect.cleandoc(command.help or "").partition("\b\nExamples:\n")
    return inspect.cleandoc(examples)


def _section(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"latticectl {path}")
    text = inspect.cleandoc(command.help or "").partition("\b\n")[0].rstrip()
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"## {path}", "", text, "", f"    latticectl {path} {usage}", ""]
    rows = [_option_row(context, param) for param in command.params if _is_own_option(param)]
    if rows:
        lines += [_table(rows), ""]
    lines += ["Examples:", "", *(f"    {line}" for line in example_of(command).splitlines()), ""]
    return "\n".join([*lines, *_outputs(path)])


def _outputs(path: str) -> list[str]:
    lines: list[str] = []
    for number, output in enumerate(OUTPUTS.get(path, ())):
        article = "As JSON:" if number == 0 else f"`{output.__name__}`:"
        lines += [f"{article} {(inspect.getdoc(output) or '').splitlines()[0]}", "", *_fields(output), ""]
    return lines


def _fields(output: type[Value]) -> list[str]:
    hints = get_type_hints(output, include_extras=True)
    rows = [
        f"| `{field.name}` | {_type_text(hints[field.name])} | {_said(hints[field.name])} |"
        for field in dataclasses.fields(output)  # type: ignore[arg-type]
    ]
    return ["| field | type | |", "| --- | --- | --- |", *rows]


def _said(hint: Any) -> str:
    return str(get_args(hint)[1]) if get_origin(hint) is Annotated else ""


def _type_text(hint: Any) -> str:
    """The JSON type of a field."""
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    names = {str: "string", int: "integer", float: "number", bool: "boolean", Any: "any", type(None): "null"}
    if base in names:
        return names[base]
    origin, args = get_origin(base), get_args(base)
    if origin is tuple:
        return f"array of {_type_text(args[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return "object"
    if args:
        return " or ".join(_type_text(arg) for arg in args)
    return f"`{base.__name__}`" if isinstance(base, type) and issubclass(base, Value) else str(base)


def _global_rows(root: click.Context) -> list[tuple[str, str]]:
    return [_option_row(root, param) for param in cli.cli.params if isinstance(param, GlobalOption)]


def _option_row(context: click.Context, param: click.Parameter) -> tuple[str, str]:
    record = param.get_help_record(context)
    assert record is not None
    return record


def _is_own_option(param: click.Parameter) -> bool:
    return isinstance(param, click.Option) and not isinstance(param, GlobalOption)


def _table(rows: list[tuple[str, str]]) -> str:
    cells = [(option.replace("|", "\\|"), " ".join(help.split())) for option, help in rows]
    lines = [f"| `{option}` | {help} |" for option, help in cells]
    return "\n".join(["| option | |", "| --- | --- |", *lines])


if __name__ == "__main__":
    sys.stdout.write(reference())
