from __future__ import annotations

import pytest
import wasmtime
from wasmtime import component as wasm

from lattice import wit
from lattice.errors import Invalid
from node.engine.compose import Part, compatible_name, plug
from node.engine.configuration import EngineSettings, make_engine
from node.engine.describe import describe
from tests.node.engine.guests import binary

ENGINE = make_engine(EngineSettings(is_pooling=False))

GUEST = """
(component
  (import "demo:math/double@1.2.0" (instance $d (export "double" (func (param "n" u32) (result u32)))))
  (import "demo:log/log" (instance (export "note" (func (param "text" string)))))
  (alias export $d "double" (func $f))
  (core func $g (canon lower (func $f)))
  (func $run (param "n" u32) (result u32) (canon lift (core func $g)))
  (instance $api (export "run" (func $run)))
  (export "demo:guest/api" (instance $api)))
"""

DOUBLER = """
(component
  (import "demo:log/log" (instance (export "note" (func (param "text" string)))
    (export "count" (func (result u32)))))
  (core module $m (func (export "double") (param i32) (result i32) local.get 0 local.get 0 i32.add))
  (core instance $i (instantiate $m))
  (func $double (param "n" u32) (result u32) (canon lift (core func $i "double")))
  (instance $d (export "double" (func $double)))
  (export "demo:math/double@1.3.0" (instance $d)))
"""

FORGE = """
(component
  (core module $m (func (export "drop") (param i32)))
  (core instance $i (instantiate $m))
  (type $r' (resource (rep i32)))
  (component $naming (import "r" (type $r (sub resource))) (export "pollable" (type $r)))
  (instance $p (instantiate $naming (with "r" (type $r'))))
  (export "wasi:io/poll@0.2.0" (instance $p)))
"""

USER = """
(component
  (import "wasi:io/poll@0.2.0" (instance $poll (export "pollable" (type (sub resource)))))
  (alias export $poll "pollable" (type $pollable))
  (import "demo:clock/clock" (instance
    (alias outer 1 $pollable (type $p0)) (export "pollable" (type $p (eq $p0)))
    (export "wait" (func (result (own $p)))))))
"""


def part(text: str) -> Part:
    return Part(binary=binary(text), type=describe(binary(text), ENGINE))


def test_a_plug_gives_the_guest_what_it_imports() -> None:
    outer = wasm.Component(ENGINE, plug(part(GUEST), [part(DOUBLER)]))

    linker, store = wasm.Linker(ENGINE), wasmtime.Store(ENGINE)
    store.set_epoch_deadline(1_000_000)
    with linker.root() as root, root.add_instance("demo:log/log") as log:
        log.add_func("note", lambda store, text: None)
        log.add_func("count", lambda store: 0)
    instance = linker.instantiate(store, outer)
    api = instance.get_export_index(store, "demo:guest/api")
    index = instance.get_export_index(store, "run", api)
    assert index is not None
    run = instance.get_func(store, index)
    assert run is not None
    assert run(store, 21) == 42


def test_imports_of_all_parts_are_joined_and_exports_pass_through() -> None:
    outer = describe(plug(part(GUEST), [part(DOUBLER)]), ENGINE)

    assert set(outer.imports) == {"demo:log/log"}
    assert set(outer.imports["demo:log/log"].functions) == {"note", "count"}
    assert outer.exports["demo:guest/api"].functions["run"].result == wit.Primitive("u32")


def test_a_resource_from_inside_cannot_be_part_of_an_import_from_outside() -> None:
    with pytest.raises(Invalid, match=r"`demo:clock/clock` needs `wasi:io/poll@0\.2\.0#pollable`"):
        plug(part(USER), [part(FORGE)])


@pytest.mark.parametrize(
    ("one", "other", "fits"),
    [
        ("a:b/c", "a:b/c", True),
        ("a:b/c@0.2.0", "a:b/c@0.2.9", True),
        ("a:b/c@0.2.0", "a:b/c@0.3.0", False),
        ("a:b/c@1.2.0", "a:b/c@1.9.1", True),
        ("a:b/c@1.2.0", "a:b/c@2.2.0", False),
        ("a:b/c@0.0.1", "a:b/c@0.0.2", False),
        ("a:b/c@0.2.0-draft", "a:b/c@0.2.0", False),
        ("a:b/c", "a:b/c@1.0.0", False),
    ],
)
def test_versions_fit_as_the_linker_says(one: str, other: str, fits: bool) -> None:
    assert (compatible_name(one) == compatible_name(other)) is fits
