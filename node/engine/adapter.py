"""Which interfaces' byte lists cross as latin-1 strings."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lattice import wit

ADAPTER_VERSION = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterPlan:
    """What the adapter does around one component."""

    type: wit.ComponentType
    imports: frozenset[str] = field(default_factory=frozenset)
    exports: frozenset[str] = field(default_factory=frozenset)

    @property
    def is_empty(self) -> bool:
        return not self.imports and not self.exports


def plan(type_: wit.ComponentType) -> AdapterPlan:
    return AdapterPlan(type=type_)


def nothing(plan: AdapterPlan) -> AdapterPlan:
    return replace(plan, imports=frozenset(), exports=frozenset())


def adapt(component: bytes, plan: AdapterPlan) -> bytes:
    return component
