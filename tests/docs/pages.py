"""The pages of the documentation, and what tests read from them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
PROGRAMS = ("latticectl", "lattice-node")


def pages() -> list[Path]:
    """All pages that people read, the READMEs of the examples included."""
    examples = (ROOT / "examples").rglob("README.md")
    own = [path for path in examples if not {"node_modules", "bindings", "target"} & set(path.parts)]
    return sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *own])


def name(page: Path) -> str:
    """The page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def section(page: Path, title: str) -> str:
    """The text below a heading, to the next one of its level or above."""
    text = page.read_text()
    found = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert found is not None, f"{name(page)} has no section {title!r}"
    rest = text[found.end() :]
    following = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [body for found, body in FENCE.findall(text) if found == language]


def code_blocks(text: str) -> Iterator[str]:
    """All fenced blocks, and all indented ones outside of them."""
    yield from (body for _, body in FENCE.findall(text))
    yield from (match[0] for match in INDENTED.finditer(FENCE.sub("", text)))


def commands(page: Path) -> list[str]:
    """Each command line of our programs on the page, without what a shell would do with its output."""
    found = []
    for block in code_blocks(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            words = line.strip().removeprefix("$ ").removeprefix("docker compose exec node-1 ")
            is_drawing_or_usage = "    " in words or "[OPTIONS]" in words
            if words.startswith(tuple(f"{program} " for program in PROGRAMS)) and not is_drawing_or_usage:
                found.append(re.split(r" [|>&#]|;", words)[0].strip())
    return found
