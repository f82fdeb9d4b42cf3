"""Blobs: the flat interface `lattice:blobstore/blobs`, and what keeps them."""

from providers.blobstore.bucket import BlobError, BlobInfo, Bucket, ContainerInfo, Page, Store
from providers.blobstore.provider import INTERFACE, BlobProvider

__all__ = ["INTERFACE", "BlobError", "BlobInfo", "BlobProvider", "Bucket", "ContainerInfo", "Page", "Store"]
