"""The kinds of providers that come with the lattice, and the settings of each.

An operator offers a provider of a kind under a name; what its settings open is all that links can use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lattice.bus import Bus
from lattice.errors import Invalid
from lattice.names import check_name, did_you_mean
from lattice.settings import declarations
from providers.hosted import OfferSettings
from providers.provider import Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderContext:
    """What the process that runs a provider lends it."""

    name: str
    """Under which it is offered."""
    lattice: str
    bus: Bus


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of provider."""

    name: str
    settings: type[Any]
    """A dataclass of `lattice.settings.setting` fields."""
    make: Callable[[ProviderContext, Any], Provider]
    help: str
    is_default: bool = False
    """Whether every node offers one under the kind's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSpec:
    """A provider as an operator asked for it."""

    name: str
    kind: str
    values: Mapping[str, Any]


def parse_spec(text: str, source: str) -> ProviderSpec:
    """`NAME=KIND[,key=value...]`, as on the command line. Raises `Invalid` that names `source`."""
    head, *rest = text.split(",")
    name, separator, kind = head.partition("=")
    if not separator:
        raise Invalid(f"{source}: {text!r} is not of the form NAME=KIND[,key=value...]")
    pairs: list[tuple[str, str]] = []
    for item in rest:
        key, separator, value = item.partition("=")
        if not separator:
            raise Invalid(f"{source}: {item!r} of provider {name!r} is not of the form key=value")
        pairs.append((key, value))
    return ProviderSpec(name=check_name(name, f"{source}: provider name"), kind=kind, values=gathered(pairs))


def gathered(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The values by key; a list for a key that is there more than once, as a table of a file has it."""
    found: dict[str, list[str]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return {key: values[0] if len(values) == 1 else values for key, values in found.items()}


def table_spec(name: str, table: Any, source: str) -> ProviderSpec:
    """A `[providers.NAME]` table of a settings file, whose `kind` is the kind. Raises `Invalid`."""
    if not isinstance(table, Mapping) or not isinstance(table.get("kind"), str):
        raise Invalid(f"{source}: [providers.{name}] must be a table with a `kind`")
    values = {key: value for key, value in table.items() if key != "kind"}
    return ProviderSpec(
        name=check_name(name, f"{source}: provider name"), kind=str(table["kind"]), values=values
    )


def parse_settings(settings: type[Any], values: Mapping[str, Any], owner: str) -> Any:
    """The typed settings from text or TOML values. Raises `Invalid` that names the key and its owner."""
    known = {declaration.name: declaration for declaration in declarations(settings)}
    given: dict[str, Any] = {}
    for raw_key, raw in values.items():
        key = raw_key.replace("-", "_")
        if key not in known:
            near = did_you_mean(key, known) or f"; it has {', '.join(known) or 'none'}"
            raise Invalid(f"{owner} has no setting `{raw_key}`{near}")
        given[key] = known[key].value(raw, f"{raw_key} of {owner}")
    return settings(**given)


def offer_of(
    spec: ProviderSpec, kinds: Mapping[str, Kind], context: Callable[[str], ProviderContext]
) -> OfferSettings:
    """What to offer for a spec. Raises `Invalid` for an unknown kind or a bad setting."""
    kind = kinds.get(spec.kind)
    if kind is None:
        near = did_you_mean(spec.kind, kinds) or f"; there are {', '.join(sorted(kinds))}"
        raise Invalid(f"provider {spec.name!r} has the unknown kind {spec.kind!r}{near}")
    settings = parse_settings(kind.settings, spec.values, f"provider {spec.name!r}")
    return OfferSettings(
        name=spec.name, kind=kind.name, make=partial(kind.make, context(spec.name), settings)
    )


def with_defaults(specs: Sequence[ProviderSpec], kinds: Mapping[str, Kind]) -> list[ProviderSpec]:
    """The specs and, for each kind that every node offers, one under its name unless that is taken."""
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise Invalid(f"provider {name!r} is configured twice: remove one")
    defaults = [
        ProviderSpec(name=kind.name, kind=kind.name, values={})
        for kind in kinds.values()
        if kind.is_default and kind.name not in names
    ]
    return [*defaults, *specs]
