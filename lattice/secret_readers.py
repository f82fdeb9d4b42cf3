"""Who may be given secrets: who announced a key for them, and whom the operator has listed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from lattice.errors import Invalid
from lattice.model import Link
from lattice.names import check_name
from lattice.state import LatticeState
from lattice.subjects import check_node

OF_PROVIDER = "provider:"
"""Begins an entry of the list that is the name of a provider, not the id of a node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A node, or a provider's process, that secrets could be sealed to."""

    announcement: str
    """Its seal key, signed; empty if it gets none."""
    provider: str = ""
    """The one that a provider's process runs."""
    linked: frozenset[str] = frozenset()
    """Secrets that links to that provider refer to."""


@dataclass(frozen=True, slots=True)
class SecretsPolicy:
    """For whom a node seals secrets: nodes (None is everybody), and processes by what they provide.

    The id of a provider's process is made anew at each start, so that it can't be listed. It gets the secrets
    of the links that lead to it, no others.
    """

    nodes: frozenset[str] | None = None
    providers: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str, field_name: str = "secrets-for") -> SecretsPolicy:
        """Of `all`, or a list of node ids and `provider:NAME`; raises `Invalid`."""
        if text == "all":
            return cls()
        items = [item.strip() for item in text.split(",") if item.strip()]
        named = [item.removeprefix(OF_PROVIDER) for item in items if item.startswith(OF_PROVIDER)]
        try:
            return cls(
                frozenset(check_node(item) for item in items if not item.startswith(OF_PROVIDER)),
                frozenset(check_name(name, "provider") for name in named),
            )
        except Invalid as error:
            raise Invalid(
                f"{field_name}: {error.message}; use `all`, or ids (see `latticectl get nodes`) "
                f"and `{OF_PROVIDER}NAME`"
            ) from None

    def allows(self, node: str, candidate: Candidate, secret: str) -> bool:
        """Whether that secret may be sealed to that node or process."""
        if self.nodes is None or node in self.nodes:
            return True
        return candidate.provider in self.providers and secret in candidate.linked


def candidates(state: LatticeState, policy: SecretsPolicy) -> dict[str, Candidate]:
    """Everybody who is there, by id."""
    infos = [view.info for view in state.observed.live() if view.info is not None]
    named = {info.provider for info in infos} & policy.providers
    linked = linked_secrets(state, named) if named else {}
    return {
        info.id: Candidate(
            announcement=info.seal_key,
            provider=info.provider,
            linked=linked.get(info.provider, frozenset()),
        )
        for info in infos
    }


def linked_secrets(state: LatticeState, providers: Iterable[str]) -> Mapping[str, frozenset[str]]:
    """The names of the secrets that links of components and jobs to these providers refer to."""
    found: dict[str, set[str]] = {name: set() for name in providers}
    of_components = (item.links for item in state.desired.components.values())
    links: Iterable[Link] = chain(chain.from_iterable(of_components), state.observed.all_job_links())
    for link in links:
        if link.secrets and link.target in found:
            found[link.target].update(link.secrets.values())
    return {name: frozenset(names) for name, names in found.items()}
