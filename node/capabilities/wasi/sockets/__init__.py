"""`wasi:sockets`: TCP, UDP and the lookup of names, for the hosts and ports that a component was granted."""

from node.capabilities.wasi.sockets.interfaces import socket_interfaces

__all__ = ["socket_interfaces"]
