"""What a component gets to see of the world through WASI."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class WasiSettings:
    """All that is not the same for every component; nothing of the host's own shows through by default."""

    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    """As a program sees them: the first is its name."""
    working_directory: str | None = None
    standard_input: bytes = b""
    monotonic_ns: Callable[[], int] = time.monotonic_ns
    wall_ns: Callable[[], int] = time.time_ns
    random_bytes: Callable[[int], bytes] = os.urandom
