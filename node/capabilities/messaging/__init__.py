"""`wasmcloud:messaging`: what guests send; what they receive is brought by `node.triggers.messaging`."""

from node.capabilities.messaging.interfaces import SUPPORT, is_builtin, messaging_interfaces
from node.capabilities.messaging.replies import Replies

__all__ = ["SUPPORT", "Replies", "is_builtin", "messaging_interfaces"]
