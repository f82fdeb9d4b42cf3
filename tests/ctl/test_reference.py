"""Every command is explained, and `docs/cli.md` says what the program does."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

import click
import pytest

from ctl import models, reference
from ctl.cli import cli
from ctl.command import GlobalOption
from ctl.session import Session

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
COMMANDS = dict(reference.commands())
OUTPUTS = [cls for cls in vars(models).values() if dataclasses.is_dataclass(cls)]
EXAMPLES = [line for command in COMMANDS.values() for line in reference.example_of(command).splitlines()]


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == reference.reference(), "run `python -m ctl.reference > docs/cli.md`"


@pytest.mark.parametrize("path", COMMANDS)
def test_each_command_has_help_and_an_example_of_itself(path: str) -> None:
    command = COMMANDS[path]

    assert command.help is not None and len(command.get_short_help_str()) > 10
    assert any(line.startswith(f"latticectl {path}") for line in reference.example_of(command).splitlines())


@pytest.mark.parametrize("path", COMMANDS)
def test_each_option_is_explained(path: str) -> None:
    options = [param for param in COMMANDS[path].params if isinstance(param, click.Option)]

    assert all(option.help for option in options)
    assert any(isinstance(option, GlobalOption) for option in options)


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_example_is_valid_usage(example: str) -> None:
    words = shlex.split(example.partition(" | ")[0].partition(" > ")[0].partition(" < ")[0])

    context = cli.make_context("latticectl", words[1:], obj=Session())
    name, command, rest = cli.resolve_command(context, [*context._protected_args, *context.args])
    while isinstance(command, click.Group):
        context = command.make_context(name, rest, parent=context)
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    assert command is not None
    command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("output", OUTPUTS)
def test_each_field_of_the_output_is_documented(output: Any) -> None:
    hints = get_type_hints(output, include_extras=True)

    for field in dataclasses.fields(output):
        assert get_origin(hints[field.name]) is Annotated, field.name
