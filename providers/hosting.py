"""All providers that a node, or a process of its own, offers: runs them, and serves the calls to them.

`Providers` is to providers what a node's replicas are to components: `lattice.caller.LocalReplicas`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import anyio
import structlog
from anyio.abc import TaskStatus

from lattice import values, wire, wit
from lattice.bodies import coded
from lattice.caller import CallBatch, CallRequest, Reply
from lattice.clock import now
from lattice.errors import Failed, Invalid, NotFound, TimedOut, Unreachable
from lattice.exchange import Exchange
from lattice.inventory import Offer
from lattice.model import MIB, Link
from lattice.outcome import Outcome
from lattice.streams import ByteReceiver
from lattice.tasks import open_tasks, own_task
from providers.bindings import FLAT_PACKAGES, Bindings, LinkSettings, LinksOf, PlainSettings, Spawn
from providers.hosted import Hosted, OfferSettings
from providers.provider import BoundLink, Provider

DESCRIPTION = "lattice:provider/description"
"""Every provider has it, and it needs no link.

`describe` gives what it serves; `check` of a source, interface, name and configuration raises `Invalid` for a
link that could not be bound.
"""
DESCRIBE, CHECK = "describe", "check"
CHECK_ARGUMENTS = 4

FLAT = tuple(f"{package}/" for package in FLAT_PACKAGES)

Result = TypeVar("Result")

log = structlog.get_logger()

PAYLOAD_BYTES = 8 * MIB
"""Of the arguments of a call; what is larger goes as a stream beside it."""


def taken_name(name: str) -> str:
    """Why a provider of this name is refused, and what to do."""
    return (
        f"{name!r} is a component (`latticectl get components`), and what is meant for one must not reach "
        "the other: offer the provider under another name, or delete the component"
    )


class Providers:
    """The mutable state is that of the providers, and which of them are refused for their name."""

    def __init__(
        self,
        offers: Iterable[OfferSettings],
        *,
        links_of: LinksOf,
        wait_for_news: Callable[[], Awaitable[object]],
        settings: LinkSettings | None = None,
        on_change: Callable[[Sequence[Offer]], None] = lambda offers: None,
        is_component: Callable[[str], bool] = lambda name: False,
    ) -> None:
        """`wait_for_news` returns when links or components may have changed.

        `on_change` is given all offers anew. `is_component` tells of which names there is a component: a
        provider of such a name is not offered, and takes no calls, until there is none.
        """
        self._links_of = links_of
        self._wait_for_news = wait_for_news
        self._settings = settings or PlainSettings()
        self._on_change = on_change
        self._is_component = is_component
        self._refused: frozenset[str] = frozenset()
        self._hosted = {
            offer.name: Hosted(offer, make_bindings=self._bindings, on_change=self._changed)
            for offer in offers
        }
        self._stopped = anyio.Event()

    def __repr__(self) -> str:
        return f"<Providers {', '.join(self._hosted) or 'none'}>"

    def offers(self) -> list[Offer]:
        """What is offered now, healthy or not."""
        return [self._offer(hosted.offer) for hosted in self._hosted.values()]

    def _offer(self, offer: Offer) -> Offer:
        if not self._is_component(offer.name):
            return offer
        return replace(offer, is_healthy=False, reason=taken_name(offer.name))

    def hosted(self) -> Mapping[str, Hosted]:
        """The providers by name, for people who look at their figures."""
        return self._hosted

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run all until `stop`, started once each runs or has failed to; cancelling ends them abruptly."""
        try:
            async with open_tasks() as beside:
                beside.start_soon(self._watch_names)
                async with anyio.create_task_group() as tasks:
                    for hosted in self._hosted.values():
                        tasks.start_soon(hosted.run)
                    for hosted in self._hosted.values():
                        await hosted.wait_until_tried()
                    task_status.started()
                beside.cancel_scope.cancel()
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """Take no more calls, let those in progress end, close; returns when all is done."""
        for hosted in self._hosted.values():
            hosted.stop()
        await self._stopped.wait()

    async def _watch_names(self) -> None:
        """Say so whenever a provider's name becomes that of a component, or is free again."""
        while True:
            refused = frozenset(filter(self._is_component, self._hosted))
            if refused != self._refused:
                for name in sorted(refused - self._refused):
                    log.error("provider.refused", provider=name, reason=taken_name(name))
                for name in sorted(self._refused - refused):
                    log.info("provider.admitted", provider=name)
                self._refused = refused
                self._changed()
            await self._wait_for_news()

    def _changed(self) -> None:
        self._on_change(self.offers())

    def _bindings(self, name: str, provider: Provider, spawn: Spawn) -> Bindings:
        return Bindings(
            name,
            provider,
            links_of=self._links_of,
            settings=self._settings,
            wait_for_news=self._wait_for_news,
            spawn=spawn,
        )

    # Calls

    def serves(self, component: str) -> bool:
        """Whether it takes calls here now."""
        hosted = self._hosted.get(component)
        return hosted is not None and hosted.is_running and not self._is_component(component)

    def begin(self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any]) -> Outcome[Any]:
        """As `call`; providers wait for what they stand before, so none is over at once."""
        return self.call(request, args)

    def begin_batch(self, batch: CallBatch) -> None:
        """Providers wait for what they stand before, so each call is begun by itself."""

    async def call(self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any]) -> Any:
        """Call with values; whoever calls within the process ends the call at its deadline."""
        # The flat interfaces are called by a node's own code, and by nothing else within the process.
        hosted = self._hosted.get(request.component)
        if hosted is not None and request.interface.startswith(FLAT):
            return await hosted.call(request, args, is_checked=True)
        return await self._called(request, args)

    async def call_encoded(self, request: CallRequest, body: bytes, content_type: str) -> Reply:
        """Call with encoded arguments, at most until the request's deadline."""
        if content_type == wire.MSGPACK:
            decode = partial(wire.decode, body, max_bytes=PAYLOAD_BYTES)
            args = await coded(len(body), decode) if body else ()
            value = await self._timed(request, self._called(request, args))
            return Reply(data=_encoded(request, value))
        type_ = self._of(request).function_type(request)
        data = wire.decode_json(body, max_bytes=PAYLOAD_BYTES) if body else []
        args = data if type_ is None else values.arguments_from_json(type_, data)
        value = await self._timed(request, self._called(request, args))
        shown = value if type_ is None else values.result_to_json(type_, value)
        return Reply(data=wire.encode_json(shown), content_type=content_type)

    async def exchange(
        self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any], body: ByteReceiver | None
    ) -> Exchange:
        """Call with byte streams beside arguments and value."""
        return await self._timed(request, self._of(request).exchange(request, args, body))

    async def _called(self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any]) -> Any:
        if request.interface == DESCRIPTION:
            return await self._described(request, args)
        return await self._of(request).call(request, args)

    async def _timed(self, request: CallRequest, work: Awaitable[Result]) -> Result:
        await own_task()
        try:
            with anyio.fail_after(max(0.0, request.deadline - now())):
                return await work
        except TimeoutError:
            raise TimedOut(f"the budget of the call to {request.target} ended") from None

    def _of(self, request: CallRequest) -> Hosted:
        hosted = self._hosted.get(request.component)
        if hosted is None:
            raise Unreachable(f"no provider {request.component!r} runs here")
        return hosted

    async def _described(
        self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any]
    ) -> dict[str, Any] | None:
        hosted = self._of(request)
        if request.function == DESCRIBE:
            return _description(hosted)
        if request.function == CHECK:
            await hosted.check_link(_link_of(request.component, args))
            return None
        raise NotFound(f"{DESCRIPTION} has the functions `{DESCRIBE}` and `{CHECK}`")


