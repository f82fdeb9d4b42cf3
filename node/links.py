"""What a component imports, bound: links become host functions that call their target.

The guest does not see where the target runs: the call goes to a replica on this node if there is one, else
over the lattice. The deadline of the guest's own call bounds it, and its hops are counted, so that a circle
of links ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from lattice import wire, wit
from lattice.caller import Caller, CallRequest, new_call_id
from lattice.compatibility import match_interface
from lattice.errors import Denied, Failed, Interrupted, LatticeError, Overloaded, Unreachable
from lattice.imports import grant_line
from lattice.model import Link, unversioned
from node.engine.host import GuestCall, HostFunction, HostInterface

ExportsOf = Callable[[str], Collection[str] | None]
"""The names of the interfaces that a component exports, or None while they are not known."""

IsGranted = Callable[[Link], bool]
"""Whether the source still has a link of that identity: what runs may be older than its links."""


def linked_interfaces(
    component: wit.ComponentType,
    links: Sequence[Link],
    caller: Caller,
    exports_of: ExportsOf,
    is_granted: IsGranted,
) -> list[HostInterface]:
    """One host interface for each import that a link grants.

    Of several links of one interface the one named `default` counts until the guest chooses another.
    """
    interfaces = []
    for name, imported in component.imports.items():
        link = _link_of(name, links)
        if link is not None:
            functions = {
                function: _linked_function(name, function, link, caller, exports_of, is_granted)
                for function in imported.functions
            }
            interfaces.append(HostInterface(name=name, functions=functions))
    return interfaces


def _link_of(interface: str, links: Sequence[Link]) -> Link | None:
    found = [link for link in links if unversioned(link.interface) == unversioned(interface)]
    return next((link for link in found if link.name == "default"), found[0] if found else None)


def _linked_function(
    interface: str, function: str, link: Link, caller: Caller, exports_of: ExportsOf, is_granted: IsGranted
) -> HostFunction:
    async def invoke(call: GuestCall, *args: Any) -> Any:
        context = call.context
        if not is_granted(link):
            raise missing_import(link.source, interface)
        if context.hops >= wire.MAX_HOPS:
            raise Denied(
                f"the call passed through {context.hops} nodes and components, at most {wire.MAX_HOPS}: "
                f"is there a circle of links through {link.source!r} and {link.target!r}?"
            )
        request = CallRequest(
            component=link.target,
            interface=_exported_name(interface, link.target, exports_of),
            function=function,
            deadline=context.deadline,
            call_id=new_call_id(),
            idempotent=link.idempotent,
            traceparent=context.traceparent,
            caller=link.source,
            hops=context.hops + 1,
        )
        try:
            return await caller.call(request, args)
        except (Unreachable, Overloaded) as error:
            raise _begun(error, link) from error

    return invoke


def _begun(error: LatticeError, link: Link) -> LatticeError:
    """The end of the source's own call, which has begun: nobody may take it for one that can be repeated."""
    message = f"{link.source!r} called {link.target!r}: {error.message}"
    # More calls of the source would only overload the target further, so that one is not repeated at all.
    return Failed(message) if isinstance(error, Overloaded) else Interrupted(message)


def _exported_name(interface: str, target: str, exports_of: ExportsOf) -> str:
    """The target's name of the interface: its version may be another, compatible one."""
    exports = exports_of(target)
    if exports is None or interface in exports:
        return interface
    return match_interface(interface, exports) or interface


def missing_import(component: str, interface: str) -> Denied:
    """The error that names an import which nothing satisfies, and its cure."""
    return Denied(
        f"{component!r} imports {interface}, which nothing provides; "
        f"grant it with `{grant_line(component, interface)}`"
    )
