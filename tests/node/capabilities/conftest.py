"""Fixtures of the capabilities' tests: real sandboxes with the built-in interfaces."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from node.engine.compiler import Compiler
from node.engine.engine import Engine
from tests.node.capabilities.sandboxes import Sandboxes


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    return Compiler(tmp_path_factory.mktemp("code"), b"k" * 32)


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[Engine]:
    """An engine for a file of tests; at its end no instance may be left."""
    async with Engine() as engine:
        yield engine
    assert engine.instances == 0


@pytest.fixture
async def sandboxes(engine: Engine) -> AsyncIterator[Sandboxes]:
    sandboxes = Sandboxes(engine)
    try:
        yield sandboxes
    finally:
        await sandboxes.aclose()
