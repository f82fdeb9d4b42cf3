"""What the command line prints: data to stdout as table, JSON or JSON lines; talk to stderr.

Tables are for people: aligned columns, no boxes, readable without colour. What came from a guest or a node is
shown without control characters, so that a log line cannot drive the terminal.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TextIO, TypeVar, get_args

Format = Literal["table", "json", "jsonl"]
FORMATS: tuple[str, ...] = get_args(Format)

T = TypeVar("T")
Column = tuple[str, Callable[[T], Any]]
"""A heading and what to show below it for one item."""

_COLOURS = {
    "ready": "32", "running": "32", "local": "32",
    "progressing": "33", "starting": "33", "pending": "33", "draining": "33", "remote": "36",
    "failed": "31", "silent": "31", "unresolved": "31", "error:": "1;31", "warning:": "1;33", "hint:": "1;36",
}  # fmt: skip


class Output:
    """The two streams of a command and the form of its data."""

    def __init__(
        self, format: Format = "table", *, stdout: TextIO | None = None, stderr: TextIO | None = None
    ) -> None:
        self.format = format
        self._stdout = stdout
        self._stderr = stderr

    @property
    def is_for_people(self) -> bool:
        return self.format == "table"

    # Data

    def items(self, items: Sequence[T], columns: Sequence[Column[T]], *, empty: str) -> None:
        """A table, a JSON array or one JSON object a line; `empty` is said instead of an empty table."""
        if self.format == "jsonl":
            for item in items:
                self.json_line(item)
        elif self.format == "json":
            self._write(json.dumps(list(items), default=plain, indent=2, ensure_ascii=False))
        elif items:
            self._table(items, columns)
        else:
            self.say(empty)

    def item(self, item: Any, text: Callable[[], str] | None) -> None:
        """One thing: as text that `text` makes, or as a JSON object. Without `text` people see nothing."""
        if self.format == "json":
            self._write(json.dumps(item, default=plain, indent=2, ensure_ascii=False))
        elif self.format == "jsonl":
            self.json_line(item)
        elif text is not None:
            self._write(text())

    def stream_item(self, item: Any, text: str) -> None:
        """One of a series without an end: a line of text, or a JSON object a line; written at once."""
        if self.is_for_people:
            self._write(text)
        else:
            self.json_line(item)
        self._out.flush()

    def json_line(self, item: Any) -> None:
        """The item as JSON on one line."""
        self._write(json.dumps(item, default=plain, ensure_ascii=False, separators=(",", ":")))

    def value(self, value: Any) -> None:
        """A JSON value by itself: the result of a call; the same for people and programs."""
        if self.format == "json":
            self._write(json.dumps(value, indent=2, ensure_ascii=False))
        else:
            self._write(json.dumps(value, ensure_ascii=False))

    # Talk

    def say(self, message: str) -> None:
        """A message to the person, on stderr."""
        print(visible(message, keep="\n"), file=self._err, flush=True)

    def warn(self, message: str) -> None:
        self._label("warning:", message)

    def tell_connection(self, is_connected: bool) -> None:
        """For commands that go on: what comes meanwhile is missed."""
        self.warn("connected again" if is_connected else "the connection is lost; trying to connect again")

    def fail(self, message: str, hint: str | None) -> None:
        """An error and, set apart, what to do next."""
        self._label("error:", message)
        if hint:
            print(file=self._err)
            self._label("hint:", hint)

    def _label(self, label: str, message: str) -> None:
        print(_coloured(label, self._err), visible(message, keep="\n"), file=self._err, flush=True)

    def _table(self, items: Sequence[T], columns: Sequence[Column[T]]) -> None:
        rows = [[visible(cell_text(value(item))) for _, value in columns] for item in items]
        headings = [heading for heading, _ in columns]
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        self._write("  ".join(map(str.ljust, headings, widths)).rstrip())
        for row in rows:
            padded = [
                _coloured(cell, self._out) + " " * (width - len(cell))
                for cell, width in zip(row, widths, strict=True)
            ]
            self._write("  ".join(padded).rstrip())

    def _write(self, text: str) -> None:
        print(text, file=self._out)

    @property
    def _out(self) -> TextIO:
        return self._stdout or sys.stdout

    @property
    def _err(self) -> TextIO:
        return self._stderr or sys.stderr


def plain(value: Any) -> Any:
    """What `json` does not know, as something that it does."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, bytes):
        import base64

        return {"base64": base64.b64encode(value).decode()}
    return str(value)


def cell_text(value: Any) -> str:
    """A value as a cell: `-` for nothing, lists with commas, labels as `k=v`."""
    if value is None or value in ("", (), [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={cell_text(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(cell_text, value))
    return str(value)


def fields_text(fields: Iterable[tuple[str, Any]]) -> str:
    """Lines of a name and a value, the values aligned."""
    rows = [(f"{name}:", visible(cell_text(value))) for name, value in fields]
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}".rstrip() for name, value in rows)


def visible(text: str, keep: str = "") -> str:
    """The text with control characters escaped, except those in `keep`."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in keep else _escaped(character)
        for character in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _coloured(word: str, stream: TextIO) -> str:
    code = _COLOURS.get(word)
    return f"\x1b[{code}m{word}\x1b[0m" if code and _shows_colours(stream) else word


def _shows_colours(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
