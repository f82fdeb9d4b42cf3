"""Components with fewer core modules: what they export does what it did, and what can't be fused stays."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st
from wasmtime import component as wasm

from lattice.errors import Invalid, Trapped
from node.engine import component_items as items
from node.engine.compile_worker import describe_artifact
from node.engine.compiled import CompiledComponent
from node.engine.compiler import Compiler
from node.engine.component_items import read_items
from node.engine.configuration import EngineSettings, make_engine
from node.engine.engine import Engine
from node.engine.fused_component import MOST_INSTANCES, fused
from node.engine.host import GuestCall, HostInterface
from node.engine.limits import InstanceLimits
from node.engine.pool import ComponentPool
from tests.node.engine.components import EXAMPLES, ROOT
from tests.node.engine.conftest import context

PAGE = 64 << 10

PROGRAM = """
(component
  (import "demo:text/loud@0.1.0" (instance $loud
    (export "shout" (func (param "text" string) (result string)))))
  (core module $stand-ins
    (type $shout (func (param i32 i32 i32)))
    (table (export "functions") 1 1 funcref)
    (func (export "0") (param i32 i32 i32)
      (call_indirect (type $shout) (local.get 0) (local.get 1) (local.get 2) (i32.const 0))))
  (core module $program
    (import "loud" "shout" (func $shout (param i32 i32 i32)))
    (memory (export "memory") 17)
    (global $end (mut i32) (i32.const 64))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (global.get $end) (global.set $end (i32.add (global.get $end) (local.get 3))))
    (func (export "greet") (param i32 i32) (result i32)
      (call $shout (local.get 0) (local.get 1) (i32.const 8)) (i32.const 8))
    (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
    (func $it-breaks (export "break") unreachable))
  (core module $known-later
    (import "" "functions" (table 1 1 funcref)) (import "" "0" (func $shout (param i32 i32 i32)))
    (elem (i32.const 0) $shout))
  (core instance $stands (instantiate $stand-ins))
  (alias core export $stands "0" (core func $stand-in))
  (core instance $given (export "shout" (func $stand-in)))
  (core instance $main (instantiate $program (with "loud" (instance $given))))
  (alias core export $main "memory" (core memory $memory))
  (alias core export $main "realloc" (core func $realloc))
  (alias core export $stands "functions" (core table $functions))
  (core func $shout (canon lower (func $loud "shout") (memory $memory) (realloc $realloc)))
  (core instance $filled (export "functions" (table $functions)) (export "0" (func $shout)))
  (core instance (instantiate $known-later (with "" (instance $filled))))
  (func (export "greet") (param "name" string) (result string)
    (canon lift (core func $main "greet") (memory $memory) (realloc $realloc)))
  (func (export "grow") (param "pages" u32) (result s32) (canon lift (core func $main "grow")))
  (func (export "break") (canon lift (core func $main "break"))))
"""
"""Made as tools make them: the host's function is lowered to a memory of whom it is given to."""


def _shout(call: GuestCall, text: str) -> str:
    return f"{text.upper()}!"


LOUD = HostInterface(name="demo:text/loud@0.1.0", functions={"shout": _shout})


@pytest.fixture(scope="module")
def bare_engine() -> wasmtime.Engine:
    return make_engine(EngineSettings(is_pooling=False))


@pytest.fixture
def compiler(tmp_path: Path) -> Compiler:
    return Compiler(tmp_path / "code", b"k" * 32)


def _instances(component: bytes) -> int:
    return sum(isinstance(item, items.CoreInstantiate) for item in read_items(component))


def _binary(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def _module_of(text: str) -> bytes:
    """A component with two instances of one rank, of which one is of that module."""
    return _binary(f"""(component
      (core module $a (func (export "f"))) (core instance $i (instantiate $a))
      (core module $b {text}) (core instance (instantiate $b (with "a" (instance $i)))))""")


async def _pool(
    engine: Engine, compiled: CompiledComponent, imports: Sequence[HostInterface] = (), **limits: Any
) -> ComponentPool:
    limit = InstanceLimits(prewarm=0, **limits)
    return ComponentPool(engine, compiled, name="guest", limits=limit, slots=2, imports=imports)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT / "examples")))
def test_examples_are_fused_or_are_as_small_as_they_can_be(bare_engine: wasmtime.Engine, path: Path) -> None:
    component = path.read_bytes()

    if _instances(component) < 2:
        with pytest.raises(Invalid, match="as few as they can be"):
            fused(component)
        return
    whole = fused(component)

    wasm.Component(bare_engine, whole)
    assert describe_artifact(bare_engine, whole) == describe_artifact(bare_engine, component)
    assert _instances(whole) < _instances(component)


