"""`wasi:logging` through a real sandbox."""

from __future__ import annotations

import pytest

from lattice.memory_bus import MemoryBroker, MemoryBus
from node.capabilities.logging import SUPPORT, is_builtin, logging_interfaces
from node.capabilities.logging.interfaces import CONTEXT_LENGTH, NAMES
from node.component_logs import LEVELS, ComponentLogs
from node.engine.compiler import Compiler
from node.engine.engine import Engine
from node.engine.host import CallContext, GuestCall
from tests.node.capabilities.guests import Guest, compile_text
from tests.node.capabilities.relays import relay


def text(name: str) -> str:
    cases = " ".join(f'"{level}"' for level in LEVELS)
    type_ = '(param "level" $level) (param "context" string) (param "message" string)'
    host = f"""(import "{name}" (instance $host
      (type $l (enum {cases})) (export "level" (type $level (eq $l))) (export "log" (func {type_}))))"""
    alias = '(alias export $host "level" (type $level))'
    return relay(host, {"log": ("i32 i32 i32 i32 i32", type_)}, alias)


@pytest.mark.parametrize("name", NAMES)
async def test_a_message_has_its_level_and_context(compiler: Compiler, engine: Engine, name: str) -> None:
    async with Guest(engine, await compile_text(compiler, text(name)), logging_interfaces()) as guest:
        for level in LEVELS:
            await guest.call("log", level, "shop", f"a {level}")
        await guest.call("log", "info", "", "")

    assert guest.written == [
        *((f"{level} shop", f"a {level}".encode()) for level in LEVELS),
        ("info", b" "),
    ]


async def test_messages_are_limited_in_rate_even_when_they_say_nothing(
    compiler: Compiler, engine: Engine
) -> None:
    compiled = await compile_text(compiler, text(NAMES[0]))
    async with Guest(engine, compiled, logging_interfaces(), bytes_per_second=1000) as guest:
        for _ in range(500):
            await guest.call("log", "info", "", "")

    assert 10 < len(guest.written) < 300  # a machine that is busy for seconds lets more through


async def test_a_long_context_is_cut(compiler: Compiler, engine: Engine) -> None:
    compiled = await compile_text(compiler, text(NAMES[0]))
    async with Guest(engine, compiled, logging_interfaces()) as guest:
        await guest.call("log", "warn", "x" * 1000, "hello")

    assert guest.written == [("warn " + "x" * CONTEXT_LENGTH, b"hello")]


async def test_lines_that_are_kept_tell_level_and_context_apart() -> None:
    async with MemoryBus(MemoryBroker()) as bus:
        logs = ComponentLogs(bus, "test", "a")
        call = GuestCall("guest", CallContext(deadline=0), None, logs.sink)  # type: ignore[arg-type]

        call.log("warn shop front", b"no stock")
        call.log("stdout", b"hello")
        logs.close()

    kept = [(line["stream"], line["context"], line["text"]) for line in logs.lines("guest", 10)]
    assert kept == [("warn", "shop front", "no stock"), ("stdout", "", "hello")]


def test_every_name_served_is_in_the_table_of_what_is_supported() -> None:
    assert {name.partition("@")[0] for name in NAMES} == set(SUPPORT)
    assert all(is_builtin(name) for name in NAMES)
