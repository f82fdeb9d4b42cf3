"""Which handler answers a component's HTTP requests."""

from __future__ import annotations

from lattice.errors import NotFound
from node.capabilities.http.host_handler import make_host_handler
from node.capabilities.http.shim_handler import ShimHandler
from node.engine.pool import ComponentPool
from node.engine.shim_compose import DOOR
from node.http.handler import HttpHandler


def make_handler(pool: ComponentPool) -> HttpHandler | None:
    """None if the component does not export `wasi:http/incoming-handler`."""
    if DOOR in pool.exports:
        return ShimHandler(pool)
    try:
        return make_host_handler(pool)
    except NotFound:
        return None
