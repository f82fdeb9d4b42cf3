"""Puts a handler of HTTP requests together with the shim, so that a request is one call with one text.

      host --serve(text)--> door --begin(text)--> shim
                             |                     ^
                             +--handle--> guest ---+ (fields, bodies, streams, clocks, ...)
                             +--end----------------> text of the response

Whatever else the guest imports comes from the host as before, and whatever else it exports stays callable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import wasmtime

from lattice import wit
from lattice.errors import Invalid
from node.engine import binary
from node.engine.bridge import unversioned
from node.engine.carriage import Carriage, is_carried
from node.engine.component_text import quote
from node.engine.compose import Composition, Reference
from node.engine.forwarding import memory_module
from node.engine.shim_inline import inline
from node.engine.shim_text import (
    HOST_FUNCTION,
    HOST_INTERFACE,
    ShimCore,
    read_core,
    shim_text,
)

COMPOSITION_VERSION = 5
"""Part of the cache key, beside the hash of the shim: to be raised with every change of what is generated."""

SHIM_FOLDER = Path(__file__).parents[1] / "capabilities" / "http" / "shim"

DOOR = "lattice:shim/handler"
DOOR_FUNCTION = "serve"
_HANDLER = "wasi:http/incoming-handler@0.2."
_TYPES = "wasi:http/types"
_SERVE = wit.Function((("request", wit.STRING),), wit.STRING)
_ROOM = 32
"""In the door's memory, below what it allocates: two handles and a text's place."""

_DOOR = """(component
  (import "types" (instance $types
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $outparam))
  (import "begin" (func $begin (param "request" string) (result (tuple (own $request) (own $outparam)))))
  (import "end" (func $end (result string)))
  (import "handle" (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))))
  {memory}
  (core instance $memory (instantiate $memory-module))
  (alias core export $memory "memory" (core memory $mem))
  (alias core export $memory "realloc" (core func $realloc))
  (alias core export $memory "reset-i32" (core func $reset))
  (core func $core-begin (canon lower (func $begin) (memory $mem) (realloc $realloc) string-encoding=utf8))
  (core func $core-end (canon lower (func $end) (memory $mem) (realloc $realloc) string-encoding=utf8))
  (core func $core-handle (canon lower (func $handle)))
  (core module $door
    (import "" "memory" (memory 1))
    (import "" "begin" (func $begin (param i32 i32 i32)))
    (import "" "handle" (func $handle (param i32 i32)))
    (import "" "end" (func $end (param i32)))
    (func (export "serve") (param i32 i32) (result i32)
      (call $begin (local.get 0) (local.get 1) (i32.const 8))
      (call $handle (i32.load (i32.const 8)) (i32.load (i32.const 12)))
      (call $end (i32.const 16))
      (i32.const 16)))
  (core instance $door (instantiate $door (with "" (instance
    (export "memory" (memory $mem))
    (export "begin" (func $core-begin))
    (export "handle" (func $core-handle))
    (export "end" (func $core-end))))))
  (func (export "serve") (param "request" string) (result string)
    (canon lift (core func $door "serve")
      (memory $mem) (realloc $realloc) string-encoding=utf8 (post-return $reset))))
"""


def load_core() -> ShimCore:
    """Read the shim from its folder."""
    module, inside = ((SHIM_FOLDER / name).read_bytes() for name in ("shim.wasm", "inside.wasm"))
    return read_core(module, inside, (SHIM_FOLDER / "memory.wat").read_text())


@cache
def shim_hash() -> str:
    """What of the shim shapes a composed component."""
    parts = [(SHIM_FOLDER / name).read_bytes() for name in ("shim.wasm", "inside.wasm", "memory.wat")]
    return hashlib.sha256(b"\0".join([str(COMPOSITION_VERSION).encode(), *parts])).hexdigest()


def handler_export(type_: wit.ComponentType) -> str | None:
    """The name under which a component exports the handler of requests, if it does."""
    return next((name for name in type_.exports if name.startswith(_HANDLER)), None)


def compose_inside(guest: bytes, type_: wit.ComponentType, carriage: Carriage, core: ShimCore) -> bytes:
    """The shim inside the guest's component. Raises `Invalid` where only `compose_beside` may do."""
    return inline(guest, carriage, _handler(type_), core, (DOOR, DOOR_FUNCTION))


