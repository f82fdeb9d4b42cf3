"""The shared lattice of the end-to-end tests, for tests that hurt it."""

from tests.e2e.conftest import anyio_backend, client, lattice, router, shared_lattice

__all__ = ["anyio_backend", "client", "lattice", "router", "shared_lattice"]
