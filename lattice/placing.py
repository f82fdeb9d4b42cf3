"""Where replicas go and which are given up: balance over groups of nodes, then over nodes, then least full.

A group is the nodes that share a value of the label over which a component is spread, or all nodes. Two
levels of heaps keep the cost of placing n replicas on m nodes at (n + m) log m.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import TypeAlias

from lattice.model import ComponentSpec, FolderGrant
from lattice.observed import NodeView

Counts: TypeAlias = MutableMapping[str, int]
"""Replicas of one component by node."""
Rank: TypeAlias = tuple[int, bool, float, float, str]
"""Lower is better: replicas of the component there, not ready, share of places taken, load, id."""


def fits(view: NodeView, spec: ComponentSpec) -> bool:
    """Whether the node may hold the component as far as its labels, folders and kind go."""
    own = view.labels
    return (
        view.capacity > 0
        and all(own.get(key) == value for key, value in spec.labels.items())
        and not missing_folders(view, spec)
    )


def missing_folders(view: NodeView, spec: ComponentSpec) -> list[FolderGrant]:
    """The folders that the component needs and the node's operator did not open so."""
    offered = view.info.folders if view.info else {}
    return [
        grant
        for grant in spec.folders
        if offered.get(grant.folder) not in (("rw",) if grant.writable else ("ro", "rw"))
    ]


def group_of(view: NodeView, spread: str | None) -> str:
    """The group of the node; nodes without the label are one of their own."""
    return "" if spread is None else view.labels.get(spread, "")


class Room:
    """Places that are taken on each node, while one plan is made.

    The mutable state is the places taken: what nodes report, plus what this plan and commands in flight add.
    """

    def __init__(self, nodes: Mapping[str, NodeView]) -> None:
        self._nodes = nodes
        self._taken: dict[str, int] = {}

    def taken(self, node: str) -> int:
        """Places of the node that are taken."""
        found = self._taken.get(node)
        return self._nodes[node].places if found is None else found

    def take(self, node: str, places: int) -> None:
        """Take so many more; fewer when negative."""
        self._taken[node] = self.taken(node) + places

    def view(self, node: str) -> NodeView:
        """What is known of the node."""
        return self._nodes[node]

    def is_free(self, node: str) -> bool:
        """Whether one more replica fits."""
        return self.taken(node) < self._nodes[node].capacity

    def fullness(self, node: str) -> float:
        """Share of its places that are taken."""
        return self.taken(node) / max(self._nodes[node].capacity, 1)


def add(
    counts: Counts,
    wanted: int,
    candidates: Iterable[NodeView],
    *,
    room: Room,
    spread: str | None,
    is_ready: Callable[[str], bool],
) -> int:
    """Add up to `wanted` replicas to `counts` and take their room; returns how many found no place."""

    def rank(view: NodeView) -> Rank:
        return counts.get(view.id, 0), not is_ready(view.id), room.fullness(view.id), view.load, view.id

    groups: dict[str, list[tuple[Rank, NodeView]]] = {}
    for view in candidates:
        if room.is_free(view.id):
            groups.setdefault(group_of(view, spread), []).append((rank(view), view))
    for members in groups.values():
        heapq.heapify(members)
    totals = _totals(counts, room, spread)
    order = [(totals.get(name, 0), members[0][0], name) for name, members in groups.items()]
    heapq.heapify(order)
    while wanted and order:
        total, _, name = heapq.heappop(order)
        members = groups[name]
        view = heapq.heappop(members)[1]
        counts[view.id] = counts.get(view.id, 0) + 1
        room.take(view.id, 1)
        wanted -= 1
        if room.is_free(view.id):
            heapq.heappush(members, (rank(view), view))
        if members:
            heapq.heappush(order, (total + 1, members[0][0], name))
    return wanted


def shed(counts: Counts, excess: int, limits: Mapping[str, int], *, room: Room, spread: str | None) -> int:
    """Take up to `excess` replicas from `counts`, from each node at most its limit; returns the excess left.

    The most crowded group gives first, in it the node with the most replicas, then the fullest.
    """
    groups: dict[str, list[tuple[int, float, str]]] = {}
    totals = _totals(counts, room, spread)
    left = {node: min(limit, counts.get(node, 0)) for node, limit in limits.items()}
    for node in left:
        if left[node]:
            name = group_of(room.view(node), spread)
            groups.setdefault(name, []).append((-counts[node], -room.fullness(node), node))
    for members in groups.values():
        heapq.heapify(members)
    order = [(-totals[name], members[0], name) for name, members in groups.items()]
    heapq.heapify(order)
    while excess and order:
        total, _, name = heapq.heappop(order)
        members = groups[name]
        node = heapq.heappop(members)[2]
        counts[node] -= 1
        left[node] -= 1
        room.take(node, -1)
        excess -= 1
        if left[node]:
            heapq.heappush(members, (-counts[node], -room.fullness(node), node))
        if members:
            heapq.heappush(order, (total + 1, members[0], name))
    return excess


def _totals(counts: Mapping[str, int], room: Room, spread: str | None) -> dict[str, int]:
    totals: dict[str, int] = {}
    for node, count in counts.items():
        name = group_of(room.view(node), spread)
        totals[name] = totals.get(name, 0) + count
    return totals


def spares(candidates: list[NodeView], wanted: int, *, spread: str | None, start: int) -> list[NodeView]:
    """Nodes to be made ready to take over: of different groups as far as there are any.

    `start` turns the order of the candidates, so that not all components choose the same nodes.
    """
    turn = start % len(candidates) if candidates else 0
    chosen: list[NodeView] = []
    others: list[NodeView] = []
    groups: set[str] = set()
    for view in candidates[turn:] + candidates[:turn]:
        is_new_group = group_of(view, spread) not in groups
        groups.add(group_of(view, spread))
        (chosen if is_new_group else others).append(view)
    return (chosen + others)[:wanted]
