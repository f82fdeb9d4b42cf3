"""What the leader tells nodes: how many replicas of which revision to run, and what to compile ahead."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from lattice.errors import Invalid
from lattice.fields import Value, check_range
from lattice.model import MAX_NUMBER, MAX_REPLICAS, ComponentSpec, Link, OrderVersion
from lattice.names import check_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Value):
    """What a node shall run of one component; replaces all earlier orders for it. A `count` of 0 stops it.

    A revision that the node does not run is prepared first; then its replicas start and those of others
    drain.
    """

    node: str
    boot: int
    component: str
    revision: str
    count: int
    spec: ComponentSpec | None = None
    """None when `count` is 0."""
    links: tuple[Link, ...] = ()
    fence: int = 0
    generation: int = 0

    def __post_init__(self) -> None:
        check_name(self.component, "component")
        check_range(self.count, 0, MAX_REPLICAS, "count")
        check_range(self.fence, 0, MAX_NUMBER, "fence")
        check_range(self.generation, 0, MAX_NUMBER, "generation")
        if self.count and self.spec is None:
            raise Invalid("spec is missing from an order whose count is not 0")
        if self.spec is not None and self.spec.name != self.component:
            raise Invalid(f"spec is of {self.spec.name!r} in an order for {self.component!r}")

    @property
    def version(self) -> OrderVersion:
        """Decides between orders for one component of a node."""
        return self.fence, self.generation

    def stamped(self, fence: int, generation: int) -> Order:
        """The order with the leader's version."""
        return replace(self, fence=fence, generation=generation)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileAhead(Value):
    """Asks a node to fetch and compile a component that it need not run yet."""

    node: str
    boot: int
    component: str
    digest: str


Command: TypeAlias = Order | CompileAhead


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderReply(Value):
    """A node's answer to an order."""

    node: str
    is_accepted: bool
    fence: int = 0
    """The highest that the node has seen."""
    reason: str = ""

    def __post_init__(self) -> None:
        check_range(self.fence, 0, MAX_NUMBER, "fence")
