"""Names of interfaces, matched as wasmtime's linker matches them."""

from __future__ import annotations

import pytest

from node.engine.linker import compatible_name


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
