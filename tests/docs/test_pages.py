"""Pages say what is true: commands parse, links lead somewhere, generated pages are up to date."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from ctl.cli import cli
from ctl.session import Session
from node import reference
from node.cli import main as node_cli
from providers.sdk.__main__ import main as sdk_main
from tests.docs.pages import DOCS, LINK, ROOT, commands, name, pages

PAGES = {name(page): page for page in pages()}
COMMANDS = [(name, command) for name, page in PAGES.items() for command in commands(page)]
PLACEHOLDERS = {"URL": "nats://host:4222", "TIME": "5s", "SIZE": "1MiB", "N": "2", "KEY=VALUE": "a=b"}
FORBIDDEN = re.compile(r"index-url|find-links|(?<![\w.])/(work|root|home)/", re.IGNORECASE)
"""Settings of package indexes, and folders of whoever wrote the page."""


def parse(root: click.Group, program: str, words: list[str]) -> None:
    """Raise what click raises if the program would not take these words; nothing is run."""
    context = root.make_context(program, words, obj=Session())
    command: click.Command | None = root
    while isinstance(command, click.Group):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_each_command_on_a_page_is_one_that_the_program_takes(page: str, command: str) -> None:
    program, *words = shlex.split(command, comments=True)
    words = [PLACEHOLDERS.get(word, word) for word in words]

    parse(cli if program == "latticectl" else node_cli, program, words)


OPTION = re.compile(r"`(--[a-z][a-z-]+)")
OPTIONS_OF_OTHERS = {"--disable", "--stub-wasi", "--sync"}
"""Of the tools that build examples."""


def options(command: click.Command) -> set[str]:
    """All options of a command and of those below it."""
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    if not isinstance(command, click.Group):
        return own | {"--help"}
    context = click.Context(command)
    below = (command.get_command(context, name) for name in command.list_commands(context))
    return own.union({"--help"}, *(options(found) for found in below if found is not None))


KNOWN_OPTIONS = options(cli) | options(node_cli) | options(sdk_main) | OPTIONS_OF_OTHERS


@pytest.mark.parametrize("page", PAGES)
def test_each_option_that_a_page_speaks_of_is_one_of_a_program(page: str) -> None:
    assert set(OPTION.findall(PAGES[page].read_text())) <= KNOWN_OPTIONS


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for target in LINK.findall(PAGES[page].read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (PAGES[page].parent / path).resolve() if path else PAGES[page]
        assert found.exists(), target
        if anchor and found.suffix == ".md":
            assert anchor in headings(found), target


def headings(page: Path) -> set[str]:
    """The anchors that a forge gives to the page's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_a_registry_or_a_place_on_one_machine(page: str) -> None:
    assert FORBIDDEN.search(PAGES[page].read_text()) is None


def test_all_pages_are_reached_from_the_readme() -> None:
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        waiting += [
            (page.parent / target.partition("#")[0]).resolve()
            for target in LINK.findall(page.read_text())
            if "://" not in target and not target.startswith("#")
        ]

    assert {name(page) for page in DOCS.rglob("*.md")} <= {name(page) for page in seen}


def test_the_settings_are_up_to_date() -> None:
    page = (DOCS / "settings.md").read_text()

    assert page == reference.reference(), "run `python -m node.reference > docs/settings.md`"


def test_the_built_in_interfaces_are_up_to_date() -> None:
    page = (DOCS / "interfaces.md").read_text()

    assert page == reference.interfaces(), "run `python -m node.reference interfaces > docs/interfaces.md`"


LOG_EVENT = re.compile(r"`([a-z]+\.[a-z]+(?:[-_][a-z]+)*)`")
NOT_EVENTS = {
    "vm.max_map_count",
    "compose.yaml",
    "server.json",
    "node.nk",
    "link.put",
    "link.get",
    "link.delete",
}


@pytest.mark.parametrize("page", ["operations.md", "troubleshooting.md"])
def test_each_log_event_that_operators_are_told_of_exists(page: str) -> None:
    sources = "\n".join(
        file.read_text() for name in ("lattice", "node") for file in (ROOT / name).rglob("*.py")
    )

    for event in set(LOG_EVENT.findall((DOCS / page).read_text())) - NOT_EVENTS:
        assert f'"{event}"' in sources, event
