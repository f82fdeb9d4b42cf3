"""Why replicas of a component are not running yet, and what would help. Pure; for `describe` and `wait`."""

from __future__ import annotations

from dataclasses import dataclass

from lattice.desired import Desired, DesiredComponent
from lattice.imports import Catalog, grant_line, missing_imports
from lattice.inventory import AssignmentState
from lattice.observed import Holding, NodeView, Observed
from lattice.placing import fits, missing_folders

MAX_NAMED = 5
"""Nodes, labels or failures that one reason names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """So many replicas are not running, and why."""

    count: int
    reason: str


def explain(
    component: str, desired: Desired, observed: Observed, now: float, catalog: Catalog | None = None
) -> list[Pending]:
    """The reasons for all replicas of the present revision that do not run; empty when all do."""
    wanted = desired.components.get(component)
    if wanted is None:
        return []
    lacking = wanted.spec.replicas - observed.running(component, wanted.revision)
    found: list[Pending] = []
    for holding in _waiting(wanted, observed):
        count = min(lacking, holding.ordered.count - holding.serving_ordered)
        if count > 0:
            found.append(Pending(count=count, reason=_progress(holding)))
            lacking -= count
    if lacking > 0:
        found.append(Pending(count=lacking, reason=_obstacle(wanted, observed, now, catalog or Catalog())))
    return found


def unresolved(target: str, desired: Desired, observed: Observed) -> str:
    """Why calls to a component or provider go nowhere, where there is nobody to take them."""
    offers = observed.offers.get(target, {}).values()
    if offers:
        reasons = [offer.reason for _, offer in offers]
        return next(filter(None, reasons), "those who offer it leave, or are silent")
    wanted = desired.components.get(target)
    if wanted is None:
        return "no node offers it, and no component has the name"
    return "none of its replicas is running" if wanted.spec.replicas else "it is scaled to 0 replicas"


def _waiting(wanted: DesiredComponent, observed: Observed) -> list[Holding]:
    holdings = observed.holdings.get(wanted.spec.name, {})
    return [
        holding
        for _, holding in sorted(holdings.items())
        if holding.ordered.revision == wanted.revision
        and holding.ordered.state is not AssignmentState.FAILED
        and not holding.node.is_draining
    ]


def _progress(holding: Holding) -> str:
    detail = f": {holding.ordered.reason}" if holding.ordered.reason else ""
    return f"waiting for node {holding.node.name}, which is {holding.ordered.state.value} it{detail}"


def _obstacle(wanted: DesiredComponent, observed: Observed, now: float, catalog: Catalog) -> str:
    """The first thing that stands in the way of the replicas that no node has been ordered to run."""
    nodes = [view for view in observed.live() if view.is_known]
    able = [view for view in nodes if not view.is_draining]
    able = [view for view in able if view.capacity]  # provider processes hold no components
    labelled = [view for view in able if wanted.spec.labels.items() <= dict(view.labels).items()]
    matching = [view for view in labelled if fits(view, wanted.spec)]
    return (
        _missing(wanted, catalog)
        or _no_nodes(nodes, able)
        or _no_match(wanted, able, labelled)
        or _no_folder(wanted, labelled, matching)
        or _failures(wanted, observed, now)
        or _no_capacity(matching)
        or _older_revision(wanted, observed)
        or "waiting for the controller to place it"
    )


def _missing(wanted: DesiredComponent, catalog: Catalog) -> str | None:
    name = wanted.spec.name
    missing = missing_imports(catalog.imports.get(wanted.spec.digest, ()), wanted.links, catalog.is_builtin)
    if not missing:
        return None
    lines = ", ".join(f"`{grant_line(name, interface)}`" for interface in missing[:MAX_NAMED])
    return f"nothing satisfies its import of {', '.join(missing[:MAX_NAMED])}; grant it with {lines}"


def _no_nodes(nodes: list[NodeView], able: list[NodeView]) -> str | None:
    if not nodes:
        return "no node has reported yet; start one with `lattice-node start`"
    return None if able else f"all {len(nodes)} nodes are draining"


def _no_match(wanted: DesiredComponent, able: list[NodeView], matching: list[NodeView]) -> str | None:
    if matching:
        return None
    asked = ", ".join(f"{key}={value}" for key, value in sorted(wanted.spec.labels.items()))
    present = sorted(
        {f"{key}={view.labels[key]}" for view in able for key in wanted.spec.labels if key in view.labels}
    )
    known = f"nodes have {', '.join(present[:MAX_NAMED])}" if present else "no node has such a label"
    return f"no node has the labels {asked} ({known}); start one with `lattice-node start --label`"


def _no_folder(wanted: DesiredComponent, labelled: list[NodeView], matching: list[NodeView]) -> str | None:
    if matching:
        return None
    grant = next(grant for view in labelled for grant in missing_folders(view, wanted.spec))
    kind, suffix = ("writable", ":rw") if grant.writable else ("readable", "")
    return (
        f"no node offers {kind} folder {grant.folder!r} and what else it needs; "
        f"start one with `lattice-node start --folder {grant.folder}=PATH{suffix}`"
    )


def _failures(wanted: DesiredComponent, observed: Observed, now: float) -> str | None:
    found = [
        (node, failure)
        for (node, component, revision), failure in sorted(observed.failures.items())
        if (component, revision) == (wanted.spec.name, wanted.revision) and node in observed.nodes
    ]
    if not found:
        return None
    node, failure = max(found, key=lambda item: item[1].failed_at)
    more = f" (and {len(found) - 1} more nodes)" if len(found) > 1 else ""
    wait = max(failure.retry_at - now, 0)
    name = observed.nodes[node].name
    return f"node {name}{more} could not start it: {failure.reason}; next attempt in {wait:.0f} s"


def _no_capacity(matching: list[NodeView]) -> str | None:
    if any(view.places < view.capacity for view in matching):
        return None
    places = sum(view.capacity for view in matching)
    noun = "node has" if len(matching) == 1 else "nodes have"
    return f"no capacity: the {len(matching)} matching {noun} {places} places, all taken; start another node"


def _older_revision(wanted: DesiredComponent, observed: Observed) -> str | None:
    older = observed.running(wanted.spec.name) - observed.running(wanted.spec.name, wanted.revision)
    return f"{older} replicas still serve the revision before; nodes replace them in turn" if older else None
