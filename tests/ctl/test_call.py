from __future__ import annotations

import json
from typing import Any

import pytest

from lattice import wire
from lattice.errors import Interrupted, Overloaded, Trapped, Unreachable
from tests.ctl.conftest import CommandLine
from tests.ctl.fake_node import GREET, NODE_ID


@pytest.fixture
def latticectl(latticectl: CommandLine) -> CommandLine:
    latticectl.node.deployed()
    return latticectl


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (("greet", "World"), "Hello, World!"),
        (("greet", '"World"'), "Hello, World!"),
        (("greet", "5"), "Hello, 5!"),
        ((GREET, "greet", "World"), "Hello, World!"),
        (("demo:greeter/greet", "greet", "World"), "Hello, World!"),
        (("greet", "greet"), "Hello, greet!"),
        (("divide", "-7", "2"), {"ok": -4}),
        (("echo", '{"base64": "AP8="}'), {"base64": "AP8="}),
        (("repeat", "ha", "2"), ["ha", "ha"]),
        (("repeat", "ha", "null"), ["ha"]),
    ],
)
def test_arguments_are_json_or_bare_words_and_the_result_is_json(
    latticectl: CommandLine, words: tuple[str, ...], result: Any
) -> None:
    called = latticectl("call", "greeter", *words)

    assert called.stderr == ""
    assert json.loads(called.stdout) == result
    assert called.exit_code == 0


@pytest.mark.parametrize("given", ['["World"]', '{"name": "World"}'])
def test_all_arguments_may_come_as_one_json_value(latticectl: CommandLine, given: str) -> None:
    assert json.loads(latticectl("call", "greeter", "greet", "--json-args", given).stdout) == "Hello, World!"
    by_stdin = latticectl("call", "greeter", "greet", "--json-args", "-", input=given)
    assert json.loads(by_stdin.stdout) == "Hello, World!"


def test_a_wit_err_is_printed_and_exits_with_3(latticectl: CommandLine) -> None:
    called = latticectl("call", "greeter", "divide", "1", "0")

    assert json.loads(called.stdout) == {"err": "division by zero"}
    assert (called.exit_code, called.stderr) == (3, "")


def test_a_function_without_result_prints_nothing_for_people_and_null_for_programs(
    latticectl: CommandLine,
) -> None:
    assert latticectl("call", "greeter", "limit", "5").stdout == ""
    assert latticectl("call", "greeter", "limit", "5", "--output", "json").stdout == "null\n"


@pytest.mark.parametrize(
    ("words", "exit_code", "says"),
    [
        (("gret", "World"), 4, "did you mean `greet`?"),
        (("demo:greeter/grot", "greet", "World"), 4, "did you mean `demo:greeter/greet@0.1.0`?"),
        (("greet",), 1, "1 argument is wanted, 0 given: (name: string)"),
        (("greet", "a", "b"), 1, "1 argument is wanted, 2 given"),
        (("limit", "300"), 1, "argument 'value': 300 is out of range for u8 (0 to 255)"),
        (("divide", "one", "2"), 1, "argument 'a': 'one' is not JSON for s32"),
        (("greet", "a", "--json-args", "[]"), 1, "use one of them"),
        (("greet", "--json-args", "{"), 2, "--json-args is not JSON"),
        (("greet", "--json-args", "5"), 2, "must be an array"),
        (("greet", "World", "--idempotnt"), 2, "did you mean `--idempotent`?"),
    ],
)
def test_what_cannot_be_called_is_said_before_anything_is_called(
    latticectl: CommandLine, words: tuple[str, ...], exit_code: int, says: str
) -> None:
    called = latticectl("call", "greeter", *words)

    assert says in called.stderr
    assert "\n\nhint: " in called.stderr
    assert called.exit_code == exit_code
    assert latticectl.node.calls == []


def test_an_unknown_component_is_suggested(latticectl: CommandLine) -> None:
    called = latticectl("call", "greter", "greet", "World")

    assert called.exit_code == 4
    assert "did you mean `greeter`?" in called.stderr


def test_budget_and_idempotence_travel_in_headers(latticectl: CommandLine) -> None:
    latticectl("call", "greeter", "greet", "World", "--deadline", "2s", "--idempotent")

    headers = wire.decode_headers(latticectl.node.calls[0].headers)
    assert headers.idempotent
    assert headers.budget_ms is not None
    assert 1000 < headers.budget_ms <= 2000


def test_the_call_enters_at_the_node_asked_for(latticectl: CommandLine) -> None:
    called = latticectl("call", "greeter", "greet", "World", "--node", "node-1")

    assert called.exit_code == 0
    assert f".node.{NODE_ID}.call." in latticectl.node.calls[0].subject


@pytest.mark.parametrize("error", [Unreachable("gone"), Overloaded("full")])
def test_what_has_not_begun_is_tried_again(latticectl: CommandLine, error: Unreachable | Overloaded) -> None:
    latticectl.node.refusals["call"] = [error, error]

    called = latticectl("call", "greeter", "greet", "World")

    assert called.exit_code == 0
    attempts = [wire.decode_headers(call.headers).attempt for call in latticectl.node.calls]
    assert attempts == [1, 2, 3]


def test_what_may_have_begun_is_tried_again_only_if_idempotent(latticectl: CommandLine) -> None:
    latticectl.node.refusals["call"] = [Interrupted("the node is gone")]
    once = latticectl("call", "greeter", "greet", "World")

    latticectl.node.refusals["call"] = [Interrupted("the node is gone")]
    again = latticectl("call", "greeter", "greet", "World", "--idempotent")

    assert (once.exit_code, again.exit_code) == (1, 0)
    assert "hint: it may have been done; pass --idempotent" in once.stderr


TIMED_OUT = 5
MEASUREMENTS = 5
"""The last attempt is not answered in time on a machine that stands still just then."""


def test_repetition_ends_with_the_budget(latticectl: CommandLine) -> None:
    for _ in range(MEASUREMENTS):
        latticectl.node.refusals["call"] = [Overloaded("full")] * 1000
        latticectl.node.calls.clear()
        called = latticectl("call", "greeter", "greet", "World", "--deadline", "1s")
        if called.exit_code != TIMED_OUT:
            break

    assert called.exit_code == 1
    assert "full" in called.stderr
    assert "latticectl scale" in called.stderr
    assert 1 < len(latticectl.node.calls) < 100


def test_a_trap_points_to_the_log(latticectl: CommandLine) -> None:
    latticectl.node.refusals["call"] = [Trapped("unreachable executed", error_id="E1")]

    called = latticectl("call", "greeter", "greet", "World")

    assert called.exit_code == 1
    assert "hint: `latticectl logs" in called.stderr
