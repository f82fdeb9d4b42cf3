"""A component that has been compiled and is ready to be loaded."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from lattice import wit


class Form(enum.Enum):
    """What becomes of a component that handles HTTP requests; others are the same in either form."""

    PLAIN = "plain"
    """Compiled as it is: the host implements WASI for it."""
    SHIM = "shim"
    """Put together with the shim, which implements WASI inside the sandbox, if the shim can carry it."""
    GRANTED = "granted"
    """As `SHIM`, but the host implements files and sockets, as the component was granted some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledComponent:
    """Compiled code on disk, with the description of the component as its author sees it."""

    digest: str
    """`sha256:<hex>` of the original bytes."""
    size: int
    type: wit.ComponentType
    adapted_imports: frozenset[str]
    adapted_exports: frozenset[str]
    """Interfaces whose every `list<u8>` crosses as a latin-1 string, through the adapter around the guest;
    every string of such a function crosses so too, as its UTF-8 bytes. Others go past it."""
    shimmed_type: wit.ComponentType | None = None
    """What the code imports and exports when it was put together with the shim."""
    path: Path
    """An authenticated file in the node's private folder: loading it executes it."""

    @property
    def is_shimmed(self) -> bool:
        """Whether the component was put together with the shim."""
        return self.shimmed_type is not None

    @property
    def linked_type(self) -> wit.ComponentType:
        """What the code itself imports and exports."""
        return self.shimmed_type or self.type
