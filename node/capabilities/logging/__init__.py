"""`wasi:logging`: messages with a level and a context, to the component's log."""

from node.capabilities.logging.interfaces import SUPPORT, is_builtin, logging_interfaces

__all__ = ["SUPPORT", "is_builtin", "logging_interfaces"]
