"""`docs/control.md` has every operation, every field that they answer with, and every event."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctl import cli, models
from lattice.errors import BY_CODE
from node.capabilities.config.operations import ConfigurationOperations
from node.capabilities.secrets.operations import SecretOperations
from node.operations import Operations
from node.own_operations import OwnOperations
from node.reports import Reports
from tests.docs.pages import DOCS, ROOT

PAGE = (DOCS / "control.md").read_text()
OPERATIONS = (
    *(ROOT / "node" / name for name in ("operations.py", "reports.py", "own_operations.py")),
    *(ROOT / "node/capabilities" / name / "operations.py" for name in ("config", "secrets")),
)


def keys_of_tables(file: Path) -> Iterator[str]:
    """The names in a module's tables of operations, read from its source."""
    for found in ast.walk(ast.parse(file.read_text())):
        if isinstance(found, ast.Dict):
            for key, value in zip(found.keys, found.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(value, ast.Attribute) and is_operation(value):
                    yield str(key.value)


def is_operation(value: ast.Attribute) -> bool:
    """Whether it is a public method of `self`."""
    is_own = isinstance(value.value, ast.Name) and value.value.id == "self" and value.attr[0] != "_"
    classes = (Operations, Reports, OwnOperations, ConfigurationOperations, SecretOperations)
    return is_own and any(callable(getattr(cls, value.attr, None)) for cls in classes)


def announced() -> set[str]:
    """Every event that a node announces, read from the sources."""
    found: set[str] = set()
    for folder in ("lattice", "node"):
        for file in (ROOT / folder).rglob("*.py"):
            text = file.read_text()
            found |= set(re.findall(r"""(?:announce|_event)\(\s*"([a-z]+\.[a-z]+)""", text))
            found |= set(re.findall(r"""_changed\(\s*"([a-z]+\.[a-z]+)""", text))
            found |= set(re.findall(r"""subjects\.event\([^,]+, "([a-z]+\.[a-z]+)""", text))
    return found


@pytest.mark.parametrize("operation", sorted({key for file in OPERATIONS for key in keys_of_tables(file)}))
def test_each_operation_is_documented(operation: str) -> None:
    assert re.search(rf"^### {re.escape(operation)}$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("event", sorted(announced()))
def test_each_event_is_documented(event: str) -> None:
    assert f"| `{event}` |" in PAGE


def test_there_are_events_and_operations_to_look_for() -> None:
    assert {"node.joined", "node.left", "replica.running", "component.deployed"} <= announced()
    assert "deploy" in {key for file in OPERATIONS for key in keys_of_tables(file)}


ANSWERS = (models.Node, models.Component, models.Replica, models.Link, models.Prepared, models.Change)


@pytest.mark.parametrize("answer", ANSWERS)
def test_each_field_of_an_answer_is_documented(answer: type) -> None:
    for field in dataclasses.fields(answer):
        assert f"`{field.name}`" in PAGE, field.name


@pytest.mark.parametrize("code", BY_CODE)
def test_each_error_code_is_explained_to_operators(code: str) -> None:
    assert f"`{code}`" in (DOCS / "troubleshooting.md").read_text()


def test_each_exit_code_is_documented() -> None:
    pages = (DOCS / "cli.md").read_text() + (DOCS / "settings.md").read_text()

    for code in {0, cli.FAILED, cli.WRONG_USAGE, 3, cli.INTERRUPTED, *cli.EXIT_CODES.values()}:
        assert f"| {code} |" in pages
