"""What one component may use. Defaults are safe for a stranger's code."""

from __future__ import annotations

from dataclasses import dataclass, fields

from lattice.errors import Invalid

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceLimits:
    """Limits of one component on one node; each is checked when made and raises `Invalid`."""

    memory_bytes: int = 256 * MEBIBYTE
    """For each linear memory; more is refused as the guest grows it."""
    max_memories: int = 8
    max_tables: int = 32
    max_table_elements: int = 20_000
    max_core_instances: int = 64
    """Core modules within one instance of the component."""
    budget_seconds: float = 10.0
    """How long an instance may take to start when it is made ahead of a call; a call has its own deadline."""
    queue_length: int = 64
    """Calls that may wait for a slot; more are answered `overloaded` at once."""
    queue_seconds: float = 1.0
    """How long a call waits for a slot before it is answered `overloaded`."""
    reuse: int = 1
    """Calls that one instance serves before it is replaced; 1 gives every call a fresh sandbox."""
    prewarm: int = 2
    """Instances kept ready while the component is busy."""
    payload_bytes: int = 16 * MEBIBYTE
    """What the strings and byte lists of one call's arguments may amount to."""
    log_bytes_per_second: int = 64 << 10

    def __post_init__(self) -> None:
        for item in fields(self):
            value, least = getattr(self, item.name), _LEAST.get(item.name, 1)
            if not least <= value:
                raise Invalid(f"limit {item.name} is {value}: it must be at least {least}")


_LEAST = {
    "memory_bytes": 0,
    "max_memories": 0,
    "max_tables": 0,
    "max_table_elements": 0,
    "budget_seconds": 0.001,
    "queue_length": 0,
    "queue_seconds": 0.0,
    "prewarm": 0,
    "log_bytes_per_second": 0,
}
