"""`events` and `logs` without `--follow`."""

from __future__ import annotations

import json

from tests.ctl.conftest import CommandLine
from tests.ctl.fake_node import line


def test_logs_prints_the_last_lines_with_their_place(latticectl: CommandLine) -> None:
    latticectl.node.deployed()
    latticectl.node.lines = [line("one"), line("two\x1b[31m"), line("three")]

    result = latticectl("logs", "greeter", "--lines", "2")

    assert [text.split("  ", 1)[1] for text in result.stdout.splitlines()] == [
        "node-1  stdout  two\\x1b[31m",
        "node-1  stdout  three",
    ]


def test_logs_for_programs_are_one_object_a_line(latticectl: CommandLine) -> None:
    latticectl.node.deployed()
    latticectl.node.lines = [line("one", at=5.0)]

    (text,) = latticectl("logs", "greeter", "--output", "json").stdout.splitlines()

    assert json.loads(text) == {
        "time": 5.0, "node": "node-1", "stream": "stdout", "text": "one", "call_id": None, "context": "",
    }  # fmt: skip


def test_events_end_with_the_time(latticectl: CommandLine) -> None:
    result = latticectl("events", "--timeout", "20ms")

    assert (result.exit_code, result.stdout) == (0, "")
