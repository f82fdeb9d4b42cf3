"""The shim inside a guest's component keeps the rules that the component model keeps between components."""

from __future__ import annotations

import pytest
import wasmtime
from wasmtime import component as wasm

from lattice.errors import Invalid, Trapped
from lattice.http import HttpResponse
from node.engine.carriage import carriage
from node.engine.compile_worker import describe_artifact
from node.engine.compiled import Form
from node.engine.compose import Part, plug
from node.engine.configuration import EngineSettings, make_engine
from node.engine.shim_compose import compose_beside, compose_inside, load_core
from node.http.handler import response_of
from tests.node.capabilities.http.conftest import context
from tests.node.capabilities.http.corpus import HELLO, ROOT
from tests.node.capabilities.http.shims import HANDLER, Shims, request

GUEST = (
    """
(component
  (import "wasi:http/types@0.2.0" (instance $types
    (export "fields" (type $fields (sub resource)))
    (export "incoming-request" (type $request (sub resource)))
    (export "outgoing-response" (type $response (sub resource)))
    (export "response-outparam" (type $outparam (sub resource)))
    (type $bytes (list u8))
    (type $cases (variant (case "invalid-syntax") (case "forbidden") (case "immutable")))
    (export "header-error" (type $error (eq $cases)))
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[method]fields.append" (func
      (param "self" (borrow $fields)) (param "name" string) (param "value" $bytes)
      (result (result (error $error)))))
    (export "[constructor]outgoing-response" (func (param "headers" (own $fields)) (result (own $response))))
    (export "[method]outgoing-response.set-status-code" (func
      (param "self" (borrow $response)) (param "status-code" u16) (result (result))))))
  (alias export $types "fields" (type $fields))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $outparam))
  (alias export $types "outgoing-response" (type $response))
  (core module $libc (memory (export "memory") 1))
  (core instance $libc (instantiate $libc))
  (core func $new-fields (canon lower (func $types "[constructor]fields")))
  (core func $append (canon lower (func $types "[method]fields.append")
    (memory (core memory $libc "memory"))))
  (core func $new-response (canon lower (func $types "[constructor]outgoing-response")))
  (core func $set-status (canon lower (func $types "[method]outgoing-response.set-status-code")))
  (core func $drop-fields (canon resource.drop $fields))
  (core func $drop-request (canon resource.drop $request))
  (core module $guest
    (import "libc" "memory" (memory 1))
    (import "h" "new-fields" (func $new-fields (result i32)))
    (import "h" "append" (func $append (param i32 i32 i32 i32 i32 i32)))
    (import "h" "new-response" (func $new-response (param i32) (result i32)))
    (import "h" "set-status" (func $set-status (param i32 i32) (result i32)))
    (import "h" "drop-fields" (func $drop-fields (param i32)))
    (import "h" "drop-request" (func $drop-request (param i32)))
    (data (i32.const 16) "name\\ff\\fe")
    (func (export "handle") (param $request i32) (param $outparam i32) (local $made i32)
      {body}))
  (core instance $guest (instantiate $guest
    (with "libc" (instance $libc))
    (with "h" (instance
      (export "new-fields" (func $new-fields)) (export "append" (func $append))
      (export "new-response" (func $new-response)) (export "set-status" (func $set-status))
      (export "drop-fields" (func $drop-fields)) (export "drop-request" (func $drop-request))))))
"""
    + HANDLER
)


def _append(*arguments: int) -> str:
    """Append a field: where its name is, how long, its value likewise, and where the result goes."""
    return f"(call $append (call $new-fields) {' '.join(f'(i32.const {number})' for number in arguments)})"


FAULTS = {
    "a handle that never was": "(call $drop-fields (i32.const 77))",
    "a handle of no table": "(call $drop-fields (i32.const -1))",
    "a handle dropped twice": "(call $drop-request (local.get $request)) " * 2,
    "a handle of another type": "(call $drop-fields (local.get $request))",
    "a handle that was handed over": """
      (local.set $made (call $new-fields))
      (drop (call $new-response (local.get $made)))
      (drop (call $new-response (local.get $made)))""",
    "the zero handle": "(call $drop-fields (i32.const 0))",
    "a text beyond the memory": _append(65534, 4, 16, 4, 0),
    "bytes beyond the memory": _append(16, 4, 16, -1, 0),
    "a result beyond the memory": _append(16, 4, 16, 4, -4),
    "a text that is not UTF-8": _append(18, 4, 16, 4, 0),
}


def _component(body: str) -> bytes:
    return bytes(wasmtime.wat2wasm(GUEST.replace("{body}", body)))


def _nested() -> bytes:
    """A guest that is a component inside another, as tools that compose make it."""
    binary = (ROOT / HELLO).read_bytes()
    engine = make_engine(EngineSettings(is_pooling=False))
    return plug(Part(binary=binary, type=describe_artifact(engine, binary)), ())


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_guest_that_breaks_a_rule_traps(shims: Shims, fault: str) -> None:
    handler = await shims.make(_component(FAULTS[fault]))

    with pytest.raises(Trapped) as raised:
        await response_of(handler, request(), context())

    assert "without setting a response" not in raised.value.message


async def test_a_guest_that_keeps_to_the_rules_is_not_stopped(shims: Shims) -> None:
    body = """
      (local.set $made (call $new-fields))
      (call $append (local.get $made) (i32.const 16) (i32.const 4) (i32.const 16) (i32.const 4) (i32.const 0))
      (drop (call $set-status (call $new-response (local.get $made)) (i32.const 204)))
      (call $drop-request (local.get $request))"""
    handler = await shims.make(_component(body))

    with pytest.raises(Trapped, match="without setting a response"):
        await response_of(handler, request(), context())


async def test_handles_are_as_many_as_a_guest_wants(shims: Shims) -> None:
    body = """
      (loop $more
        (drop (call $new-fields))
        (br_if $more (i32.lt_u (local.tee $made (i32.add (local.get $made) (i32.const 1))) (i32.const 3000))))
      (call $drop-fields (call $new-fields))"""
    handler = await shims.make(_component(body), reuse=10)

    for _ in range(3):
        with pytest.raises(Trapped, match="without setting a response"):
            await response_of(handler, request(), context())


def test_a_component_of_one_build_is_taken_apart() -> None:
    component = _component("")
    engine = make_engine(EngineSettings(is_pooling=False))

    type_ = describe_artifact(engine, component)

    wasm.Component(engine, compose_inside(component, type_, carriage(type_, Form.SHIM), load_core()))


def test_a_component_made_of_several_is_not_taken_apart() -> None:
    engine = make_engine(EngineSettings(is_pooling=False))
    type_ = describe_artifact(engine, _nested())

    with pytest.raises(Invalid, match="composed of components"):
        compose_inside(_nested(), type_, carriage(type_, Form.SHIM), load_core())
    compose_beside(_nested(), type_, carriage(type_, Form.SHIM), load_core())


async def test_a_component_made_of_several_is_served_by_the_shim_beside_it(shims: Shims) -> None:
    handler = await shims.make(_nested())

    response = await response_of(handler, request(path="/there"), context())

    assert isinstance(response, HttpResponse)
    assert (response.status, response.body) == (200, b"Hello from C: /there\n")
