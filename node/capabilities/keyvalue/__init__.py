"""`wasi:keyvalue` for guests: buckets live here, in the call; what they hold is at the provider of a link."""

from node.capabilities.keyvalue.buckets import PACKAGE, Bucket
from node.capabilities.keyvalue.interfaces import SUPPORT, keyvalue_interfaces

__all__ = ["PACKAGE", "SUPPORT", "Bucket", "keyvalue_interfaces"]
