"""Which form of a component serves its HTTP requests."""

from __future__ import annotations

from lattice.model import ComponentSpec
from node.engine.compiled import Form


def form_for(spec: ComponentSpec) -> Form:
    """The shim; with the host's files and sockets if the component was granted folders or the network."""
    return Form.GRANTED if spec.folders or spec.network else Form.SHIM
