"""A component that has been compiled and is ready to be loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lattice import wit


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
    there every string crosses so too, as its UTF-8 bytes."""
    path: Path
    """An authenticated file in the node's private folder: loading it executes it."""