def _encoded(request: CallRequest, value: Any) -> bytes:
    try:
        return wire.encode(value)
    except Invalid as error:
        raise Failed(f"{request.target} returned what can't be sent: {error.message}") from None


def _link_of(provider: str, args: Sequence[Any] | Mapping[str, Any]) -> BoundLink:
    if isinstance(args, Mapping) or len(args) != CHECK_ARGUMENTS:
        raise Invalid(f"`{CHECK}` takes a source, an interface, a name and a configuration")
    source, interface, name, configuration = args
    link = Link.from_dict(
        {
            "source": source,
            "interface": interface,
            "target": provider,
            "name": name,
            "configuration": configuration,
        }
    )
    return BoundLink(
        source=link.source, name=link.name, interface=link.interface, configuration=dict(link.configuration)
    )


def _description(hosted: Hosted) -> dict[str, Any]:
    statistics = hosted.statistics
    return {
        "offer": hosted.offer.to_dict(),
        "exports": [wit.interface_to_json(interface) for interface in hosted.types()],
        "statistics": {
            "calls": statistics.calls,
            "errors": dict(statistics.errors),
            "in_progress": statistics.in_progress,
            "busy_seconds": statistics.busy_seconds,
            "starts": statistics.starts,
        },
        "links": [
            {"source": link.source, "name": link.name, "interface": link.interface} for link in hosted.links()
        ],
    }
