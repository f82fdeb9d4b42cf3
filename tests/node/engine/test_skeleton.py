from __future__ import annotations

import pytest
import wasmtime

from lattice.errors import Invalid
from node.engine.binary import COMPONENT_HEADER, MODULE_HEADER, section
from node.engine.configuration import EngineSettings, make_engine
from node.engine.describe import describe
from node.engine.skeleton import skeleton
from tests.node.engine.guests import BYTES, IDENTITY, RESOURCES, binary

BULK = """
(component
  (core module $m
    (memory (export "memory") 1)
    (data $d "some data that is not needed")
    (table (export "t") 2 funcref)
    (elem (i32.const 0) $f $f)
    (global (export "g") funcref (ref.func $f))
    (func $f (export "run") (param i32) (result i32)
      (memory.init $d (i32.const 0) (i32.const 0) (i32.const 1)) (data.drop $d) local.get 0))
  (component $inner (core module (func $start) (start $start) (data $d "more")))
  (core instance $i (instantiate $m))
  (func (export "run") (param "a" u32) (result u32) (canon lift (core func $i "run"))))
"""


@pytest.fixture(scope="module")
def engine() -> wasmtime.Engine:
    return make_engine(EngineSettings(is_pooling=False))


@pytest.mark.parametrize("text", [IDENTITY, BYTES, RESOURCES, BULK])
def test_a_skeleton_validates_and_has_the_type_of_the_component(engine: wasmtime.Engine, text: str) -> None:
    whole = binary(text)

    bare = skeleton(whole)

    assert describe(bare, engine) == describe(whole, engine)


def test_code_data_and_custom_sections_are_left_out(engine: wasmtime.Engine) -> None:
    bare = skeleton(binary(BULK))

    assert b"not needed" not in bare
    assert b"more" not in bare


def test_more_functions_than_fit_are_refused() -> None:
    module = MODULE_HEADER + section(10, b"\xff\xff\xff\xff\x0f")

    with pytest.raises(Invalid, match="more than fit"):
        skeleton(COMPONENT_HEADER + section(1, module))


def test_deep_nesting_is_refused() -> None:
    nested = COMPONENT_HEADER
    for _ in range(200):
        nested = COMPONENT_HEADER + section(4, nested)

    with pytest.raises(Invalid, match="nested more than"):
        skeleton(nested)
