"""Which handlers with streams of the host's keep the shim."""

from __future__ import annotations

import pytest
import wasmtime
from wasmtime import component as wasm

from lattice.errors import Invalid
from node.engine.carriage import carriage
from node.engine.compile_worker import describe_artifact
from node.engine.compiled import Form
from node.engine.compiler import Compiler
from node.engine.configuration import EngineSettings, make_engine
from node.engine.shim_compose import compose_inside, composed_type, load_core
from tests.node.capabilities.http.corpus import HELLO, ROOT
from tests.node.capabilities.http.shims import HANDLER

GUESTBOOK = "examples/guestbook/c/guestbook.wasm"
MIXED = "tests/node/capabilities/http/mixed_guest/mixed.wasm"

SPLICER = (
    """
(component
  (import "wasi:io/error@0.2.0" (instance $errors (export "error" (type (sub resource)))))
  (alias export $errors "error" (type $error))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (alias outer 1 $error (type $e))
    (export "error" (type $named (eq $e)))
    (export "input-stream" (type $input (sub resource)))
    (export "output-stream" (type $output (sub resource)))
    (type $cases (variant (case "last-operation-failed" (own $named)) (case "closed")))
    (export "stream-error" (type $failure (eq $cases)))
    {functions}
    (export "[method]output-stream.splice" (func
      (param "self" (borrow $output)) (param "src" (borrow $input)) (param "len" u64)
      (result (result u64 (error $failure)))))))
  (alias export $streams "input-stream" (type $input))
  (import "wasi:http/types@0.2.0" (instance $types
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $outparam))
  (import "demo:files/reader" (instance
    (alias outer 1 $input (type $i))
    (export "input-stream" (type $named (eq $i)))
    (export "open" (func (result (own $named))))))
  (core module $libc (memory (export "memory") 1))
  (core instance $libc (instantiate $libc))
  (core func $splice (canon lower (func $streams "[method]output-stream.splice")
    (memory (core memory $libc "memory"))))
  (core module $guest
    (import "h" "splice" (func (param i32 i32 i64 i32)))
    (func (export "handle") (param i32 i32)))
  (core instance $guest (instantiate $guest (with "h" (instance (export "splice" (func $splice))))))
"""
    + HANDLER
)

NEEDED = """
    (export "[method]input-stream.read" (func
      (param "self" (borrow $input)) (param "len" u64) (result (result (list u8) (error $failure)))))
    (export "[method]output-stream.check-write" (func
      (param "self" (borrow $output)) (result (result u64 (error $failure)))))
    (export "[method]output-stream.write" (func
      (param "self" (borrow $output)) (param "contents" (list u8)) (result (result (error $failure)))))
"""


def _composed(component: bytes, form: Form = Form.SHIM) -> bytes:
    type_ = describe_artifact(_ENGINE, component)
    return compose_inside(component, type_, carriage(type_, form), load_core())


_ENGINE = make_engine(EngineSettings(is_pooling=False))


@pytest.mark.parametrize(("file", "form"), [(GUESTBOOK, Form.SHIM), (MIXED, Form.GRANTED)])
async def test_handlers_with_streams_of_the_hosts_keep_the_shim(
    compiler: Compiler, file: str, form: Form
) -> None:
    compiled = await compiler.compile((ROOT / file).read_bytes(), form=form)

    assert compiled.is_shimmed
    assert "wasi:io/streams@0.2.0" in compiled.adapted_imports
    assert "wasi:http/types@0.2.0" not in compiled.adapted_imports


def test_a_component_without_the_hosts_streams_imports_none_of_wasi() -> None:
    type_ = describe_artifact(_ENGINE, (ROOT / HELLO).read_bytes())

    composed = composed_type(type_, carriage(type_, Form.GRANTED))

    assert list(composed.imports) == ["lattice:shim/host"]


def test_a_guest_that_splices_and_imports_what_that_needs_is_taken_apart() -> None:
    component = bytes(wasmtime.wat2wasm(SPLICER.replace("{functions}", NEEDED)))

    wasm.Component(_ENGINE, _composed(component))


def test_a_guest_that_splices_and_imports_nothing_else_is_not() -> None:
    component = bytes(wasmtime.wat2wasm(SPLICER.replace("{functions}", "")))

    with pytest.raises(Invalid, match="does not import `wasi:io/streams"):
        _composed(component)
