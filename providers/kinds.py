"""All kinds of providers that come with the lattice: one line each."""

from __future__ import annotations

from collections.abc import Mapping

from providers.keyvalue import memory, nats, redis
from providers.registry import Kind

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        nats.KIND,
        memory.KIND,
        redis.KIND,
    )
}
