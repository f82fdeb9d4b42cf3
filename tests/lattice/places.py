"""Where a component runs, as callers choose by it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Place:
    """What a router looks at of a `Placement`."""

    node: str
    zone: str | None = None
    load: float = 0.0
    is_draining: bool = False
