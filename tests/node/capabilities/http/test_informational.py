"""Responses of the kind 1xx: nobody passes them on, and every way of handling requests says so alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import wasmtime

from node.http.handler import response_of
from tests.node.capabilities.http.conftest import Handlers, context
from tests.node.capabilities.http.shims import Shims, request

EVERY_IMPORT = (Path(__file__).parent / "every_http_import.wat").read_text()
TYPES = "$wasi:http/types@0.2.12"
LAST = '(export "http-error-code" (func (type 141)))'
SEND = """
      (type $informed (borrow 36))
      (type (func (param "self" $informed) (param "status" 39) (param "headers" 71) (result 130)))
      (export "[method]response-outparam.send-informational" (func (type 143)))"""
"""The function, which is unstable, at the end of the interface."""

LOWERED = (
    ("fields", "[constructor]fields"),
    ("send", "[method]response-outparam.send-informational"),
    ("response", "[constructor]outgoing-response"),
    ("status", "[method]outgoing-response.set-status-code"),
    ("set", "[static]response-outparam.set"),
)

GUEST = """
  (core module $memory-module
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024))
  (core instance $memory (instantiate $memory-module))
  (alias core export $memory "memory" (core memory $mem))
  (alias core export $memory "realloc" (core func $realloc))
  {lowered}
  (core module $guest-module
    (import "" "memory" (memory 1))
    (import "" "fields" (func $fields (result i32)))
    (import "" "send" (func $send (param i32 i32 i32 i32)))
    (import "" "response" (func $response (param i32) (result i32)))
    (import "" "status" (func $status (param i32 i32) (result i32)))
    (import "" "set" (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
    (func (export "handle") (param $request i32) (param $outparam i32) (local $made i32)
      (call $send (local.get $outparam) (i32.const {status}) (call $fields) (i32.const 64))
      (local.set $made (call $response (call $fields)))
      ;; 500 and the number of the error code
      (drop (call $status (local.get $made) (i32.add (i32.const 500)
        (i32.mul (i32.load8_u (i32.const 64)) (i32.load8_u (i32.const 72))))))
      (call $set (local.get $outparam) (i32.const 0) (local.get $made) (i32.const 0) (i64.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))))
  (core instance $guest (instantiate $guest-module (with "" (instance
    (export "memory" (memory $mem)) {given}))))
  (alias export {types} "incoming-request" (type $request))
  (alias export {types} "response-outparam" (type $outparam))
  (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
    (canon lift (core func $guest "handle")))
  (component $export-component
    (import "types" (instance $types
      (export "incoming-request" (type (sub resource)))
      (export "response-outparam" (type (sub resource)))))
    (alias export $types "incoming-request" (type $request))
    (alias export $types "response-outparam" (type $outparam))
    (import "handle" (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))))
    (export $named-request "incoming-request" (type $request))
    (export $named-outparam "response-outparam" (type $outparam))
    (export "handle" (func $handle) (func
      (param "request" (own $named-request)) (param "response-out" (own $named-outparam)))))
  (instance $export (instantiate $export-component
    (with "types" (instance {types})) (with "handle" (func $handle))))
  (export "wasi:http/incoming-handler@0.2.12" (instance $export))
)
"""


def guest(status: int) -> bytes:
    """A handler that sends an informational response, then answers with 500 and the error's number."""
    options = "(memory $mem) (realloc $realloc) string-encoding=utf8"
    lowered = "\n  ".join(
        f'(alias export {TYPES} "{name}" (func $import-{symbol}))'
        f" (core func $lowered-{symbol} (canon lower (func $import-{symbol}) {options}))"
        for symbol, name in LOWERED
    )
    given = " ".join(f'(export "{symbol}" (func $lowered-{symbol}))' for symbol, _ in LOWERED)
    text = EVERY_IMPORT.replace(LAST, LAST + SEND)
    body = GUEST.format(lowered=lowered, given=given, status=status, types=TYPES)
    return bytes(wasmtime.wat2wasm(text.rstrip().removesuffix(")") + body))


CASES = [(103, 538), (100, 538), (199, 538), (99, 535), (200, 535)]
"""Statuses, and `internal-error` or `HTTP-protocol-error`, as the interface has it."""


@pytest.mark.parametrize(("status", "expected"), CASES)
async def test_host_functions_say_that_an_informational_response_is_not_passed_on(
    handlers: Handlers, tmp_path: Path, status: int, expected: int
) -> None:
    (tmp_path / "guest.wasm").write_bytes(guest(status))
    handler = await handlers.make(tmp_path / "guest.wasm")

    assert (await response_of(handler, request(), context())).status == expected


@pytest.mark.parametrize(("status", "expected"), CASES)
async def test_the_shim_says_that_an_informational_response_is_not_passed_on(
    shims: Shims, status: int, expected: int
) -> None:
    handler = await shims.make(guest(status))

    assert (await response_of(handler, request(), context())).status == expected
