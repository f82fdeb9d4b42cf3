"""What the usual toolchains make of a small program starts, prints, sleeps and answers."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from node.engine.compiled import CompiledComponent
from node.engine.compiler import Compiler
from tests.node.capabilities.sandboxes import Sandboxes, context

EXAMPLES = Path(__file__).parents[3] / "examples"
COMMAND = "wasi:cli/run@0.2.0"


@pytest.fixture(scope="module", params=["c", "rust"])
async def command(compiler: Compiler, request: pytest.FixtureRequest) -> CompiledComponent:
    return await compiler.compile((EXAMPLES / "hello-command" / request.param / "hello.wasm").read_bytes())


@pytest.fixture(scope="module")
async def greeter(compiler: Compiler) -> CompiledComponent:
    """With the C library, which looks at everything that WASI has when it starts."""
    return await compiler.compile((EXAMPLES / "greeter" / "c-libc" / "greeter.wasm").read_bytes())


async def test_a_command_sees_its_arguments_prints_and_sleeps(
    sandboxes: Sandboxes, command: CompiledComponent
) -> None:
    pool = sandboxes.pool(command, arguments=("hello", "one"), environment={"HELLO_SLEEP_MS": "20"})
    began = time.monotonic()

    result = await pool.call(COMMAND, "run", (), context())

    assert result == {"ok": None}
    assert time.monotonic() - began >= 0.02
    assert _text(sandboxes, "stdout").startswith("argument 0: hello\nargument 1: one\n")
    slept = re.fullmatch(r"slept (\d+) ms", _text(sandboxes, "stderr"))
    assert slept
    assert 20 <= int(slept[1]) < 10_000  # a busy machine wakes nobody in time


async def test_a_command_that_fails_says_so_in_its_result(
    sandboxes: Sandboxes, command: CompiledComponent
) -> None:
    pool = sandboxes.pool(command, environment={"HELLO_SLEEP_MS": "0", "HELLO_EXIT": "3", "HELLO_FAIL": "1"})

    assert await pool.call(COMMAND, "run", (), context()) == {"err": None}


async def test_a_library_reads_its_environment_and_prints_in_each_call(
    sandboxes: Sandboxes, greeter: CompiledComponent
) -> None:
    pool = sandboxes.pool(greeter, environment={"GREETING": "Servus"})

    answers = [
        await pool.call("demo:greeter/greet", "hello", [name], context(call_id=name))
        for name in ("Ada", "Bob")
    ]

    assert answers == ["Servus, Ada!", "Servus, Bob!"]
    assert sandboxes.printed == [("Ada", "stderr", b"greeting Ada"), ("Bob", "stderr", b"greeting Bob")]


def _text(sandboxes: Sandboxes, name: str) -> str:
    return "\n".join(block.decode() for _, stream, block in sandboxes.printed if stream == name)
