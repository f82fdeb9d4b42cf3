"""`wasi:config` through a real sandbox, in each form in which guests import it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lattice.configuration import Configuration, Configurations
from lattice.errors import NotFound
from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.model import ComponentSpec
from node.capabilities.config import SUPPORT, config_interfaces, is_builtin
from node.capabilities.config.interfaces import NAMES
from node.engine.compiler import Compiler
from node.engine.engine import Engine
from tests.node.capabilities.guests import Guest, compile_text
from tests.node.capabilities.relays import relay

PAIRS = "(list (tuple string string))"
ALIAS = '(alias export $host "error" (type $error))'


def with_result(name: str, cases: str = '(case "upstream" string) (case "io" string)') -> str:
    text, pairs = (
        "(result (result (option string) (error $error)))",
        f"(result (result {PAIRS} (error $error)))",
    )
    functions = {"get": ("i32 i32", f'(param "key" string) {text}'), "get-all": ("", pairs)}
    host = f"""(import "{name}" (instance $host
      (type $e (variant {cases})) (export "error" (type $error (eq $e)))
      (export "get" (func (param "key" string) {text})) (export "get-all" (func {pairs}))))"""
    return relay(host, functions, ALIAS)


def without_result(name: str) -> str:
    functions = {
        "get": ("i32 i32", '(param "key" string) (result (option string))'),
        "get-all": ("", f"(result {PAIRS})"),
    }
    exports = " ".join(f'(export "{key}" (func {type_}))' for key, (_, type_) in functions.items())
    return relay(f'(import "{name}" (instance $host {exports}))', functions)


class World:
    """What the operator wants of the component, which a test changes under way."""

    def __init__(self) -> None:
        self.spec = ComponentSpec(name="guest", digest="sha256:" + "0" * 64)
        self.known = Configurations(MemoryBus(MemoryBroker()), "test")

    def set(self, name: str, values: Mapping[str, str], generation: int = 1) -> None:
        self.known._records._merge(
            Configuration(name=name, incarnation=1, generation=generation, values=values)
        )

    def grant(self, own: Mapping[str, str], *names: str) -> None:
        self.spec = ComponentSpec(
            name="guest", digest=self.spec.digest, configuration=dict(own), configuration_from=names
        )

    async def guest(self, compiler: Compiler, engine: Engine, text: str) -> Guest:
        compiled = await compile_text(compiler, text)
        imports = config_interfaces(compiled.type, self.known, lambda name: self.spec)
        return Guest(engine, compiled, imports)


@pytest.mark.parametrize("name", NAMES)
async def test_every_name_answers_with_what_was_granted(
    compiler: Compiler, engine: Engine, name: str
) -> None:
    world = World()
    world.set("shop", {"colour": "red", "size": "9"})
    world.grant({"size": "10"}, "shop")

    async with await world.guest(compiler, engine, with_result(name)) as guest:
        assert await guest.call("get", "colour") == {"ok": "red"}
        assert await guest.call("get", "nothing") == {"ok": None}
        found = await guest.call("get-all")

    assert [list(pair) for pair in found["ok"]] == [["colour", "red"], ["size", "10"]]


async def test_the_draft_without_results_is_served_under_the_same_name(
    compiler: Compiler, engine: Engine
) -> None:
    world = World()
    world.grant({"size": "10"})

    async with await world.guest(compiler, engine, without_result(NAMES[0])) as guest:
        assert await guest.call("get", "size") == "10"
        assert await guest.call("get", "nothing") is None
        assert [list(pair) for pair in await guest.call("get-all")] == [["size", "10"]]
        world.grant({}, "missing")
        with pytest.raises(NotFound, match="latticectl config put missing"):
            await guest.call("get", "size")


async def test_a_draft_with_another_case_of_error_is_served(compiler: Compiler, engine: Engine) -> None:
    world = World()
    cases = '(case "invalid-name" string) (case "upstream" string) (case "io" string)'

    async with await world.guest(compiler, engine, with_result(NAMES[0], cases)) as guest:
        assert await guest.call("get", "a") == {"ok": None}


async def test_a_change_is_seen_by_the_next_call(compiler: Compiler, engine: Engine) -> None:
    world = World()
    world.set("shop", {"colour": "red"})
    world.grant({}, "shop")

    async with await world.guest(compiler, engine, with_result(NAMES[2])) as guest:
        before = await guest.call("get", "colour")
        world.set("shop", {"colour": "blue"}, generation=2)
        after = await guest.call("get", "colour")

    assert (before, after) == ({"ok": "red"}, {"ok": "blue"})


async def test_without_a_grant_there_is_nothing(compiler: Compiler, engine: Engine) -> None:
    world = World()
    world.set("shop", {"colour": "red"})

    async with await world.guest(compiler, engine, with_result(NAMES[2])) as guest:
        assert await guest.call("get", "colour") == {"ok": None}
        assert await guest.call("get-all") == {"ok": []}


async def test_a_missing_configuration_is_an_error_that_names_the_cure(
    compiler: Compiler, engine: Engine
) -> None:
    world = World()
    world.grant({}, "shop")

    async with await world.guest(compiler, engine, with_result(NAMES[2])) as guest:
        found: Any = await guest.call("get", "colour")

    assert "latticectl config put shop KEY=VALUE" in found["err"]["upstream"]


def test_every_name_served_is_in_the_table_of_what_is_supported() -> None:
    assert {name.partition("@")[0] for name in NAMES} == set(SUPPORT)
    assert all(is_builtin(name) for name in NAMES)
    assert not is_builtin("wasi:config/store@0.3.0")
