"""WASI 0.2 for components: clocks, randomness, streams, files, sockets and waiting, as host functions."""

from node.capabilities.wasi.cli import Exited
from node.capabilities.wasi.filesystem import Folder
from node.capabilities.wasi.interfaces import SUPPORT, is_builtin, wasi_interfaces
from node.capabilities.wasi.network import NetworkPolicy, parse_grant, parse_grants
from node.capabilities.wasi.settings import WasiSettings

__all__ = [
    "SUPPORT",
    "Exited",
    "Folder",
    "NetworkPolicy",
    "WasiSettings",
    "is_builtin",
    "parse_grant",
    "parse_grants",
    "wasi_interfaces",
]
