"""Desired state: the highest version that this process has seen of each application.

It only ever grows: a copy, from wherever and however late, replaces a lower version and nothing else. So it
does not matter in which order or how often copies arrive, and that the store forgot something changes
nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lattice.errors import NotFound
from lattice.model import Application, ComponentSpec, Link, Trigger, revision_of, summary_of
from lattice.names import did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredComponent:
    """A component of a present application, with what follows from it."""

    application: str
    incarnation: int
    spec: ComponentSpec
    links: tuple[Link, ...]
    revision: str
    triggers: tuple[Trigger, ...] = ()


class Desired:
    """Copies of applications, merged.

    The mutable state is the copies, the components that follow from them, and whether they are all.
    """

    def __init__(self) -> None:
        self._copies: dict[str, Application] = {}
        self._claims: dict[str, dict[str, DesiredComponent]] = {}
        self._components: dict[str, DesiredComponent] = {}
        self.is_complete = False
        """Whether all that the store or the nodes hold is here: then what is unknown here is unwanted."""
        self.changes = 0
        """Counts changes, so that a reader sees whether it must look again."""
        self.summary = 0
        """Equal for two processes that know the same versions of the same applications."""

    def __repr__(self) -> str:
        complete = "complete" if self.is_complete else "incomplete"
        return f"<Desired {len(self._copies)} applications, {len(self._components)} components, {complete}>"

    @property
    def applications(self) -> Mapping[str, Application]:
        """All copies, tombstones included, by name."""
        return self._copies

    @property
    def components(self) -> Mapping[str, DesiredComponent]:
        """Components of present applications by name; if two claim one name, the older has it."""
        return self._components

    def component(self, name: str) -> DesiredComponent:
        """The component of that name; raises `NotFound` with the nearest one."""
        found = self._components.get(name)
        if found is None:
            raise NotFound(f"there is no component {name!r}{did_you_mean(name, self._components)}")
        return found

    def application_of(self, component: str) -> Application | None:
        """The present application that has the component."""
        found = self._components.get(component)
        return self._copies[found.application] if found else None

    def merge(self, application: Application) -> bool:
        """Take the copy if it supersedes what is here; returns whether it did."""
        previous = self._copies.get(application.name)
        if not application.supersedes(previous):
            return False
        self._copies[application.name] = application
        self.summary ^= summary_of(application) ^ (summary_of(previous) if previous else 0)
        names = {component.name for copy in (previous, application) if copy for component in copy.components}
        for name in names:
            self._claim(name, application)
        self.changes += 1
        return True

    def forget(self, name: str, now_ms: int) -> bool:
        """Drop a tombstone that is old enough; anything else stays, whatever the store says."""
        copy = self._copies.get(name)
        if copy is None or not copy.is_forgettable(now_ms):
            return False
        del self._copies[name]
        self.summary ^= summary_of(copy)
        self.changes += 1
        return True

    def _claim(self, component: str, application: Application) -> None:
        claims = self._claims.setdefault(component, {})
        claims.pop(application.name, None)
        spec = application.component(component)
        if spec is not None:
            claims[application.name] = _desired(application, spec)
        if claims:
            owner = min(claims.values(), key=lambda claim: (claim.incarnation, claim.application))
            self._components[component] = owner
        else:
            del self._claims[component]
            self._components.pop(component, None)


def _desired(application: Application, spec: ComponentSpec) -> DesiredComponent:
    return DesiredComponent(
        application=application.name,
        incarnation=application.incarnation,
        spec=spec,
        links=application.links_of(spec.name),
        revision=revision_of(spec),
        triggers=application.triggers_of(spec.name),
    )
