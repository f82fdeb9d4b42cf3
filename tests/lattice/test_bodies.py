"""Bodies that are too large to be coded between two other things."""

from __future__ import annotations

import threading

from lattice.bodies import HEAVY_BYTES, coded


async def test_only_large_bodies_are_coded_on_a_thread() -> None:
    own = threading.get_ident()

    assert await coded(HEAVY_BYTES, threading.get_ident) == own
    assert await coded(HEAVY_BYTES + 1, threading.get_ident) != own
