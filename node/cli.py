"""`lattice-node`: starts a node, or looks at a component file.

Exit codes: 0 after a drain; 1 when the node could not start or failed; 2 for wrong usage; 130 when it was
stopped before it had drained.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from lattice.errors import Invalid, LatticeError
from lattice.quantities import parse_duration, parse_size, size_text
from lattice.secret_readers import SecretsPolicy
from lattice.settings import Declaration, declarations, load
from lattice.standard_streams import replace_closed
from node.settings import OTHER_VARIABLES, NodeSettings

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_STOPPED = 130
CONFIG_VARIABLE = "LATTICE_CONFIG"


def _fail(error: LatticeError, code: int = EXIT_FAILED) -> NoReturn:
    click.echo(f"error: {error.message}", err=True)
    sys.exit(code)


def _setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for declaration in reversed(declarations(NodeSettings)):
        command = _option(declaration)(command)
    return command


def _option(declaration: Declaration) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    default = default_text(declaration)
    shown = f"{declaration.help} [env: {declaration.variable}{f'; default: {default}' if default else ''}]"
    return click.option(
        declaration.flag,
        declaration.name,
        metavar=declaration.metavar,
        multiple=declaration.repeated,
        help=shown,
    )


def default_text(declaration: Declaration) -> str:
    """The default as people would write it; empty when there is none."""
    value = declaration.default
    if value is None or value == ():
        return ""
    return _SHOWN[declaration.parse](value) if declaration.parse in _SHOWN else str(value).lower()


_SHOWN: Mapping[Any, Callable[[Any], str]] = {
    parse_size: lambda size: size_text(size).replace(".0 ", " ").replace(" ", ""),
    parse_duration: lambda seconds: f"{seconds:g}s",
    SecretsPolicy.parse: lambda policy: "all",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="lattice-runtime", prog_name="lattice-node")
def main() -> None:
    """Run WebAssembly components on this machine, as a node of a lattice."""
    replace_closed()


@main.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar=CONFIG_VARIABLE,
    help=f'TOML file with any of these settings, e.g. `label = {{zone = "a"}}`. [env: {CONFIG_VARIABLE}]',
)
@_setting_options
def start(config: Path | None, **flags: Any) -> None:
    """Start a node, and keep it running until SIGTERM or Ctrl-C.

    Without --nats the nodes of this machine share an embedded NATS server: the same command in a second
    terminal makes a lattice of two nodes. Flags count more than the environment, the environment more than
    the file. The first signal drains the node, a second one stops it at once.
    """
    from node.process import run_node

    try:
        settings = load(
            NodeSettings,
            file=config,
            environ=os.environ,
            flags=flags,
            other_variables=(*OTHER_VARIABLES, CONFIG_VARIABLE),
        )
    except Invalid as error:
        _fail(error, EXIT_USAGE)
    sys.exit(run_node(settings))


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def inspect(file: Path, as_json: bool) -> None:
    """Show what a component file imports and exports, its size and its digest."""
    import anyio

    from node.engine.inspection import inspect_file, inspection_text, inspection_to_json

    try:
        inspection = anyio.run(inspect_file, file)
    except LatticeError as error:
        if as_json:
            click.echo(json.dumps({"error": {"code": error.code, "message": error.message}}))
        _fail(error)
    if as_json:
        click.echo(json.dumps(inspection_to_json(inspection), indent=2))
    else:
        click.echo(inspection_text(inspection))
