"""Names of interfaces, matched as wasmtime's linker matches them; and what is bound how."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.engine import callbacks
from node.engine.engine import Engine
from node.engine.host import HostInterface
from node.engine.linker import Bindings, compatible_name
from tests.node.engine.components import compile_wat


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        ("wasi:io/poll@0.2.3", "wasi:io/poll@0.2"),
        ("wasi:io/poll@0.2.0", "wasi:io/poll@0.2"),
        ("a:b/c@1.7.2", "a:b/c@1"),
        ("a:b/c@0.0.3", "a:b/c@0.0.3"),
        ("a:b/c@0.2.0+build", "a:b/c@0.2"),
        ("wasi:keyvalue/store@0.2.0-draft", "wasi:keyvalue/store@0.2.0-draft"),
        ("a:b/c", "a:b/c"),
        ("-", "-"),
    ],
)
def test_compatible_versions_share_a_name(name: str, shared: str) -> None:
    assert compatible_name(name) == shared


ASKED = """(component (import "demo:ask/host" (instance
  (export "ask" (func (param "question" string) (result string)))
  (export "number" (func (param "question" u64) (result u64)))
  (export "two" (func (param "a" string) (param "b" string) (result string)))
  (export "none" (func (param "question" string))))))"""


async def test_only_functions_from_text_to_text_are_the_drivers_to_answer(
    engine: Engine, tmp_path: Path
) -> None:
    names = frozenset({"ask", "number", "two", "none"})
    offer = HostInterface(
        name="demo:ask/host", functions=dict.fromkeys(names, lambda call, *_: None), channelled=names
    )

    bindings = Bindings(engine.address, compile_wat(ASKED, tmp_path), [offer])
    channelled = {each.name for each in callbacks._bindings.values() if getattr(each, "has_channels", False)}
    bindings.close()

    assert channelled & {f"demo:ask/host#{name}" for name in names} == {"demo:ask/host#ask"}
