"""`latticectl completion`: the script that makes a shell complete commands, options and names."""

from __future__ import annotations

import click

from ctl.command import command

SHELLS = ("bash", "zsh", "fish")
COMPLETE_VARIABLE = "_LATTICECTL_COMPLETE"


@command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    Commands, options and the names of components and nodes are then completed with Tab.

    \b
    Examples:
      latticectl completion bash > ~/.local/share/bash-completion/completions/latticectl
      latticectl completion zsh > ~/.zfunc/_latticectl
      latticectl completion fish > ~/.config/fish/completions/latticectl.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None  # the choices are click's own
    complete = found(ctx.find_root().command, {}, "latticectl", COMPLETE_VARIABLE)
    click.echo(complete.source_template % complete.source_vars())
