"""Settings of a provider's process, and what it is to offer."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lattice import logs
from lattice.configuration_sources import OpenedSource
from lattice.connection import ConnectionSettings, server_of
from lattice.errors import Invalid
from lattice.names import check_label, check_name
from lattice.quantities import parse_duration
from lattice.secret_sources import check_apart
from lattice.settings import key_value, one_of, path, setting, text, whole_number
from providers.hosted import OfferSettings
from providers.kinds import KINDS
from providers.provider import Provider
from providers.registry import ProviderContext, gathered, parse_settings


def _name(raw: str, source: str) -> str:
    return check_name(raw, source)


def _label(raw: str, source: str) -> tuple[str, str]:
    return check_label(*key_value(raw, source))


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSettings:
    """Everything that a provider's process can be told."""

    name: str | None = setting(None, "Name under which the provider is offered.", _name, metavar="NAME")
    set: tuple[tuple[str, str], ...] = setting(
        (), "Setting of the provider; may be repeated.", key_value, metavar="KEY=VALUE", repeated=True
    )
    lattice: str = setting("default", "Name of the lattice to join.", _name, metavar="NAME")
    nats: str | None = setting(
        None,
        "NATS server, or several with commas. Without one, that of the nodes of this machine.",
        text,
        metavar="URL",
    )
    creds: Path | None = setting(None, "NATS credentials file.", path, metavar="FILE")
    system_creds: Path | None = setting(
        None, "NATS credentials file of the system account.", path, metavar="FILE"
    )
    tls_ca: Path | None = setting(None, "Certificate authority of the NATS server.", path, metavar="FILE")
    tls_cert: Path | None = setting(None, "Client certificate for the NATS server.", path, metavar="FILE")
    tls_key: Path | None = setting(None, "Key of the client certificate.", path, metavar="FILE")
    label: tuple[tuple[str, str], ...] = setting(
        (), "Label; may be repeated. `zone` is also used for routing.", _label,
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
    log_level: str = setting("info", "Least level to log.", one_of(*logs.LEVELS), metavar="LEVEL")
    log_format: str = setting(
        "auto", "pretty, json, or auto: pretty on a terminal.", one_of(*logs.FORMATS), metavar="FORMAT"
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
