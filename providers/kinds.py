"""All kinds of providers that come with the lattice: one line each."""

from __future__ import annotations

from collections.abc import Mapping

from providers.blobstore import filesystem as blobstore_filesystem
from providers.blobstore import nats as blobstore_nats
from providers.blobstore import s3 as blobstore_s3
from providers.keyvalue import memory, nats, redis
from providers.messaging import nats as messaging_nats
from providers.registry import Kind

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        nats.KIND,
        memory.KIND,
        redis.KIND,
        blobstore_nats.KIND,
        blobstore_filesystem.KIND,
        blobstore_s3.KIND,
        messaging_nats.KIND,
    )
}
