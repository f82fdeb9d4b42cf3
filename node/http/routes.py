"""Which component answers a request: routes by host and path prefix, from the triggers of kind `http`. Pure.

Of all routes that match, one of the exact host wins over one of `*.domain`, that over one of any host, then
the longer prefix wins. Of two routes with the same host and prefix the older application's has it; the other
is shown as shadowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lattice.errors import Invalid
from lattice.model import Trigger
from lattice.routes import normal_path, route_of, route_text

_MAX_CACHED = 4096
_MAX_CACHED_PATH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Requests for a host, below a path, go to a component."""

    host: str
    """Lower case; `*.domain` for all hosts below it, empty for any."""
    prefix: str
    """Empty or a normal path, without a slash at its end: matches whole segments of the path."""
    component: str
    application: str
    incarnation: int
    """The application's age: the lower, the older."""

    @property
    def text(self) -> str:
        """As people write it."""
        return route_text(self.host, self.prefix)


def parse_trigger(trigger: Trigger, application: str, incarnation: int) -> Route:
    """The route that a trigger asks for; raises `Invalid` that names the key and the cure."""
    host, prefix = route_of(trigger.configuration)
    return Route(
        host=host,
        prefix=prefix,
        component=trigger.component,
        application=application,
        incarnation=incarnation,
    )


def check_trigger(trigger: Trigger) -> None:
    """Raise `Invalid` unless the trigger's configuration is that of a route."""
    route_of(trigger.configuration)


class RouteTable:
    """All routes of a lattice; the mutable state is what was looked up lately."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self._by_host: dict[str, list[Route]] = {}
        self._cache: dict[tuple[str, str], str | None] = {}
        self.shadowed: list[Route] = []
        """Routes that an older application has already."""
        taken: dict[tuple[str, str], Route] = {}
        for route in sorted(routes, key=_age):
            if taken.setdefault((route.host, route.prefix), route) is not route:
                self.shadowed.append(route)
        for route in taken.values():
            self._by_host.setdefault(route.host, []).append(route)
        for of_host in self._by_host.values():
            of_host.sort(key=lambda route: len(route.prefix), reverse=True)

    @property
    def routes(self) -> list[Route]:
        """Those in force, by host and prefix."""
        return sorted(
            (route for of_host in self._by_host.values() for route in of_host), key=lambda route: route.text
        )

    def find(self, authority: str, path: str) -> str | None:
        """The component that answers, or None; `path` has a byte for each character, as it came."""
        key = (authority, path)
        try:
            return self._cache[key]
        except KeyError:
            pass
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        found = self._find(authority, path)
        if len(path) <= _MAX_CACHED_PATH:
            self._cache[key] = found
        return found

    def _find(self, authority: str, path: str) -> str | None:
        path = path.partition("?")[0]
        if "%" in path or not path.isascii():
            path = normal_path(path.encode("latin-1"))
        for host in _hosts(authority):
            for route in self._by_host.get(host, ()):
                if not route.prefix or path == route.prefix or path.startswith(route.prefix + "/"):
                    return route.component
        return None


def _age(route: Route) -> tuple[int, str, str]:
    return route.incarnation, route.application, route.component


def _hosts(authority: str) -> list[str]:
    """Which hosts of routes match, the most exact first."""
    host = authority.lower()
    if host.startswith("["):
        return [host.partition("]")[0] + "]", ""]
    host = host.partition(":")[0].rstrip(".")
    found = [host]
    rest = host
    while "." in rest:
        rest = rest.partition(".")[2]
        found.append(f"*.{rest}")
    return [*found, ""]


def route_table(triggers: Iterable[tuple[Trigger, str, int]]) -> tuple[RouteTable, Mapping[str, str]]:
    """The table of the triggers with their applications and ages, and why others are no routes."""
    routes: list[Route] = []
    broken: dict[str, str] = {}
    for trigger, application, incarnation in triggers:
        try:
            routes.append(parse_trigger(trigger, application, incarnation))
        except Invalid as error:
            broken[f"{trigger.component}/{trigger.name}"] = error.message
    return RouteTable(routes), broken
