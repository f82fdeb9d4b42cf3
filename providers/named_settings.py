"""What links refer to by name: configurations and secrets of the lattice, as a process knows them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from lattice.configuration import Configurations
from lattice.model import Link
from lattice.secrets import Secrets
from providers.provider import Secret


class NamedSettings:
    """`providers.bindings.LinkSettings`; the mutable state is how often anything named has changed."""

    def __init__(self, configurations: Configurations, secrets: Secrets) -> None:
        self._configurations = configurations
        self._secrets = secrets
        self._changes = 0
        configurations.on_change(self._changed)
        secrets.on_change(self._changed)

    def stamp(self, link: Link) -> Hashable:
        """Another one after any change, for links that refer to anything."""
        return self._changes if link.configuration_from or link.secrets else None

    async def resolve(self, link: Link) -> tuple[Mapping[str, str], Mapping[str, Secret]]:
        """Raises `NotFound` or `Denied` for a name that leads nowhere, with the cure."""
        configuration = self._configurations.resolve(link.configuration, link.configuration_from)
        return configuration, self._secrets.resolve(link.secrets)

    def _changed(self, name: str) -> None:
        self._changes += 1
