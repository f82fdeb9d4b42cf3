"""What is checked before a component is run as a job: what a deployment is, and what would be left behind."""

from __future__ import annotations

from lattice import wit
from lattice.configuration import Configurations
from lattice.errors import Invalid
from lattice.imports import KEEPING_PACKAGES, job_grant_line
from lattice.jobs import JobSpec
from lattice.model import Link, package_of
from lattice.state import LatticeState
from node.component_checks import ComponentChecks

BUCKET = "bucket"
"""The key of a link's configuration."""


class JobChecks:
    """Holds no state of its own."""

    def __init__(self, checks: ComponentChecks, state: LatticeState, configurations: Configurations) -> None:
        self._checks = checks
        self._state = state
        self._configurations = configurations

    async def check(self, spec: JobSpec, type_: wit.ComponentType) -> list[str]:
        """Raise what keeps it from being run, `Denied` with the option that would grant it; returns warnings.

        It speaks of the job by its name, which is what whoever began it knows.
        """
        component = spec.component
        self._checks.check_grants(component)
        self._checks.check_imports(component.name, type_, spec.links, job_grant_line)
        for link in spec.links:
            self._check_bucket(link)
        await self._checks.check_configurations(spec.links)
        return self._checks.warnings(component, spec.links)

    def _check_bucket(self, link: Link) -> None:
        """A bucket without a name is called after the source: each run would leave another one behind."""
        package = package_of(link.interface)
        is_kept = package in KEEPING_PACKAGES and link.target not in self._state.desired.components
        if is_kept and not self._names_bucket(link):
            raise Invalid(
                f"a job's link of {package} must name its bucket, or each run would leave one behind: "
                f"`--link {link.interface}={link.target},{BUCKET}=NAME`"
            )

    def _names_bucket(self, link: Link) -> bool:
        """A configuration of a node's own (`env:`, `file:`) does not count: the provider's may be another."""
        shared = (name for name in link.configuration_from if ":" not in name)
        found = [self._configurations.get(name) or {} for name in shared]
        return any(values.get(BUCKET) for values in (link.configuration, *found))
