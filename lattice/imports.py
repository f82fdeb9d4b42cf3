"""Which imports of a component nothing satisfies, and the line that would grant each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lattice.model import Link, unversioned


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
    linked = {unversioned(link.interface) for link in links}
    return [name for name in imports if unversioned(name) not in linked and not is_builtin(name)]


def grant_line(component: str, interface: str) -> str:
    """The command that satisfies the import."""
    return f"latticectl link put {component} {unversioned(interface)} TARGET"