def test_what_needs_the_host_in_between_stays_apart() -> None:
    component = _binary(PROGRAM)

    assert (_instances(component), _instances(fused(component))) == (3, 2)


async def test_a_fused_component_calls_and_is_called_as_before(engine: Engine, compiler: Compiler) -> None:
    compiled = await compiler.compile(_binary(PROGRAM))
    pool = await _pool(engine, compiled, [LOUD])

    greeting = await pool.call("-", "greet", ["ada"], context())
    with pytest.raises(Trapped) as trapped:
        await pool.call("-", "break", [], context())
    await pool.aclose()

    assert greeting == "ADA!"
    assert "it-breaks" in trapped.value.details["trace"]


async def test_memory_ends_at_its_limit(engine: Engine, compiler: Compiler) -> None:
    compiled = await compiler.compile(_binary(PROGRAM))
    pool = await _pool(engine, compiled, [LOUD], memory_bytes=30 * PAGE)

    answers = [await pool.call("-", "grow", [pages], context()) for pages in (3, 13, 14)]
    await pool.aclose()

    assert answers == [17, 17, -1]


async def test_a_component_starts_within_its_limit_as_before(engine: Engine, compiler: Compiler) -> None:
    compiled = await compiler.compile(_binary(PROGRAM))
    enough = await _pool(engine, compiled, [LOUD], memory_bytes=17 * PAGE)
    little = await _pool(engine, compiled, [LOUD], memory_bytes=16 * PAGE)

    assert await enough.call("-", "greet", ["ada"], context()) == "ADA!"
    with pytest.raises(Trapped, match="raise its memory limit"):
        await little.call("-", "greet", ["ada"], context())
    await enough.aclose()
    await little.aclose()


async def test_each_call_finds_its_memory_as_it_was(engine: Engine, compiler: Compiler) -> None:
    text = """(component
      (core module $a (memory (export "m") 64) (data (i32.const 0) "\\07"))
      (core module $b (import "a" "m" (memory 0))
        (func (export "visit") (param i32) (result i32)
          (drop (memory.grow (i32.const 2)))
          (i32.load (local.get 0)) (i32.store (local.get 0) (i32.const 1000))))
      (core instance $a (instantiate $a)) (core instance $b (instantiate $b (with "a" (instance $a))))
      (func (export "visit") (param "place" u32) (result u32) (canon lift (core func $b "visit"))))"""
    compiled = await compiler.compile(_binary(text))
    pool = await _pool(engine, compiled)
    places = [0, 5 * PAGE, 64 * PAGE, 66 * PAGE - 4]

    answers = [await pool.call("-", "visit", [place], context()) for place in places * 2]
    await pool.aclose()

    assert answers == [7, 0, 0, 0] * 2


@pytest.mark.parametrize(
    ("component", "reason"),
    [
        (_module_of("(func)")[:-1], "truncated"),
        (_binary("(component (core module $m) (core instance (instantiate $m)))"), "as few as they can be"),
        (
            _binary(
                "(component (core module $m)"
                " (core instance (instantiate $m)) (core instance (instantiate $m)))"
            ),
            "two instances",
        ),
        (
            _binary(
                "(component (core module)" + "(core instance (instantiate 0))" * (MOST_INSTANCES + 1) + ")"
            ),
            "worth the time",
        ),
        (_module_of("(memory i64 1)"), "memory"),
        (_module_of('(tag (export "t"))'), "section"),
        (_module_of("(func (param anyref))"), "values"),
        (_module_of("(func (block (try_table)))"), "instructions"),
    ],
)
def test_what_can_not_be_fused_says_why(component: bytes, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        fused(component)


async def test_what_can_not_be_fused_is_compiled_as_it_is(engine: Engine, compiler: Compiler) -> None:
    text = """(component
      (core module $a (func (export "f") (result i32) (i32.const 3))) (core instance $i (instantiate $a))
      (core module $b (import "a" "f" (func $f (result i32))) (memory i64 1)
        (func (export "run") (result i32) (call $f)))
      (core instance $j (instantiate $b (with "a" (instance $i))))
      (func (export "run") (result u32) (canon lift (core func $j "run"))))"""
    compiled = await compiler.compile(_binary(text))
    pool = await _pool(engine, compiled)

    answer = await pool.call("-", "run", [], context())
    await pool.aclose()

    assert answer == 3


@given(st.data())
def test_whatever_the_bytes_it_ends_in_a_component_or_invalid(data: st.DataObject) -> None:
    component = bytearray(_binary(PROGRAM))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(8, len(component) - 1))
        component[place] = data.draw(st.integers(0, 255))

    with suppress(Invalid):
        fused(bytes(component))
