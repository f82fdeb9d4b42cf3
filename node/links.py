"""What a component is linked to: links become host functions that call their target.

Links are looked up at every call in the node's copy of desired state, so that a change of one takes effect
on the next call, in the replicas that run. The guest does not see where the target runs: the call goes to a
replica or provider on this node if there is one, else over the lattice. The deadline of the guest's own call
bounds it, and its hops are counted, so that a circle of links ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from lattice import wire, wit
from lattice.caller import Caller, CallRequest, new_call_id
from lattice.compatibility import match_interface
from lattice.errors import Denied, Failed, Interrupted, LatticeError, Overloaded, Unreachable
from lattice.exchange import Exchange
from lattice.imports import grant_line, job_grant_line
from lattice.model import Link, unversioned
from lattice.streams import ByteReceiver
from node.capabilities.bus.selection import DEFAULT, selected
from node.engine.host import GuestCall, HostFunction, HostInterface

ExportsOf = Callable[[str], Collection[str] | None]
"""The names of the interfaces that a component exports, or None while they are not known."""

LinksOf = Callable[[str], Sequence[Link] | None]
"""The links that a component has now, or None while this node has not heard of the component."""

MAX_FOUND = 10_000


class Links:
    """The mutable state is the links that came with orders, for components not heard of otherwise yet.

    Besides, it remembers which link was found among which.
    """

    def __init__(
        self,
        caller: Caller,
        links_of: LinksOf,
        exports_of: ExportsOf,
        is_job: Callable[[str], bool] = lambda source: False,
    ) -> None:
        """`is_job` tells sources that get no links but those they began with."""
        self._caller = caller
        self._links_of = links_of
        self._exports_of = exports_of
        self._is_job = is_job
        self._ordered: dict[str, tuple[Link, ...]] = {}
        self._found: dict[tuple[str, str, str], tuple[Sequence[Link], Link]] = {}

    def ordered(self, component: str, links: Iterable[Link]) -> None:
        """Use these until this node has heard of the component's application: orders may be faster.

        Whose links are known already, as those of a job are, needs none of it.
        """
        found = tuple(links)
        if found and self._links_of(component) is None:
            self._ordered[component] = found
        else:
            self._ordered.pop(component, None)

    def of(self, source: str) -> Sequence[Link]:
        """All links that the component has now."""
        links = self._links_of(source)
        if links is None:
            return self._ordered.get(source, ())
        self._ordered.pop(source, None)
        return links

    def names(self, source: str, interface: str) -> list[str]:
        """The names of the links that cover the interface."""
        return [link.name for link in self.of(source) if link.covers(interface)]

    def find(self, source: str, interface: str, name: str = DEFAULT) -> Link:
        """The link of that name; raises `Denied` with the line that would grant it.

        One of the interface itself counts more than one of its package. Where none is named `default`, the
        first that covers the interface is.
        """
        present, key = self.of(source), (source, interface, name)
        known = self._found.get(key)
        if known is not None and known[0] is present:
            return known[1]
        if len(self._found) >= MAX_FOUND:
            self._found.clear()
        found = covering_link(present, interface, name)
        if found is None:
            raise missing_import(source, interface, self.grant_line(source, interface, name), name)
        self._found[key] = present, found
        return found

    def grant_line(self, source: str, interface: str, name: str = DEFAULT) -> str:
        """The command that would give the source such a link."""
        if self._is_job(source):
            return job_grant_line(interface, name)
        return grant_line(source, interface, name)

    async def call(
        self,
        call: GuestCall,
        *,
        interface: str,
        function: tuple[str, str],
        args: Sequence[Any] | Mapping[str, Any],
        name: str | None = None,
        idempotent: bool = False,
        is_told: bool = False,
    ) -> Any:
        """Call over the guest's link of that name, or over the one that it chose, and return the value.

        `interface` is the one that the guest imports, `function` the interface and function that the target
        has. Raises `Denied`, or what the target or the way to it raised; nothing that says that the guest's
        own call may be repeated, unless the guest `is_told` of it by a value: whether anything was done is
        what it must know.
        """
        while True:
            link, request = self._request(call, interface, function, name, idempotent)
            try:
                return await self._caller.call(request, args)
            except Denied:
                if not self._is_changed(link, call, interface, name):
                    raise
            except (Unreachable, Overloaded) as error:
                if is_told:
                    raise
                raise _begun(error, link) from error

    async def exchange(
        self,
        call: GuestCall,
        *,
        interface: str,
        function: tuple[str, str],
        args: Sequence[Any] | Mapping[str, Any],
        body: ByteReceiver | None = None,
        name: str | None = None,
        idempotent: bool = False,
    ) -> Exchange:
        """As `call`, with byte streams beside arguments and value; close what is returned."""
        while True:
            link, request = self._request(call, interface, function, name, idempotent)
            try:
                return await self._caller.exchange(request, args, body)
            except Denied:
                if body is not None or not self._is_changed(link, call, interface, name):
                    raise
            except (Unreachable, Overloaded) as error:
                raise _begun(error, link) from error

    def _is_changed(self, link: Link, call: GuestCall, interface: str, name: str | None) -> bool:
        """Whether another link counts than a provider was asked over, which may have heard of it before us.

        What a component answers may come from further down, after it has done something.
        """
        if self._exports_of(link.target) is not None:
            return False
        return self.find(call.component, interface, name or selected(call, interface)) != link

    def _request(
        self,
        call: GuestCall,
        interface: str,
        function: tuple[str, str],
        name: str | None,
        idempotent: bool,
    ) -> tuple[Link, CallRequest]:
        context = call.context
        link = self.find(call.component, interface, name or selected(call, interface))
        if context.hops >= wire.MAX_HOPS:
            raise Denied(
                f"the call passed through {context.hops} nodes and components, at most {wire.MAX_HOPS}: "
                f"is there a circle of links through {link.source!r} and {link.target!r}?"
            )
        return link, CallRequest(
            component=link.target,
            interface=self._exported_name(function[0], link.target),
            function=function[1],
            deadline=context.deadline,
            call_id=new_call_id(),
            idempotent=idempotent or link.idempotent,
            traceparent=context.traceparent,
            caller=link.source,
            hops=context.hops + 1,
            link=link.name,
        )

    def _exported_name(self, interface: str, target: str) -> str:
        """The target's name of the interface: its version may be another, compatible one."""
        exports = self._exports_of(target)
        if exports is None or interface in exports:
            return interface
        return match_interface(interface, exports) or interface

    def interfaces(self, names: Mapping[str, wit.Interface]) -> list[HostInterface]:
        """A host interface for each of these imports, whose functions call the same ones of the target."""
        return [
            HostInterface(
                name=name,
                functions={function: self._function(name, function) for function in imported.functions},
            )
            for name, imported in names.items()
        ]

    def _function(self, interface: str, function: str) -> HostFunction:
        async def invoke(call: GuestCall, *args: Any) -> Any:
            return await self.call(call, interface=interface, function=(interface, function), args=args)

        return invoke


def covering_link(present: Sequence[Link], interface: str, name: str) -> Link | None:
    """The link of that name for the interface, as `Links.find` has it, among those that are present."""
    links = [link for link in present if link.covers(interface)]
    named = [link for link in links if link.name == name] or (links if name == DEFAULT else [])
    exact = (link for link in named if unversioned(link.interface) == unversioned(interface))
    return next(exact, named[0] if named else None)


def _begun(error: LatticeError, link: Link) -> LatticeError:
    """The end of the source's own call, which has begun: nobody may take it for one that can be repeated."""
    message = f"{link.source!r} called {link.target!r}: {error.message}"
    # More calls of the source would only overload the target further, so that one is not repeated at all.
    return Failed(message) if isinstance(error, Overloaded) else Interrupted(message)


def missing_import(component: str, interface: str, line: str, name: str = DEFAULT) -> Denied:
    """The error that names an import which nothing satisfies, and the command that cures it."""
    if name != DEFAULT:
        return Denied(f"{component!r} has no link of {interface} named {name!r}; grant it with `{line}`")
    return Denied(f"{component!r} imports {interface}, which nothing provides; grant it with `{line}`")
