"""Which imports of a component nothing satisfies, and the line that would grant each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lattice.errors import Invalid
from lattice.inventory import Offer
from lattice.model import Link, package_of, unversioned


def _is_wasi(interface: str) -> bool:
    return interface.startswith("wasi:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """What is known of artifacts: the interfaces that each imports, and those that every node provides."""

    imports: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By digest; a digest that is absent is not known yet and held back by nothing."""
    is_builtin: Callable[[str], bool] = _is_wasi


def missing_imports(
    imports: Iterable[str], links: Iterable[Link], is_builtin: Callable[[str], bool]
) -> list[str]:
    """The imports that neither a link nor a built-in satisfies; versions are not compared here."""
    linked = {unversioned(link.interface) for link in links}  # of interfaces, and of whole packages
    return [
        name
        for name in imports
        if linked.isdisjoint((unversioned(name), package_of(name))) and not is_builtin(name)
    ]


PROVIDED: Mapping[str, str] = {
    "wasi:keyvalue": "lattice:keyvalue",
    "wasi:blobstore": "lattice:blobstore",
    "wasmcloud:messaging": "lattice:messaging",
}
"""Packages of which nodes implement the guest's half: what it asks of a provider is the other package."""

DEFAULT_PROVIDERS: Mapping[str, str] = {
    "wasi:keyvalue": "keyvalue-nats",
    "wasi:blobstore": "blobstore-nats",
    "wasmcloud:messaging": "messaging-nats",
}
"""Which every node offers, by the package that a component imports."""


def check_offer(link: Link, imports: Iterable[str], offer: Offer) -> None:
    """Raise `Invalid` if the provider has nothing for one of the imports that the link covers."""
    offered = {unversioned(name) for name in offer.interfaces}
    packages = {package_of(name) for name in offered}
    for name in imports:
        flat = PROVIDED.get(package_of(name))
        if flat not in packages if flat else unversioned(name) not in offered:
            listed = ", ".join(sorted(offered)) or "nothing"
            raise Invalid(f"provider {link.target!r} does not serve {name}; it offers {listed}")


KEEPING_PACKAGES = ("wasi:keyvalue", "wasi:blobstore")
"""What their providers keep outlives whoever wrote it, in a bucket that a link's configuration names."""


def grant_line(component: str, interface: str, name: str = "default") -> str:
    """The command that satisfies the import, by a link of that name."""
    suffix = "" if name == "default" else f" --name {name}"
    return f"latticectl link put {component} {' '.join(_link_ends(interface))}{suffix}"


def job_grant_line(interface: str, name: str = "default") -> str:
    """The same for a job, which has the links that it began with and no others."""
    bucket = ",bucket=NAME" if package_of(interface) in KEEPING_PACKAGES else ""
    suffix = "" if name == "default" else f",name:{name}"
    return f"latticectl run ... --link {'='.join(_link_ends(interface))}{bucket}{suffix}"


def _link_ends(interface: str) -> tuple[str, str]:
    package = package_of(interface)
    if package in DEFAULT_PROVIDERS:
        return package, DEFAULT_PROVIDERS[package]
    return unversioned(interface), "TARGET"
