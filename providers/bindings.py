"""Which link a call is over, and what its provider has bound for it.

A link is bound by its first call, and anew by the first call after anything of it has changed; the former
binding is released when its last call has ended. What did not change is found without waiting.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol

import anyio
import structlog

from lattice.caller import CallRequest
from lattice.errors import Denied, Invalid, LatticeError
from lattice.failures import internal_failure
from lattice.model import Link, package_of, unversioned
from lattice.tasks import own_task
from providers.provider import BoundLink, Provider, Secret

log = structlog.get_logger()

LinksOf = Callable[[str], Sequence[Link] | None]
"""The links that a component has now. While nothing changes it gives the same object at every call."""

Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]
"""Runs something in a task of its own."""

NEWS_SECONDS = 0.3
"""How long a call over an unknown link waits for news of it: the call may be faster than they are."""

FLAT_PACKAGES: Mapping[str, str] = {
    "lattice:blobstore": "wasi:blobstore",
    "lattice:keyvalue": "wasi:keyvalue",
    "lattice:messaging": "wasmcloud:messaging",
}
"""Flat interfaces that stand behind others, which are what guests import and links name; by package."""


class LinkSettings(Protocol):
    """Looks up what a link refers to by name."""

    def stamp(self, link: Link) -> Hashable:
        """Changes whenever `resolve` may give something else; asked at every call."""

    async def resolve(self, link: Link) -> tuple[Mapping[str, str], Mapping[str, Secret]]:
        """Its whole configuration, and its secrets. Raises `LatticeError` for what can't be had."""


class PlainSettings:
    """For where no named configurations and secrets can be had: `LinkSettings` of the link's own."""

    def stamp(self, link: Link) -> Hashable:
        return None

    async def resolve(self, link: Link) -> tuple[Mapping[str, str], Mapping[str, Secret]]:
        for field in ("configuration_from", "secrets"):
            if getattr(link, field):
                raise Invalid(f"link {link.name!r} of {link.source!r}: {field} can't be looked up here")
        return link.configuration, {}


def linked_package(interface: str) -> str:
    """The package that a link to a flat or any other interface names."""
    package = package_of(interface)
    return FLAT_PACKAGES.get(package, package)


def find_link(links: Sequence[Link], provider: str, name: str, interface: str) -> Link | None:
    """The link that a call to the interface of the provider is over; the most exact one counts."""
    wanted = f"{linked_package(interface)}/{unversioned(interface).rpartition('/')[2]}"
    found = [
        link
        for link in links
        if link.target == provider and link.name == name and package_of(link.interface) == package_of(wanted)
    ]
    for exact in (wanted, package_of(wanted)):
        for link in found:
            if unversioned(link.interface) == exact:
                return link
    is_flat = package_of(interface) in FLAT_PACKAGES  # its interfaces are not named as those of the package
    return found[0] if found and is_flat else None


class Binding:
    """A link as its provider has bound it, and how many calls use it."""

    __slots__ = ("calls", "is_retired", "links", "source", "stamp", "target", "value")

    def __init__(self, links: Sequence[Link] | None, source: Link | None, stamp: Hashable) -> None:
        self.links = links
        """All links of the component when this one was last found to be as it is."""
        self.source = source
        self.stamp = stamp
        self.target: BoundLink = CLIENT
        self.value: Any = None
        self.calls = 0
        self.is_retired = False


CLIENT = BoundLink(source="", name="default", interface="")
"""Stands for the link of those who need none."""

Key = tuple[str | None, str | None, str]
"""Caller, name of the link, and interface of a call."""


