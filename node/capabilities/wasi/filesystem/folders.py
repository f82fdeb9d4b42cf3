"""A folder of the host that a component gets to see."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from pathlib import Path

from lattice.errors import Invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """One grant, resolved by the node: the host's path never reaches the guest."""

    host_path: Path
    guest_path: str
    """Absolute, as the guest sees it."""
    writable: bool = False

    def __post_init__(self) -> None:
        if not self.host_path.is_absolute():
            raise Invalid(f"the folder {str(self.host_path)!r} must be given by its absolute path")
        if not self.guest_path.startswith("/") or "\0" in self.guest_path:
            raise Invalid(f"folders.path must be absolute, as in /data, and not {self.guest_path!r}")
        if posixpath.normpath(self.guest_path) != self.guest_path:
            raise Invalid(f"folders.path must be plain, without `.`, `..` or `//`: {self.guest_path!r}")
