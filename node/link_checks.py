"""Asks providers whether they can make something of a link's configuration, before the link is stored.

Only where a provider is offered, answers in time and says that it can't: everything else shows in calls.
"""

from __future__ import annotations

from collections.abc import Iterable

import anyio
import structlog

from lattice.caller import Caller, CallRequest, new_call_id
from lattice.clock import now
from lattice.configuration import Configurations
from lattice.errors import Denied, Invalid, LatticeError, NotFound
from lattice.model import Link
from lattice.observer import Observer
from lattice.tasks import own_task
from providers.hosting import CHECK, DESCRIPTION

log = structlog.get_logger()

CHECK_SECONDS = 1.0
"""For all links of one request."""


class LinkChecks:
    """Holds no state of its own."""

    def __init__(self, caller: Caller, observer: Observer, configurations: Configurations) -> None:
        self._caller = caller
        self._observer = observer
        self._configurations = configurations

    async def check(self, links: Iterable[Link]) -> None:
        """Raise `Invalid` that names the link and the key of its configuration that its provider refuses."""
        await own_task()
        with anyio.move_on_after(CHECK_SECONDS):
            for link in links:
                if self._leads_to_provider(link):
                    await self._check(link)

    def _leads_to_provider(self, link: Link) -> bool:
        state = self._observer.state
        return link.target not in state.desired.components and link.target in state.observed.offers

    async def _check(self, link: Link) -> None:
        try:
            configuration = self._configurations.resolve(link.configuration, link.configuration_from)
        except (NotFound, Denied):  # made later, or of the provider's node: not known as a whole here
            return
        request = CallRequest(
            component=link.target,
            interface=DESCRIPTION,
            function=CHECK,
            deadline=now() + CHECK_SECONDS,
            call_id=new_call_id(),
            idempotent=True,
        )
        try:
            await self._caller.call(request, [link.source, link.interface, link.name, configuration])
        except Invalid as error:
            raise Invalid(f"link of {link.interface} to {link.target!r}: {error.message}") from None
        except LatticeError as error:
            log.debug("link.unchecked", target=link.target, reason=error.message)
