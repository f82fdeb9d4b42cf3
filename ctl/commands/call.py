"""`latticectl call`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ctl.arguments import component_argument
from ctl.command import WIT_ERROR, Stop, command, session_of
from ctl.names import complete_node
from ctl.parameters import DURATION
from ctl.session import Session
from lattice.errors import TimedOut
from lattice.names import did_you_mean

if TYPE_CHECKING:
    from ctl.client import ControlClient
    from ctl.functions import Function
    from lattice import wit

CALL_SECONDS = 30.0


@command(context_settings={"ignore_unknown_options": True})  # so that -5 is an argument
@component_argument()
@click.argument(
    "words", metavar="[INTERFACE] FUNCTION [ARGS]...", nargs=-1, required=True, type=click.UNPROCESSED
)
@click.option("--json-args", metavar="JSON", help="All arguments as one JSON array or object; - reads stdin.")
@click.option("--idempotent", is_flag=True, help="Repeat the call if a node dies during it.")
@click.option(
    "--deadline", type=DURATION, metavar="TIME", help="Time for the call with all repetitions. [default: 30s]"
)
@click.option("--node", metavar="NODE", shell_complete=complete_node, help="Enter the lattice at this node.")
@session_of
def call(
    session: Session,
    component: str,
    words: Sequence[str],
    json_args: str | None,
    idempotent: bool,
    deadline: float | None,
    node: str | None,
) -> None:
    """Call a function of a component and print its result as JSON.

    ARGS are JSON; where a string, char, enum or case is wanted, a bare word will do. The interface may be
    left out when only one has the function, and needs neither its version nor its package. Exits with 3 when
    the function returns an `err`, which is printed like any result.

    \b
    Examples:
      latticectl call greeter hello World
      latticectl call shop demo:shop/orders place '{"item": "tea", "count": 2}' --idempotent
      latticectl call shop place --json-args '[{"item": "tea", "count": 2}]' --deadline 2s
      latticectl call greeter hello -- --a-word-with-dashes
    """
    given = _read_json(json_args) if json_args is not None else None
    seconds = deadline or session.timeout_or(CALL_SECONDS)

    async def run(client: ControlClient) -> tuple[Function, Any]:
        from ctl.calling import CallOptions
        from ctl.functions import find_function, split_words

        type_ = await client.component_type(component)
        interface, name, rest = split_words(type_, words)
        function = find_function(component, type_, name, interface)
        args = _arguments(function.type, rest, given, is_given=json_args is not None)
        entry = (await client.describe_node(node)).id if node else None
        options = CallOptions(budget_seconds=seconds, idempotent=idempotent, node=entry)
        return function, await client.invoke(function, args, options)

    try:
        function, result = session.run(run)
    except TimedOut as error:
        hint = f"give it more time with --deadline; `latticectl describe {component}` shows its own limit"
        error.details.setdefault("hint", hint)
        raise
    _show(session, function, result)


def _read_json(text: str) -> Any:
    source = "stdin" if text == "-" else "--json-args"
    try:
        given = json.loads(sys.stdin.read() if text == "-" else text)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{source} is not JSON: {error}") from None
    if not isinstance(given, list | dict):
        raise click.UsageError(f"{source} must be an array of arguments, or an object of them by name")
    return given


def _arguments(function: wit.Function, words: Sequence[str], given: Any, *, is_given: bool) -> list[Any]:
    from lattice import values
    from lattice.errors import Invalid

    if is_given:
        if words:
            raise Invalid("arguments were given both as words and with --json-args: use one of them")
        return values.arguments_from_json(function, given)
    if len(words) != len(function.params):
        _refuse_options(words)
        return values.check_arguments(function, words)  # raises, and says what is wanted
    return [
        values.parse_argument(type_, word, f"argument '{name}'")
        for (name, type_), word in zip(function.params, words, strict=True)
    ]


def _refuse_options(words: Sequence[str]) -> None:
    """An unknown option is taken for an argument, since arguments may begin with `-`: say so."""
    for word in words:
        if word.startswith("--"):
            near = did_you_mean(word, ("--json-args", "--idempotent", "--deadline", "--node", "--timeout"))
            raise click.UsageError(f"there is no option `{word}`{near}; after `--` it is an argument")


def _show(session: Session, function: Function, result: Any) -> None:
    from lattice import values, wit

    type_ = function.type.result
    if type_ is None and session.output.is_for_people:
        return
    session.output.value(values.result_to_json(function.type, result))
    if isinstance(type_, wit.Result) and isinstance(result, dict) and "err" in result:
        raise Stop(WIT_ERROR)
