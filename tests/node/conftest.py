"""Fixtures of the tests of a node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from lattice import subjects
from lattice.memory_bus import MemoryBus
from lattice.model import Marker
from lattice.observer import MARKER_KEY, encode_value
from tests.node.whole_nodes import Lattice


@pytest.fixture
async def lattice(tmp_path: Path) -> AsyncIterator[Lattice]:
    """No node yet; the store is that of a lattice that has run before: a new one first looks around."""
    async with AsyncExitStack() as stack:
        found = Lattice(tmp_path, stack)
        async with MemoryBus(found.broker) as bus:
            store = await bus.key_value(subjects.state_bucket("default"))
            await store.create(MARKER_KEY, encode_value(Marker(incarnation=1)))
        yield found
