"""`wasi:blobstore`: the guest's half; the blobs themselves are kept by a provider."""

from node.capabilities.blobstore.interfaces import SUPPORT, Blobstore

__all__ = ["SUPPORT", "Blobstore"]
