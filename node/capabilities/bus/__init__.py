"""`wasmcloud:bus/lattice`: a guest chooses among its links by name."""

from node.capabilities.bus.selection import select, selected

__all__ = ["select", "selected"]
