"""For each import of a component: where its calls go, and what was granted to it. Pure, for people to see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lattice.imports import grant_line
from lattice.model import ComponentSpec, Link, package_of, unversioned

UNRESOLVED = "unresolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRoute:
    """One way that calls of an import go; an import with several links has several."""

    interface: str
    route: str
    """`built-in`: the node itself; `local`, `remote` or `unresolved`: over a link; `denied`: nowhere."""
    target: str = ""
    name: str = ""
    """The link's."""
    granted: str = ""
    """What it may do there; where it is denied, what would grant it."""
    reason: str = ""
    """Why calls go nowhere, where the route is unresolved."""


def import_routes(
    spec: ComponentSpec,
    imports: Iterable[str],
    links: Sequence[Link],
    *,
    is_builtin: Callable[[str], bool],
    route: Callable[[Link], str],
    why_unresolved: Callable[[str], str],
) -> list[ImportRoute]:
    """All imports in their order; `route` says where calls over a link go now, the other why they can't."""

    def over(link: Link, interface: str) -> ImportRoute:
        way = route(link)
        return ImportRoute(
            interface=interface,
            route=way,
            target=link.target,
            name=link.name,
            granted=_settings(link),
            reason=why_unresolved(link.target) if way == UNRESOLVED else "",
        )

    return [found for name in imports for found in _routes(spec, name, links, is_builtin, over)]


def _routes(
    spec: ComponentSpec,
    interface: str,
    links: Sequence[Link],
    is_builtin: Callable[[str], bool],
    over: Callable[[Link, str], ImportRoute],
) -> list[ImportRoute]:
    if is_builtin(interface):
        return [_builtin(spec, interface)]
    found = [over(link, interface) for link in links if link.covers(interface)]
    denied = ImportRoute(interface=interface, route="denied", granted=grant_line(spec.name, interface))
    return found or [denied]


def _builtin(spec: ComponentSpec, interface: str) -> ImportRoute:
    needed = _NEEDED.get(unversioned(interface)) or _NEEDED.get(package_of(interface))
    if needed is None:
        return ImportRoute(interface=interface, route="built-in")
    granted, cure = needed
    found = granted(spec)
    if found or cure is None:
        return ImportRoute(interface=interface, route="built-in", granted=", ".join(found))
    return ImportRoute(interface=interface, route="denied", granted=f"`latticectl deploy ... {cure}`")


def _settings(link: Link) -> str:
    parts = [f"{key}={value}" for key, value in sorted(link.configuration.items())]
    parts += [f"configuration {name}" for name in link.configuration_from]
    parts += [f"secret {name} as {key}" for key, name in sorted(link.secrets.items())]
    return ", ".join(parts)


def _folders(spec: ComponentSpec) -> list[str]:
    return [
        f"{grant.folder} at {grant.path}{'' if grant.writable else ' (read-only)'}" for grant in spec.folders
    ]


def _configuration(spec: ComponentSpec) -> list[str]:
    return [*sorted(spec.configuration), *(f"configuration {name}" for name in spec.configuration_from)]


def _secrets(spec: ComponentSpec) -> list[str]:
    return [f"{name} as {key}" for key, name in sorted(spec.secrets.items())]


_NEEDED: Mapping[str, tuple[Callable[[ComponentSpec], Sequence[str]], str | None]] = {
    "wasi:cli/environment": (lambda spec: sorted(spec.environment), None),
    "wasi:config": (_configuration, None),
    "wasi:filesystem": (_folders, "--folder FOLDER:/PATH"),
    "wasi:http/outgoing-handler": (lambda spec: spec.allow_hosts, "--allow-host HOST"),
    "wasi:sockets": (lambda spec: spec.network, "--network tcp:HOST:PORT"),
    "wasmcloud:secrets": (_secrets, "--secret KEY=NAME"),
}
"""What some built-in interfaces open, by interface or package, and the option without which it is nothing."""
