"""What of the host's memory one guest may take up: header fields that it makes, bodies that nobody takes."""

from __future__ import annotations

from lattice.errors import Trapped
from node.engine.host import GuestInstance

ALLOWANCE_BYTES = 16 * 1024 * 1024
"""Of one sandbox. Each object has a limit of its own, but a guest may hold thousands of them."""

_KEY = "wasi:http/allowance"


class Allowance:
    """Counts what is held."""

    def __init__(self, most: int = ALLOWANCE_BYTES) -> None:
        self._most = most
        self.held = 0

    def take(self, size: int) -> None:
        """Hold more; raises `Trapped` beyond the allowance."""
        if self.held + size > self._most:
            raise Trapped(
                f"the component holds {self.held} bytes in header fields, bodies and blobs that it does not "
                f"drop or nobody takes; at most {self._most} are allowed"
            )
        self.held += size

    def give(self, size: int) -> None:
        """Hold less."""
        self.held -= size


def allowance_of(instance: GuestInstance) -> Allowance:
    """The allowance of a sandbox, which lives as long as it does."""
    allowance: Allowance = instance.state.setdefault(_KEY, Allowance())
    return allowance
