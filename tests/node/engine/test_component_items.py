"""A component's items: read and written again they are the same component; rubbish is refused."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st
from wasmtime import component as wasm

from lattice.errors import Invalid
from node.engine.compile_worker import describe_artifact
from node.engine.component_items import Output, read_items
from node.engine.configuration import EngineSettings, make_engine
from node.engine.skeleton import skeleton

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted(
    path for path in (ROOT / "examples").glob("*/*/*.wasm") if path.read_bytes()[4:6] == b"\x0d\x00"
)
HELLO = (ROOT / "examples/http-hello/c/http-hello.wasm").read_bytes()


@pytest.fixture(scope="module")
def engine() -> wasmtime.Engine:
    return make_engine(EngineSettings(is_pooling=False))


def _written_again(component: bytes) -> bytes:
    output = Output()
    for item in read_items(component):
        output.add(item)
    return output.encode()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT / "examples")))
def test_what_was_read_is_written_as_the_same_component(engine: wasmtime.Engine, path: Path) -> None:
    component = skeleton(path.read_bytes())

    again = _written_again(component)

    wasm.Component(engine, again)
    assert describe_artifact(engine, again) == describe_artifact(engine, component)


@given(st.data())
def test_whatever_the_bytes_reading_ends_in_items_or_invalid(data: st.DataObject) -> None:
    component = bytearray(HELLO)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(8, len(component) - 1))
        component[place] = data.draw(st.integers(0, 255))

    with suppress(Invalid):
        read_items(bytes(component))


def test_a_component_that_is_cut_off_is_refused() -> None:
    with pytest.raises(Invalid, match="truncated"):
        read_items(HELLO[:-3])


def test_a_component_that_imports_code_is_refused() -> None:
    with pytest.raises(Invalid, match="core module"):
        read_items(bytes(wasmtime.wat2wasm('(component (import "m" (core module)))')))
