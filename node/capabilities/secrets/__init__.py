"""`wasmcloud:secrets`: the secrets that a component was granted, and no others."""

from node.capabilities.secrets.interfaces import SUPPORT, is_builtin, secrets_interfaces

__all__ = ["SUPPORT", "is_builtin", "secrets_interfaces"]
