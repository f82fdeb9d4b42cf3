"""`wasi:filesystem` over folders of the host: what a component was granted, and nothing beside."""

from node.capabilities.wasi.filesystem.folders import Folder
from node.capabilities.wasi.filesystem.interfaces import filesystem_interfaces

__all__ = ["Folder", "filesystem_interfaces"]
