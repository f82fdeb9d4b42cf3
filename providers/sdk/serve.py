"""Runs a provider as a process: connection, member, signals."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import structlog
from anyio import to_thread

from lattice.errors import Invalid
from lattice.nats_bus import NatsBus
from lattice.settings import load
from lattice.tasks import outlasting
from providers.provider import Provider
from providers.sdk.member import Member
from providers.sdk.settings import MakeOffer, MemberSettings, connection_settings, offer_of_class

log = structlog.get_logger()

END_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@asynccontextmanager
async def offering(
    provider: Callable[..., Provider], *, name: str, settings: dict[str, Any] | None = None, **member: Any
) -> AsyncGenerator[Member]:
    """Offer a provider to a lattice while the context lasts.

    `settings` are the provider's own, `member` those of `MemberSettings` (`lattice`, `nats`, ...). Calls in
    progress get `drain_timeout` to end in, however the block ends, also by cancellation. Raises `Invalid` for
    a bad setting, `Unreachable` where there is no lattice.
    """
    given = load(MemberSettings, flags={"name": name, **member})
    given = replace(given, set=tuple((key, str(value)) for key, value in (settings or {}).items()))
    async with joined(given, offer_of_class(provider, given)) as joined_member:
        yield joined_member


async def serve(
    provider: Callable[..., Provider], *, name: str, settings: dict[str, Any] | None = None, **member: Any
) -> None:
    """As `offering`, until SIGTERM, Ctrl-C or cancellation."""
    async with offering(provider, name=name, settings=settings, **member):
        await end_signal()


@asynccontextmanager
async def joined(settings: MemberSettings, make_offer: MakeOffer) -> AsyncGenerator[Member]:
    """A member with a connection of its own, which lasts until the member has said that it leaves."""
    if settings.name is None:
        raise Invalid("a provider needs a name: give it --name NAME")
    name = settings.name
    connection = await to_thread.run_sync(connection_settings, settings, name)
    async with (
        outlasting(NatsBus(connection)) as bus,
        outlasting(Member(settings, name, bus, make_offer)) as member,
    ):
        yield member


async def end_signal() -> None:
    """Return at the first signal that asks to end; a second one ends the process as signals do."""
    with anyio.open_signal_receiver(*END_SIGNALS) as signals:
        async for received in signals:
            log.info("member.ending", signal=received.name, hint="a second signal stops at once")
            return
