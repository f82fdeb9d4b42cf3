"""Which form of a component serves its HTTP requests."""

from __future__ import annotations

from lattice.model import ComponentSpec
from node.engine.compiled import Form


def form_for(spec: ComponentSpec) -> Form:
    """The shim, unless the component was granted what only the host can give: folders, or the network."""
    return Form.PLAIN if spec.folders or spec.network else Form.SHIM
