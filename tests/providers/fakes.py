"""Providers, links and hosts of tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from lattice.caller import CallRequest, new_call_id
from lattice.clock import now
from lattice.errors import Interrupted, Invalid, LatticeError
from lattice.inventory import Offer
from lattice.model import Link
from lattice.streams import ByteReceiver, pair, send_body
from lattice.tasks import open_tasks
from providers.hosted import OfferSettings
from providers.hosting import Providers
from providers.provider import BoundLink, Provider, ProviderCall, ProviderFunction, Streamed

GREET = "acme:greetings/greet"


@dataclass
class World:
    """What all incarnations of a provider share: what was done with them, and what shall go wrong."""

    events: list[str] = field(default_factory=list)
    fails_to_start: list[LatticeError] = field(default_factory=list)
    fails_to_check: LatticeError | None = None
    hangs: bool = False
    """Whether checks do not end."""
    checks: int = 0
    entered: anyio.Event = field(default_factory=anyio.Event)
    release: anyio.Event = field(default_factory=anyio.Event)
    unbound: anyio.Event = field(default_factory=anyio.Event)


class Greeter(Provider):
    """Greets by the word of the link's configuration."""

    types: Mapping[str, Mapping[str, str]] = {GREET: {"greet": "func(name: string) -> string"}}

    def __init__(self, world: World, *, clients_may_call: bool = False) -> None:
        self.world = world
        self.clients_may_call = clients_may_call

    @property
    def interfaces(self) -> Mapping[str, Mapping[str, ProviderFunction]]:
        functions: dict[str, ProviderFunction] = {
            "greet": self._greet,
            "wait": self._wait,
            "fail": self._fail,
            "fail-interrupted": self._fail_interrupted,
            "double": self._double,
            "binding": self._binding,
        }
        return {GREET: functions}

    async def start(self) -> None:
        self.world.events.append("start")
        if self.world.fails_to_start:
            raise self.world.fails_to_start.pop(0)

    async def aclose(self) -> None:
        self.world.events.append("close")

    async def check(self) -> None:
        self.world.checks += 1
        if self.world.hangs:
            await anyio.sleep_forever()
        if self.world.fails_to_check is not None:
            error, self.world.fails_to_check = self.world.fails_to_check, None
            raise error

    async def bind(self, link: BoundLink) -> str:
        word = link.configuration.get("word", "Hello")
        if not word.isalpha():
            raise Invalid("configuration `word` must be letters")
        self.world.events.append(f"bind {word}")
        return word

    async def unbind(self, link: BoundLink, binding: str) -> None:
        self.world.events.append(f"unbind {binding}")
        self.world.unbound.set()

    async def _greet(self, call: ProviderCall, name: str) -> str:
        return f"{call.binding}, {name}!"

    async def _wait(self, call: ProviderCall) -> str:
        self.world.entered.set()
        await self.world.release.wait()
        return str(call.binding)

    async def _fail(self, call: ProviderCall, error: Any) -> None:
        raise error

    async def _fail_interrupted(self, call: ProviderCall) -> None:
        raise Interrupted("lost")

    async def _binding(self, call: ProviderCall) -> list[str]:
        return [call.link.source, call.link.name, call.link.interface]

    async def _double(self, call: ProviderCall, count: int) -> Streamed:
        """The bytes that come, each chunk twice."""
        assert call.body is not None
        chunks = [chunk async for chunk in call.body]
        sender, receiver = pair()
        await sender.send(b"".join(chunk * 2 for chunk in chunks))
        await sender.end()
        return Streamed(value=count, body=receiver)


class Host:
    """Providers that run, and the links that they see."""

    def __init__(self, offers: Sequence[OfferSettings], links: Sequence[Link]) -> None:
        self.links: tuple[Link, ...] = tuple(links)
        self.sources = {"counter", "stranger"}
        self.components: set[str] = set()
        self.news = anyio.Event()
        self.changed = anyio.Event()
        self.changes: list[list[Offer]] = []
        self.providers = Providers(
            offers,
            links_of=lambda source: self.links if source in self.sources else None,
            wait_for_news=self._wait,
            on_change=self._change,
            is_component=lambda name: name in self.components,
        )

    def _change(self, offers: Sequence[Offer]) -> None:
        self.changes.append(list(offers))
        changed, self.changed = self.changed, anyio.Event()
        changed.set()

    def put(self, *links: Link) -> None:
        """Replace all links."""
        self.links = links
        self._tell()

    def deploy(self, *components: str) -> None:
        """Have exactly these components be there."""
        self.components = set(components)
        self._tell()

    def _tell(self) -> None:
        news, self.news = self.news, anyio.Event()
        news.set()

    async def _wait(self) -> None:
        await self.news.wait()

    async def call(self, function: str, *args: Any, **changes: Any) -> Any:
        """A call over the link `default` of `counter`."""
        return await self.providers.call(request(function, **changes), args)

    async def until(self, *, healthy: bool) -> None:
        """Wait for the first provider to be so."""
        with anyio.fail_after(5):
            while self.providers.offers()[0].is_healthy != healthy:
                await self.changed.wait()


def request(function: str, **changes: Any) -> CallRequest:
    """A call over the link `default` of `counter` to `greeter`."""
    values = {
        "component": "greeter",
        "interface": GREET,
        "function": function,
        "deadline": now() + 5,
        "call_id": new_call_id(),
        "caller": "counter",
        "link": "default",
        **changes,
    }
    return CallRequest(**values)


def link(**changes: Any) -> Link:
    """Of `counter` to `greeter`."""
    return Link(**{"source": "counter", "interface": GREET, "target": "greeter", **changes})


@asynccontextmanager
async def hosting(
    world: World, *links: Link, max_calls: int = 1024, clients_may_call: bool = False
) -> AsyncGenerator[Host]:
    """A host of one `Greeter` that has started, or failed to."""
    offer = OfferSettings(
        name="greeter",
        kind="greeter",
        make=lambda: Greeter(world, clients_may_call=clients_may_call),
        max_calls=max_calls,
    )
    async with open_host(Host([offer], links or [link()]), world) as host:
        yield host


@asynccontextmanager
async def open_host(host: Host, world: World | None = None) -> AsyncGenerator[Host]:
    """A host whose providers have started, or failed to."""
    async with open_tasks() as tasks:
        await tasks.start(host.providers.run)
        yield host
        if world is not None:
            world.release.set()
        await host.providers.stop()


async def stream_of(data: bytes) -> ByteReceiver:
    """A byte stream that has these bytes at once."""
    sender, receiver = pair()
    await send_body(sender, data)
    return receiver
