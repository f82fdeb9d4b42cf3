"""`wasmcloud:bus/lattice` 1.0.0, and 2.0.0 with its patches: `set-link-name`.

The first version can't say that there is no such link: there the call over it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from lattice.names import did_you_mean
from node.capabilities.bus.selection import DEFAULT, select
from node.engine.host import GuestCall, HostFunction, HostInterface

LinkNames = Callable[[str, str], Collection[str]]
"""The names of a component's links of an interface."""

GrantLine = Callable[[str, str, str], str]
"""The command that gives a component a link of an interface with that name."""

SUPPORT: Mapping[str, str] = {
    "wasmcloud:bus/lattice": "`set-link-name` of 1.0.0 and 2.0.0 (2.0.1); `set-target-component` is refused",
}

SERVED = tuple(f"wasmcloud:bus/lattice@{version}" for version in ("1.0.0", "2.0.0", "2.0.1"))
"""Those that were published; the linker takes 2.0.0 for 2.0.1, which differs in nothing that is here."""


def is_builtin(interface: str) -> bool:
    """Whether an import of this full name is served without a link."""
    return interface in SERVED


class CallTarget:
    """The resource `call-target-interface`: an interface whose link is to be chosen."""

    __slots__ = ("interface",)

    def __init__(self, interface: str) -> None:
        self.interface = interface


def bus_interfaces(names: LinkNames, grant_line: GrantLine) -> tuple[HostInterface, ...]:
    """Both versions; they differ in whether choosing a link can fail."""

    def set_link_name(call: GuestCall, name: str, targets: Sequence[CallTarget]) -> Any:
        for target in targets:
            known = names(call.component, target.interface)
            if name != DEFAULT and name not in known:
                line = grant_line(call.component, target.interface, name)
                return {"err": _no_link(call.component, target.interface, name, known, line)}
        _choose(call, name, targets)
        return {"ok": None}

    def refuse_target(call: GuestCall, target: str, interface: CallTarget, version: str) -> Any:
        line = grant_line(call.component, interface.interface, DEFAULT)
        return {"err": f"a component calls only what it is linked to; see `{line}`"}

    return (
        _interface("1.0.0", {"set-link-name": _choose}),
        _interface("2.0.0", {"set-link-name": set_link_name, "set-target-component": refuse_target}),
    )


def _interface(version: str, functions: Mapping[str, HostFunction]) -> HostInterface:
    return HostInterface(
        name=f"wasmcloud:bus/lattice@{version}",
        functions={"[constructor]call-target-interface": _make_target, **functions},
        resources={"call-target-interface": lambda call, target: None},
    )


def _make_target(call: GuestCall, namespace: str, package: str, interface: str) -> CallTarget:
    return CallTarget(f"{namespace}:{package}/{interface}")


def _choose(call: GuestCall, name: str, targets: Sequence[CallTarget]) -> None:
    select(call, (target.interface for target in targets), name)


def _no_link(component: str, interface: str, name: str, known: Collection[str], line: str) -> str:
    near = did_you_mean(name, known)
    return f"{component!r} has no link {name!r} of {interface}{near}; make it with `{line}`"
