"""`wasmcloud:secrets` through a real sandbox: what was granted, what was not, and that no log has a value."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import structlog

from lattice.memory_bus import MemoryBroker, MemoryBus
from lattice.model import ComponentSpec
from lattice.sealing import SealKey, Secret
from lattice.secrets import Secrets, sealed_record
from node.capabilities.secrets import SUPPORT, is_builtin, secrets_interfaces
from node.capabilities.secrets.interfaces import REVEAL, STORE, TOLD_KEYS
from node.engine.compiler import Compiler
from node.engine.engine import Engine
from tests.node.capabilities.guests import Guest, compile_text
from tests.node.capabilities.relays import MEMORY, OPTIONS

VALUE = "hunter2-correct-horse"

GUEST = f"""(component
  (import "{STORE}" (instance $store
    (export "secret" (type $secret (sub resource)))
    (type $e (variant (case "upstream" string) (case "io" string) (case "not-found")))
    (export "secrets-error" (type $error (eq $e)))
    (type $v (variant (case "string" string) (case "bytes" (list u8))))
    (export "secret-value" (type $value (eq $v)))
    (export "get" (func (param "key" string) (result (result (own $secret) (error $error)))))))
  (alias export $store "secret" (type $secret))
  (alias export $store "secret-value" (type $value))
  (alias export $store "secrets-error" (type $error))
  (import "{REVEAL}" (instance $reveal
    (alias outer 1 $secret (type $outer-secret)) (export "secret" (type $secret (eq $outer-secret)))
    (alias outer 1 $value (type $outer-value)) (export "secret-value" (type $value (eq $outer-value)))
    (export "reveal" (func (param "s" (borrow $secret)) (result $value)))))
  {MEMORY}
  (alias export $store "get" (func $get))
  (alias export $reveal "reveal" (func $tell))
  (core func $get' (canon lower (func $get) {OPTIONS}))
  (core func $tell' (canon lower (func $tell) {OPTIONS}))
  (core module $guest
    (import "host" "memory" (memory 1))
    (import "host" "get" (func $get (param i32 i32 i32)))
    (import "host" "tell" (func $tell (param i32 i32)))
    ;; answers {{ok: value}} or {{err: the error}}: both variants have their case at 4 and their text at 8
    (func (export "read") (param i32 i32) (result i32)
      (call $get (local.get 0) (local.get 1) (i32.const 1024))
      (if (i32.eqz (i32.load8_u (i32.const 1024)))
        (then (call $tell (i32.load (i32.const 1028)) (i32.const 1028))))
      (i32.const 1024)))
  (core instance $guest (instantiate $guest (with "host" (instance
    (export "memory" (memory $memory "memory")) (export "get" (func $get')) (export "tell" (func $tell'))))))
  (func (export "read") (param "key" string) (result (result $value (error $error)))
    (canon lift (core func $guest "read") {OPTIONS})))
"""


class World:
    """A node with secrets, and a component whose grants a test changes under way."""

    def __init__(self) -> None:
        self.key = SealKey.generate()
        self.secrets = Secrets(MemoryBus(MemoryBroker()), "test", node="NA", key=self.key)
        self.spec = ComponentSpec(name="guest", digest="sha256:" + "0" * 64)

    def put(self, name: str, value: str | bytes, node: str = "NA") -> None:
        record = sealed_record(
            name,
            Secret(value),
            self.secrets.last(name),
            1,
            lattice="test",
            nodes={node: self.key.public},
        )
        self.secrets._records._merge(record)

    def grant(self, **secrets: str) -> None:
        self.spec = replace(self.spec, secrets=secrets)

    async def guest(self, compiler: Compiler, engine: Engine) -> Guest:
        imports = secrets_interfaces(self.secrets, lambda name: self.spec)
        return Guest(engine, await compile_text(compiler, GUEST), imports)


async def test_a_granted_secret_is_revealed(compiler: Compiler, engine: Engine) -> None:
    world = World()
    world.put("db-password", VALUE)
    world.put("certificate", b"\0\xff")
    world.grant(password="db-password", certificate="certificate")

    async with await world.guest(compiler, engine) as guest:
        assert await guest.call("read", "password") == {"ok": {"string": VALUE}}
        assert await guest.call("read", "certificate") == {"ok": {"bytes": b"\0\xff"}}


async def test_a_secret_that_was_not_granted_does_not_exist(compiler: Compiler, engine: Engine) -> None:
    world = World()
    world.put("db-password", VALUE)
    world.grant(password="other")

    async with await world.guest(compiler, engine) as guest:
        for key in ("db-password", "password", ""):
            assert await guest.call("read", key) == {"err": {"not-found": None}}


async def test_a_secret_for_other_nodes_is_an_error_that_names_the_cure(
    compiler: Compiler, engine: Engine
) -> None:
    world = World()
    world.put("db-password", VALUE, node="NB")
    world.grant(password="db-password")

    async with await world.guest(compiler, engine) as guest:
        found: Any = await guest.call("read", "password")

    assert "--secrets-for" in found["err"]["upstream"]


async def test_rotation_and_revocation_hold_from_the_next_call_on(compiler: Compiler, engine: Engine) -> None:
    world = World()
    world.put("db-password", "old")
    world.grant(password="db-password")

    async with await world.guest(compiler, engine) as guest:
        before = await guest.call("read", "password")
        world.put("db-password", "new")
        after = await guest.call("read", "password")
        world.grant()
        revoked = await guest.call("read", "password")

    assert (before, after) == ({"ok": {"string": "old"}}, {"ok": {"string": "new"}})
    assert revoked == {"err": {"not-found": None}}


async def test_no_log_has_a_value(compiler: Compiler, engine: Engine) -> None:
    world = World()
    with structlog.testing.capture_logs() as logs:
        world.put("db-password", VALUE)
        world.grant(password="db-password")
        async with await world.guest(compiler, engine) as guest:
            await guest.call("read", "password")
            await guest.call("read", "nothing")
            with pytest.raises(Exception, match="argument") as raised:
                await guest.call("read", 1)

    assert any(entry["event"] == "secret.not-granted" for entry in logs)
    assert VALUE not in repr(logs) + repr(world.secrets) + repr(world.secrets.records()) + str(raised.value)


async def test_a_guest_that_asks_in_a_loop_does_not_fill_the_log(compiler: Compiler, engine: Engine) -> None:
    world = World()
    with structlog.testing.capture_logs() as logs:
        async with await world.guest(compiler, engine) as guest:
            for number in range(100):
                await guest.call("read", f"key-{number % 50}")

    assert 0 < len([entry for entry in logs if entry["event"] == "secret.not-granted"]) <= TOLD_KEYS


def test_both_interfaces_are_in_the_table_of_what_is_supported() -> None:
    assert {STORE.partition("@")[0], REVEAL.partition("@")[0]} == set(SUPPORT)
    assert is_builtin(STORE)
    assert is_builtin(REVEAL)
    assert not is_builtin("wasmcloud:secrets/store@1.0.0")
