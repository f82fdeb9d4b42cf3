"""`wasi:config`: the configuration that a component was given, read anew at each call."""

from node.capabilities.config.interfaces import SUPPORT, config_interfaces, is_builtin

__all__ = ["SUPPORT", "config_interfaces", "is_builtin"]
