"""Control operations on named configurations. Any node serves them; the store decides between two of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from lattice.configuration import Configuration, Configurations
from lattice.errors import Invalid
from lattice.names import check_name

Fields = Mapping[str, Any]
Operation = Callable[[Fields], Awaitable[dict[str, Any]]]
Announce = Callable[[str, Mapping[str, Any]], None]


class ConfigurationOperations:
    """Holds no state of its own: what it changes is in the store."""

    def __init__(self, configurations: Configurations, announce: Announce) -> None:
        self._configurations = configurations
        self._announce = announce

    def table(self) -> dict[str, Operation]:
        """Every operation by its name on the wire."""
        return {
            "config.put": self.put,
            "config.get": self.get,
            "config.delete": self.delete,
            "get.configs": self.get_all,
        }

    async def put(self, request: Fields) -> dict[str, Any]:
        """Make or replace a configuration, or with `merge` change some of its values."""
        values = request.get("values")
        if not isinstance(values, Mapping) or not all(
            isinstance(text, str) for pair in values.items() for text in pair
        ):
            raise Invalid("values must be a map of strings to strings")
        found, is_changed = await self._configurations.put(
            _name(request), dict(values), merge=request.get("merge") is True
        )
        if is_changed:
            self._announce("config.put", {"name": found.name, "generation": found.generation})
        return {**_shown(found), "changed": is_changed}

    async def get(self, request: Fields) -> dict[str, Any]:
        """One configuration with its values."""
        name = _name(request)
        values = self._configurations.resolve({}, [name])
        record = self._configurations.record(name)
        return {"config": {"name": name, "generation": record.generation if record else 0, "values": values}}

    async def delete(self, request: Fields) -> dict[str, Any]:
        """Delete a configuration; components that name it get an error from then on."""
        name = _name(request)
        await self._configurations.delete(name)
        self._announce("config.deleted", {"name": name})
        return {"name": name, "changed": True}

    async def get_all(self, request: Fields) -> dict[str, Any]:
        """All configurations of the lattice, without their values."""
        return {"configs": [_shown(record) for record in self._configurations.records()]}


def _name(request: Fields) -> str:
    name = request.get("name")
    if not isinstance(name, str):
        raise Invalid("name is missing from the request")
    return check_name(name, "configuration name")


def _shown(record: Configuration) -> dict[str, Any]:
    return {"name": record.name, "generation": record.generation, "keys": sorted(record.values)}