def compose_beside(guest: bytes, type_: wit.ComponentType, carriage: Carriage, core: ShimCore) -> bytes:
    """Guest and shim as two components in one. Raises `Invalid` if it imports what the shim can't carry.

    That is whatever the host provides and has streams, pollables or other resources of WASI in its types.
    """
    if carriage.is_mixed:
        raise Invalid(
            "it has streams of the host's, and is composed of components that have code of their own"
        )
    handler = _handler(type_)
    outer = Composition()
    passed = outer.import_interface(wit.Interface(HOST_INTERFACE, {"ask": HOST_FUNCTION}))
    shim = outer.instantiate(_shim(core, type_.imports), {HOST_INTERFACE: passed[HOST_INTERFACE]})
    arguments = _guest_arguments(outer, shim, type_.imports)
    instance = outer.instantiate(guest, arguments)
    door = outer.instantiate(_door(), _door_arguments(outer, shim, instance, handler, type_.imports))
    for name, interface in type_.exports.items():
        if name != handler:
            outer.export_interface(interface, instance)
    outer.write(f"(export {quote(DOOR)} (instance {door}))")
    return outer.encode()


Composing = Callable[[bytes, wit.ComponentType, Carriage, ShimCore], bytes]
"""A way to put guest and shim together."""


def compositions(carriage: Carriage) -> tuple[Composing, ...]:
    """The ways that may do, the better one first: what gives a valid component counts."""
    return (compose_inside,) if carriage.is_mixed else (compose_inside, compose_beside)


def _handler(type_: wit.ComponentType) -> str:
    handler = handler_export(type_)
    if handler is None:
        raise Invalid("the component does not export `wasi:http/incoming-handler`")
    return handler


def composed_type(type_: wit.ComponentType, carriage: Carriage) -> wit.ComponentType:
    """What the composed component imports and exports."""
    imports = type_.imports if carriage.is_mixed else carriage.hosted
    exports = {name: item for name, item in type_.exports.items() if not name.startswith(_HANDLER)}
    return replace(
        type_,
        imports={**imports, HOST_INTERFACE: _host_interface(type_, carriage)},
        exports={**exports, DOOR: wit.Interface(DOOR, {DOOR_FUNCTION: _SERVE})},
    )


def _host_interface(type_: wit.ComponentType, carriage: Carriage) -> wit.Interface:
    functions = {"ask": HOST_FUNCTION}
    if carriage.has_polls:
        poll = next(name for name in type_.imports if unversioned(name) == "wasi:io/poll")
        pollables = wit.List(wit.Handle(f"{poll}#pollable", is_owned=False))
        functions["wait"] = wit.Function((("question", wit.STRING), ("pollables", pollables)), wit.STRING)
    return wit.Interface(HOST_INTERFACE, functions)


def _shim(core: ShimCore, imports: Mapping[str, wit.Interface]) -> bytes:
    return _put_in(bytes(wasmtime.wat2wasm(shim_text(core, imports))), core.module)


def _door() -> bytes:
    memory = memory_module("$memory-module", _ROOM, pages=1)
    return bytes(wasmtime.wat2wasm(_DOOR.replace("{memory}", memory)))


def _put_in(outer: bytes, module: bytes) -> bytes:
    """Fill the empty core module of a component."""
    parts = [outer[: binary.HEADER_SIZE]]
    for part in binary.sections(memoryview(outer)):
        is_empty = part.id == binary.CORE_MODULE and binary.is_empty(part.body, part.offset)
        body: bytes | memoryview = part.body
        if is_empty and module:
            body, module = module, b""
        parts.append(binary.section(part.id, body))
    return b"".join(parts)


def _guest_arguments(
    outer: Composition, shim: str, imports: Mapping[str, wit.Interface]
) -> dict[str, Reference]:
    """What the guest imports, by name: from the shim, or from the host."""
    arguments: dict[str, Reference] = {}
    for name, interface in imports.items():
        if is_carried(name):
            arguments[name] = outer.provide(interface, shim, name)
    for name, interface in imports.items():
        if not is_carried(name):
            arguments |= outer.import_interface(interface)
    return arguments


def _door_arguments(
    outer: Composition, shim: str, guest: str, handler: str, imports: Mapping[str, wit.Interface]
) -> dict[str, Reference]:
    types = next(name for name in imports if name.startswith(f"{_TYPES}@"))
    handle = outer.alias(outer.alias(guest, handler, "instance"), "handle", "func")
    return {
        "types": Reference("instance", outer.alias(shim, types, "instance")),
        "begin": Reference("func", outer.alias(shim, "begin", "func")),
        "end": Reference("func", outer.alias(shim, "end", "func")),
        "handle": Reference("func", handle),
    }
