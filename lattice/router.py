"""Which node to ask: own node, then own zone, then the less loaded of two picked at random.

Pure: randomness comes in as a function. The two random choices spread calls nearly as well as knowing every
node's exact load would, though each caller sees loads that are up to a heartbeat old
(M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing").
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

PickIndex = Callable[[int], int]
"""`pick(n)` gives a number from 0 to n - 1, each equally likely."""


class Candidate(Protocol):
    """A node that runs the component, as the caller sees it now."""

    @property
    def node(self) -> str:
        """The node's id."""

    @property
    def zone(self) -> str | None:
        """The node's label `zone`."""

    @property
    def load(self) -> float:
        """Share of its slots that are taken: 0 idle, 1 full, more when calls queue."""

    @property
    def is_draining(self) -> bool:
        """Whether to ask another node if there is one."""


def choose(
    candidates: Sequence[Candidate],
    *,
    own_node: str | None,
    own_zone: str | None,
    excluded: Collection[str],
    pick: PickIndex,
) -> str | None:
    """The node to ask next, or None when no candidate is left.

    Draining nodes and those in `excluded` (asked before, in this call) are the last resort and never,
    respectively.
    """
    if len(candidates) == 1 and not excluded:
        return candidates[0].node  # the usual cases of a call, without making lists
    if candidates and not excluded and own_node is None and own_zone is None:
        chosen = _less_loaded_of_two(candidates, pick)
        if not chosen.is_draining:
            return chosen.node
    usable = [each for each in candidates if not each.is_draining and each.node not in excluded]
    usable = usable or [each for each in candidates if each.node not in excluded]
    if not usable:
        return None
    for candidate in usable:
        if candidate.node == own_node:
            return own_node
    if own_zone is not None:
        usable = [candidate for candidate in usable if candidate.zone == own_zone] or usable
    return _less_loaded_of_two(usable, pick).node


def _less_loaded_of_two(candidates: Sequence[Candidate], pick: PickIndex) -> Candidate:
    if len(candidates) == 1:
        return candidates[0]
    first = pick(len(candidates))
    second = pick(len(candidates) - 1)
    second += second >= first
    one, other = candidates[first], candidates[second]
    return one if one.load <= other.load else other
