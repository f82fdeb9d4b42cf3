"""What is checked before a component gets what was asked for: a deployment, a link, or a job.

Only what is known here and now: the rest shows in calls, and some of it as warnings. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from lattice import wit
from lattice.compatibility import check_link, match_interface
from lattice.configuration import Configurations
from lattice.errors import Invalid
from lattice.imports import Catalog, check_offer, grant_line, missing_imports
from lattice.model import ComponentSpec, Link
from lattice.names import did_you_mean
from lattice.observer import Observer
from lattice.secrets import Secrets
from node.links import missing_import

Line = Callable[[str], str]
"""The command that grants an import of this name."""


class ComponentChecks:
    """Holds no state of its own."""

    def __init__(
        self,
        observer: Observer,
        *,
        catalog: Catalog,
        configurations: Configurations,
        secrets: Secrets,
        check_grants: Callable[[ComponentSpec], None],
        check_configurations: Callable[[Iterable[Link]], Awaitable[None]],
    ) -> None:
        """The checks raise `Invalid` for grants, and for configurations of links that providers refuse."""
        self._observer = observer
        self._catalog = catalog
        self._configurations = configurations
        self._secrets = secrets
        self.check_grants = check_grants
        self.check_configurations = check_configurations

    def check_imports(
        self, component: str, type_: wit.ComponentType, links: Sequence[Link], line: Line | None = None
    ) -> None:
        """Raise `Denied` for an import that nothing satisfies, or what is wrong with one of the links.

        `line` gives the cure of the former, `link put` without it.
        """
        missing = missing_imports(type_.imports, links, self._catalog.is_builtin)
        if missing:
            cure = line(missing[0]) if line else grant_line(component, missing[0])
            raise missing_import(component, missing[0], cure)
        for link in links:
            self.check_link(link, type_)

    def check_link(self, link: Link, source: wit.ComponentType) -> None:
        """Raise what is wrong with the link, as far as its two ends are known; the rest shows in calls."""
        imports = {name: type_ for name, type_ in source.imports.items() if link.covers(name)}
        if not imports:
            hint = did_you_mean(link.interface, source.imports)
            raise Invalid(f"{link.source!r} does not import {link.interface}{hint}")
        target = self._observer.state.desired.components.get(link.target)
        described = self._observer.descriptions.get(target.spec.digest) if target else None
        if described is not None:
            for wanted, type_ in imports.items():
                _check_export(link, wanted, type_, described.type)
        elif target is None:
            offers = self._observer.state.observed.offers.get(link.target, {})
            for _, offer in offers.values():
                if offer.interfaces:  # one that never ran says nothing of what it will serve
                    check_offer(link, imports, offer)

    def warnings(self, spec: ComponentSpec, links: Iterable[Link]) -> list[str]:
        """What the component was given and can't use as long as nobody makes it."""
        given = tuple(links)
        configurations = [*spec.configuration_from, *(n for link in given for n in link.configuration_from)]
        secrets = [*spec.secrets.values(), *(n for link in given for n in link.secrets.values())]
        return self._loose_ends(given) + self._unknown_names(
            dict.fromkeys(configurations), dict.fromkeys(secrets)
        )

    def link_warnings(self, link: Link) -> list[str]:
        """The same of one link."""
        return self._loose_ends([link]) + self._unknown_names(
            link.configuration_from, dict.fromkeys(link.secrets.values())
        )

    def _loose_ends(self, links: Iterable[Link]) -> list[str]:
        state = self._observer.state
        known = [*state.desired.components, *state.observed.offers]
        return [
            f"its link of {link.interface} leads to {link.target!r}, which is neither deployed nor offered"
            f"{did_you_mean(link.target, known)}"
            for link in links
            if link.target not in known
        ]

    def _unknown_names(self, configurations: Iterable[str], secrets: Iterable[str]) -> list[str]:
        """Names of the lattice that lead nowhere yet; those with a colon are each node's own."""
        found = [
            f"there is no configuration {name!r} yet; `latticectl config put {name} KEY=VALUE` makes it"
            for name in configurations
            if ":" not in name and self._configurations.get(name) is None
        ]
        return found + [
            f"there is no secret {name!r} yet; `latticectl secret put {name}` makes it"
            for name in secrets
            if ":" not in name and self._secrets.record(name) is None
        ]


def _check_export(link: Link, wanted: str, imported: wit.Interface, target: wit.ComponentType) -> None:
    offered = match_interface(wanted, target.exports)
    if offered is None:
        raise Invalid(f"{link.target!r} does not export {wanted}{did_you_mean(wanted, target.exports)}")
    if (problem := check_link(imported, target.exports[offered])) is not None:
        raise problem
