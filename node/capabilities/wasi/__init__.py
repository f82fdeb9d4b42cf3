"""WASI 0.2 for components: clocks, randomness, standard streams and waiting, as host functions."""

from node.capabilities.wasi.cli import Exited
from node.capabilities.wasi.interfaces import SUPPORT, is_builtin, wasi_interfaces
from node.capabilities.wasi.settings import WasiSettings

__all__ = ["SUPPORT", "Exited", "WasiSettings", "is_builtin", "wasi_interfaces"]
