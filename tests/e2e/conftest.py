"""A lattice of three nodes that the tests of a module share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ctl.client import ControlClient
from tests.e2e.processes import Lattice


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for the tests of a module and what they share."""
    return "asyncio"


@pytest.fixture(scope="module")
async def shared_lattice(
    anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Lattice]:
    """Three nodes on an embedded server; see `lattice`."""
    async with Lattice(tmp_path_factory.mktemp("lattice"), "e2e") as lattice:
        await lattice.add("a", "b", "c")
        yield lattice


@pytest.fixture
async def lattice(shared_lattice: Lattice) -> Lattice:
    """The module's lattice; every test finds all nodes running and nothing deployed."""
    await shared_lattice.restore()
    return shared_lattice


@pytest.fixture
async def client(lattice: Lattice) -> AsyncIterator[ControlClient]:
    """A client that calls over the component's subject, as one-shot commands do."""
    async with lattice.connect() as client:
        yield client


@pytest.fixture
async def router(lattice: Lattice) -> AsyncIterator[ControlClient]:
    """A client that watches the lattice and routes its own calls, as long-lived programs do."""
    async with lattice.connect(routes_calls=True) as client:
        yield client
