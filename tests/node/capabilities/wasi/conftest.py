"""Fixtures of the tests of WASI."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node.capabilities.wasi.bare_guest import BareGuest


@pytest.fixture(autouse=True)
def end_of_guests() -> Iterator[None]:
    """Have each guest of a test drop what it holds."""
    yield
    while BareGuest.alive:
        BareGuest.alive.pop().end()