class Bindings:
    """Of one provider that runs.

    The mutable state is the bindings by link, which of them the calls of each kind use, and who makes one.
    """

    def __init__(
        self,
        name: str,
        provider: Provider,
        *,
        links_of: LinksOf,
        settings: LinkSettings,
        wait_for_news: Callable[[], Awaitable[object]],
        spawn: Spawn,
    ) -> None:
        """`spawn` releases bindings that nobody uses any more."""
        self._name = name
        self._provider = provider
        self._links_of = links_of
        self._settings = settings
        self._wait_for_news = wait_for_news
        self._spawn = spawn
        self._bound: dict[tuple[str, ...], Binding] = {}
        self._used: dict[Key, Binding] = {}
        self._locks: dict[tuple[str | None, str | None], anyio.Lock] = {}

    def links(self) -> list[BoundLink]:
        """All that are bound."""
        return [binding.target for binding in self._bound.values()]

    def take_known(self, request: CallRequest) -> Binding | None:
        """The binding for a call, if nothing has changed since the last one; give it back."""
        key = (request.caller if request.link else None, request.link, request.interface)
        binding = self._used.get(key)
        if binding is None or binding.is_retired:
            return None
        link = binding.source
        if link is not None and (
            self._links_of(link.source) is not binding.links or self._settings.stamp(link) != binding.stamp
        ):
            return None
        binding.calls += 1
        return binding

    async def take(self, request: CallRequest) -> Binding:
        """The binding for a call, made if need be; give it back. Raises `Denied` without a link."""
        if request.link is None and not self._provider.clients_may_call:
            raise Denied(
                f"provider {self._name!r} serves calls over links only: "
                f"`latticectl link put COMPONENT {linked_package(request.interface)} {self._name}`"
            )
        async with self._turn(request):
            binding = self.take_known(request)
            if binding is None:
                binding = await self._renewed(request)
                binding.calls += 1
                key = (request.caller if request.link else None, request.link, request.interface)
                self._used[key] = binding
            return binding

    def give_back(self, binding: Binding) -> None:
        """The call has ended."""
        binding.calls -= 1
        if binding.is_retired and not binding.calls:
            self._spawn(partial(self._unbind, binding))

    def sweep(self) -> None:
        """Release what is bound for links that are no more."""
        for identity, binding in list(self._bound.items()):
            link = binding.source
            if link is None or any(item.identity == identity for item in self._links_of(link.source) or ()):
                continue
            del self._bound[identity]
            self._retired(binding)

    async def aclose(self) -> None:
        """Release all; no calls are in progress any more."""
        bound, self._bound = self._bound, {}
        for binding in bound.values():
            await self._unbind(binding)

    @asynccontextmanager
    async def _turn(self, request: CallRequest) -> AsyncGenerator[None]:
        """One at a time makes the binding of a link."""
        await own_task()
        key = (request.caller, request.link)
        lock = self._locks.setdefault(key, anyio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():
                self._locks.pop(key, None)

    async def _renewed(self, request: CallRequest) -> Binding:
        new = await self._resolved(request)
        identity = new.source.identity if new.source is not None else ()
        old = self._bound.get(identity)
        if old is not None and old.target == new.target:
            old.links, old.source, old.stamp = new.links, new.source, new.stamp
            return old
        try:
            new.value = await self._provider.bind(new.target)
        except LatticeError:
            raise
        except Exception:
            what = f"provider {self._name!r}"
            raise internal_failure(
                "provider.bind-failed", f"{self._name} {request.caller}", what=what
            ) from None
        self._bound[identity] = new
        if old is not None:
            self._retired(old)
        return new

    def _retired(self, binding: Binding) -> None:
        binding.is_retired = True
        for key in [key for key, used in self._used.items() if used is binding]:
            del self._used[key]
        if not binding.calls:
            self._spawn(partial(self._unbind, binding))

    async def _resolved(self, request: CallRequest) -> Binding:
        if request.link is None:
            return Binding(None, None, None)
        links, link = await self._look_up(request)
        stamp = self._settings.stamp(link)
        configuration, secrets = await self._settings.resolve(link)
        binding = Binding(links, link, stamp)
        binding.target = BoundLink(
            source=link.source,
            name=link.name,
            interface=link.interface,
            configuration=dict(configuration),
            secrets=dict(secrets),
        )
        return binding

    async def _look_up(self, request: CallRequest) -> tuple[Sequence[Link], Link]:
        source, name = request.caller or "", request.link or ""
        links: Sequence[Link] | None = None
        with anyio.move_on_after(NEWS_SECONDS):
            while True:
                links = self._links_of(source)
                link = find_link(links or (), self._name, name, request.interface)
                if links is not None and link is not None:
                    return links, link
                await self._wait_for_news()
        package = linked_package(request.interface)
        missing = f"{source!r} has no link {name!r} of {package} to {self._name!r}"
        suffix = "" if name == "default" else f" --name {name}"
        cure = f"`latticectl link put {source} {package} {self._name}{suffix}`"
        if links is None:  # perhaps a job that has ended, which nothing can be granted to
            raise Denied(
                f"{missing}: no component and no job of that name is known here; "
                f"a component is granted it with {cure}"
            )
        raise Denied(f"{missing}; grant it with {cure}")

    async def _unbind(self, binding: Binding) -> None:
        try:
            await self._provider.unbind(binding.target, binding.value)
        except Exception:
            log.exception("provider.unbind-failed", provider=self._name, source=binding.target.source)
