"""Settings of a provider's process, and what it is to offer."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from lattice.configuration_sources import OpenedSource
from lattice.connection import ConnectionSettings, server_of
from lattice.errors import Invalid
from lattice.process_settings import ProcessSettings, parse_label, parse_name
from lattice.quantities import parse_duration
from lattice.secret_sources import check_apart
from lattice.settings import key_value, setting, whole_number
from providers.hosted import OfferSettings
from providers.kinds import KINDS
from providers.provider import Provider
from providers.registry import ProviderContext, gathered, parse_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSettings(ProcessSettings):
    """Everything that a provider's process can be told."""

    name: str | None = setting(None, "Name under which the provider is offered.", parse_name, metavar="NAME")
    set: tuple[tuple[str, str], ...] = setting(
        (), "Setting of the provider; may be repeated.", key_value, metavar="KEY=VALUE", repeated=True
    )
    label: tuple[tuple[str, str], ...] = setting(
        (), "Label; may be repeated. `zone` is also used for routing.", parse_label,
        metavar="KEY=VALUE", repeated=True,
    )  # fmt: skip
    config_source: tuple[OpenedSource, ...] = setting(
        (),
        "Configurations of this process's own for its links: `env:PREFIX_` opens variables, `file:DIR` files "
        "of a folder; may be repeated.",
        OpenedSource.parse,
        metavar="SOURCE",
        repeated=True,
    )
    secret_source: tuple[OpenedSource, ...] = setting(
        (),
        "Secrets of this process's own for its links: `env:PREFIX_` opens variables, `file:DIR` files of a "
        "folder; may be repeated.",
        OpenedSource.parse,
        metavar="SOURCE",
        repeated=True,
    )
    max_calls: int = setting(1024, "Calls that may be in progress.", whole_number(1, 1_000_000), metavar="N")
    connect_timeout: float = setting(
        10.0, "How long to try to reach NATS at start before giving up.", parse_duration, metavar="TIME"
    )
    drain_timeout: float = setting(
        10.0, "How long a process that ends waits for calls in progress.", parse_duration, metavar="TIME"
    )

    def __post_init__(self) -> None:
        check_apart(self.config_source, self.secret_source)


def connection_settings(settings: MemberSettings, name: str) -> ConnectionSettings:
    """How to connect; reads the file of the machine's embedded server where no server is named.

    Blocks briefly. Raises `Unreachable` with the cure, or `Invalid`.
    """
    return server_of(
        settings, name, connect_seconds=settings.connect_timeout, system_creds=settings.system_creds
    )


MakeOffer = Callable[[ProviderContext], OfferSettings]


def offer_of_class(provider: Callable[..., Provider], settings: MemberSettings) -> MakeOffer:
    """How to offer a provider's class, which is given its settings if it has `settings_type`.

    Raises `Invalid` for a setting that it does not have.
    """
    kind = getattr(provider, "__name__", "custom").lower()
    given = gathered(settings.set)
    settings_type = getattr(provider, "settings_type", None)
    if settings_type is None and given:
        raise Invalid(f"{kind} takes no settings, but `{next(iter(given))}` is set")
    parsed = parse_settings(settings_type, given, kind) if settings_type is not None else None
    make = provider if parsed is None else partial(provider, parsed)

    def offer(context: ProviderContext) -> OfferSettings:
        return OfferSettings(name=context.name, kind=kind, make=make, max_calls=settings.max_calls)

    return offer


def offer_of_target(target: str, settings: MemberSettings) -> MakeOffer:
    """How to offer `MODULE:CLASS`, or a kind that comes with the lattice, such as `keyvalue-redis`.

    Imports the module. Raises `Invalid` for what does not exist.
    """
    if target in KINDS:
        kind = KINDS[target]
        parsed = parse_settings(kind.settings, gathered(settings.set), target)

        def offer(context: ProviderContext) -> OfferSettings:
            return OfferSettings(
                name=context.name,
                kind=kind.name,
                make=partial(kind.make, context, parsed),
                max_calls=settings.max_calls,
            )

        return offer
    return offer_of_class(_load(target), settings)


def _load(target: str) -> Any:
    module_name, separator, name = target.partition(":")
    if not separator:
        raise Invalid(f"{target!r} is neither MODULE:CLASS nor one of {', '.join(KINDS)}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise Invalid(f"cannot import {module_name}: {error}") from None
    if not hasattr(module, name):
        raise Invalid(f"module {module_name} has no {name!r}")
    return getattr(module, name)
