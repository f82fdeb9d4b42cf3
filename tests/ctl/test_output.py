from __future__ import annotations

import io
import json

import pytest

from ctl.output import Output, cell_text, fields_text, visible


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def table(stream: io.StringIO) -> str:
    output = Output(stdout=stream)
    output.items(["ready", "failed"], [("STATE", lambda item: item)], empty="none")
    return stream.getvalue()


def test_colours_appear_on_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    assert "\x1b[32mready" in table(Terminal())
    assert "\x1b" not in table(io.StringIO())


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    assert "\x1b" not in table(Terminal())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        ((), "-"),
        (0, "0"),
        (True, "yes"),
        (0.25, "0.25"),
        ({"zone": "a", "arch": "arm"}, "zone=a, arch=arm"),
        (("a", "b"), "a, b"),
    ],
)
def test_cells_are_short_and_never_empty(value: object, text: str) -> None:
    assert cell_text(value) == text


def test_fields_are_aligned() -> None:
    assert fields_text([("name", "greeter"), ("ready to", None)]) == "name:      greeter\nready to:  -"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe ✓", "größe ✓"),
        ("a\tb", "a\\tb"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\u202e", "\\u202e"),
    ],
)
def test_what_could_drive_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_values_are_json_as_they_are() -> None:
    stream = io.StringIO()

    Output(stdout=stream).value({"text": "größe\x1b", "big": "18446744073709551615"})

    assert json.loads(stream.getvalue()) == {"text": "größe\x1b", "big": "18446744073709551615"}
    assert "\x1b" not in stream.getvalue()
