"""`wasi:config/store` and `runtime`, its older name: three drafts, of which one answers without a `result`.

A draft is compatible with nothing but itself, so each is served under its full name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lattice import wit
from lattice.configuration import Configurations
from lattice.errors import LatticeError
from lattice.model import ComponentSpec
from node.engine.host import GuestCall, HostFunction, HostInterface

SpecOf = Callable[[str], ComponentSpec | None]
"""What is wanted of a component now."""

Read = Callable[[GuestCall], Mapping[str, str]]

NAMES = (
    "wasi:config/store@0.2.0-draft",
    "wasi:config/store@0.2.0-draft-2024-09-27",
    "wasi:config/store@0.2.0-rc.1",
    "wasi:config/runtime@0.2.0-draft",
)

SUPPORT: Mapping[str, str] = {
    "wasi:config/store": "complete: 0.2.0-draft in both forms, 0.2.0-draft-2024-09-27, 0.2.0-rc.1",
    "wasi:config/runtime": "complete: 0.2.0-draft",
}


def is_builtin(interface: str) -> bool:
    """Whether an import of this full name is served without a link."""
    return interface in NAMES


def config_interfaces(
    component: wit.ComponentType, configurations: Configurations, spec_of: SpecOf
) -> tuple[HostInterface, ...]:
    """Those of the interfaces that the component imports, in the form in which it does."""

    def read(call: GuestCall) -> Mapping[str, str]:
        spec = spec_of(call.component)
        return configurations.resolve(spec.configuration, spec.configuration_from) if spec else {}

    return tuple(
        HostInterface(
            name=name,
            functions={
                "get": _answering(read, _get, _has_result(component.imports[name], "get")),
                "get-all": _answering(read, _get_all, _has_result(component.imports[name], "get-all")),
            },
        )
        for name in NAMES
        if name in component.imports
    )


def _get(values: Mapping[str, str], key: str) -> str | None:
    return values.get(key)


def _get_all(values: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    return sorted(values.items())


def _has_result(interface: wit.Interface, function: str) -> bool:
    found = interface.functions.get(function)
    return found is not None and isinstance(found.result, wit.Result)


def _answering(read: Read, answer: Callable[..., Any], has_result: bool) -> HostFunction:
    def plain(call: GuestCall, *args: str) -> Any:
        return answer(read(call), *args)

    def with_result(call: GuestCall, *args: str) -> Any:
        try:
            return {"ok": plain(call, *args)}
        except LatticeError as error:
            return {"err": {"upstream": error.message}}

    return with_result if has_result else plain
