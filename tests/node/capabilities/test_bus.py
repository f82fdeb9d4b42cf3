"""`wasmcloud:bus/lattice` through a real sandbox: choosing among links."""

from __future__ import annotations

from typing import Any

import pytest

from lattice.errors import Denied
from lattice.imports import grant_line
from node.capabilities.bus import SUPPORT, bus_interfaces, is_builtin, selected
from node.engine.compiler import Compiler
from node.engine.engine import Engine
from node.engine.host import GuestCall, HostInterface
from tests.node.capabilities.guests import Guest, compile_text
from tests.node.capabilities.relays import OPTIONS

LINKS = {"default", "cache"}

GUEST = """(component
  (import "wasmcloud:bus/lattice@VERSION" (instance $host
    (export "call-target-interface" (type $target (sub resource)))
    (export "[constructor]call-target-interface" (func (param "namespace" string) (param "package" string)
      (param "interface" string) (result (own $target))))
    (export "set-link-name" (func (param "name" string) (param "interfaces" (list (own $target))) RESULT))))
  (import "test:probe/probe" (instance $probe (export "ask" (func (result string)))))
  (core module $memory
    (memory (export "memory") 1)
    (data (i32.const 16) "wasikeyvaluestore")
    (global $next (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (global.get $next) (global.set $next (i32.add (global.get $next) (local.get 3)))))
  (core instance $memory (instantiate $memory))
  (alias export $host "[constructor]call-target-interface" (func $make))
  (alias export $host "set-link-name" (func $set))
  (alias export $probe "ask" (func $ask))
  (core func $make' (canon lower (func $make) OPTIONS))
  (core func $set' (canon lower (func $set) OPTIONS))
  (core func $ask' (canon lower (func $ask) OPTIONS))
  (core module $guest
    (import "host" "memory" (memory 1))
    (import "host" "make" (func $make (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "host" "set" (func $set (param i32 i32 i32 i32 CORE)))
    (import "host" "ask" (func $ask (param i32)))
    (func (export "choose") (param i32 i32) CORE_RESULT
      (i32.store (i32.const 256) (call $make (i32.const 16) (i32.const 4) (i32.const 20) (i32.const 8)
        (i32.const 28) (i32.const 5)))
      (call $set (local.get 0) (local.get 1) (i32.const 256) (i32.const 1) AREA) AREA)
    (func (export "ask") (result i32) (call $ask (i32.const 512)) (i32.const 512))
    (func (export "choose-and-ask") (param i32 i32) (result i32)
      (i32.store (i32.const 256) (call $make (i32.const 16) (i32.const 4) (i32.const 20) (i32.const 8)
        (i32.const 28) (i32.const 5)))
      (call $set (local.get 0) (local.get 1) (i32.const 256) (i32.const 1) AREA)
      (call $ask (i32.const 512)) (i32.const 512)))
  (core instance $guest (instantiate $guest (with "host" (instance (export "memory" (memory $memory "memory"))
    (export "make" (func $make')) (export "set" (func $set')) (export "ask" (func $ask'))))))
  (func (export "choose") (param "name" string) RESULT
    (canon lift (core func $guest "choose") OPTIONS))
  (func (export "ask") (result string)
    (canon lift (core func $guest "ask") OPTIONS))
  (func (export "choose-and-ask") (param "name" string) (result string)
    (canon lift (core func $guest "choose-and-ask") OPTIONS)))
"""


def text(version: str) -> str:
    is_first = version == "1.0.0"
    parts = {
        "OPTIONS": OPTIONS,
        "VERSION": version,
        "CORE_RESULT": "" if is_first else "(result i32)",
        "RESULT": "" if is_first else "(result (result (error string)))",
        "CORE": "" if is_first else "i32",
        "AREA": "" if is_first else "(i32.const 1024)",
    }
    made = GUEST
    for name, part in parts.items():
        made = made.replace(name, part)
    return made


def probe(call: GuestCall) -> str:
    """What a capability of `wasi:keyvalue/store` would read."""
    name = selected(call, "wasi:keyvalue/store@0.2.0-draft")
    if name not in LINKS:
        raise Denied(f"no link {name!r}")
    return name


async def make(compiler: Compiler, engine: Engine, version: str, **options: Any) -> Guest:
    compiled = await compile_text(compiler, text(version))
    imports = [
        *bus_interfaces(
            lambda source, interface: LINKS if interface == "wasi:keyvalue/store" else (), grant_line
        ),
        HostInterface(name="test:probe/probe", functions={"ask": probe}),
    ]
    return Guest(engine, compiled, imports, **options)


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0", "2.0.1"])
async def test_a_guest_chooses_its_link_for_the_rest_of_the_call(
    compiler: Compiler, engine: Engine, version: str
) -> None:
    async with await make(compiler, engine, version) as guest:
        assert await guest.call("ask") == "default"
        assert await guest.call("choose-and-ask", "cache") == "cache"


async def test_a_choice_ends_with_its_call_also_in_a_sandbox_that_serves_another(
    compiler: Compiler, engine: Engine
) -> None:
    async with await make(compiler, engine, "2.0.0", reuse=10) as guest:
        assert await guest.call("choose-and-ask", "cache") == "cache"
        assert await guest.call("ask") == "default"


async def test_the_second_version_says_that_there_is_no_such_link(compiler: Compiler, engine: Engine) -> None:
    async with await make(compiler, engine, "2.0.0") as guest:
        found = await guest.call("choose", "cash")

        assert await guest.call("choose", "default") == {"ok": None}
    assert "did you mean `cache`" in found["err"]
    assert "latticectl link put guest wasi:keyvalue keyvalue-nats --name cash" in found["err"]


async def test_the_first_version_refuses_the_call_over_a_link_that_is_missing(
    compiler: Compiler, engine: Engine
) -> None:
    async with await make(compiler, engine, "1.0.0") as guest:
        await guest.call("choose", "cash")
        with pytest.raises(Denied, match="no link 'cash'"):
            await guest.call("choose-and-ask", "cash")


def test_both_versions_are_in_the_table_of_what_is_supported() -> None:
    assert set(SUPPORT) == {"wasmcloud:bus/lattice"}
    assert is_builtin("wasmcloud:bus/lattice@1.0.0")
    assert is_builtin("wasmcloud:bus/lattice@2.0.0")
    assert is_builtin("wasmcloud:bus/lattice@2.0.1")
    assert not is_builtin("wasmcloud:bus/lattice@3.0.0")
