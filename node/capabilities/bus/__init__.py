"""`wasmcloud:bus/lattice`: a guest chooses among its links by name."""

from node.capabilities.bus.interfaces import SUPPORT, bus_interfaces, is_builtin
from node.capabilities.bus.selection import select, selected

__all__ = ["SUPPORT", "bus_interfaces", "is_builtin", "select", "selected"]
