"""Who serves what a handler of HTTP requests imports: the shim inside its sandbox, or the host.

The shim carries WASI and `wasi:http`, the host all else. Where the host's part has streams or pollables too,
as blobs do, and files and sockets where they were granted, both sides make handles of the resources of
`wasi:io`. Then the component is *mixed*: each function of `wasi:io` looks at the handle that it is given and
asks the side that made it (`node.engine.mixed_bridge`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from lattice import wit
from lattice.errors import Invalid
from node.engine.bridge import unversioned
from node.engine.compiled import Form

_CARRIED = (
    "wasi:io/",
    "wasi:clocks/",
    "wasi:random/",
    "wasi:cli/",
    "wasi:http/",
    "wasi:filesystem/",
    "wasi:sockets/",
)
_VERSION_PREFIX = "0.2."
_GRANTED = ("wasi:filesystem/", "wasi:sockets/")
_IO = "wasi:io/"
_POLL = "wasi:io/poll#poll"
_BLOCK = "wasi:io/poll#[method]pollable.block"
POLLABLE = "wasi:io/poll#pollable"


def is_carried(interface: str) -> bool:
    """Whether the shim can stand in for an interface, of whatever version of WASI 0.2."""
    path, _, version = interface.partition("@")
    return path.startswith(_CARRIED) and version.startswith(_VERSION_PREFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Carriage:
    """The decision for one component in one form."""

    carried: Mapping[str, wit.Interface]
    """Imports of which the shim serves all functions, or all that are not `is_shared`."""
    hosted: Mapping[str, wit.Interface]
    """Imports that the host serves."""
    is_mixed: bool

    @property
    def spared(self) -> frozenset[str]:
        """Imports that a mixed component keeps for their types, and calls no function with bytes of."""
        if not self.is_mixed:
            return frozenset()
        return frozenset(name for name in self.carried if not self._shares_bytes(name))

    def _shares_bytes(self, interface: str) -> bool:
        functions = self.carried[interface].functions.items()
        return any(
            wit.carries_bytes(type_) and self.is_shared(interface, name, type_) for name, type_ in functions
        )

    @property
    def has_sockets(self) -> bool:
        """Whether the host's streams may come from sockets, where reading waits for others."""
        return any(name.startswith("wasi:sockets/") for name in self.hosted)

    @property
    def has_polls(self) -> bool:
        """Whether the guest waits for pollables of both sides."""
        if not self.is_mixed:
            return False
        functions = (f"{unversioned(name)}#{item}" for name in self.carried for item in self.functions(name))
        return any(function in (_POLL, _BLOCK) for function in functions)

    def find(self, interface: str) -> wit.Interface | None:
        """The import of that name, whoever serves it."""
        return self.carried.get(interface) or self.hosted.get(interface)

    def functions(self, interface: str) -> Mapping[str, wit.Function]:
        """Those of an import; none if it is unknown."""
        found = self.find(interface)
        return found.functions if found else {}

    def serves(self, interface: str, function: str, type_: wit.Function) -> bool:
        """Whether the shim has any part in a function."""
        return interface in self.carried or self.is_shared(interface, function, type_)

    def is_shared(self, interface: str, function: str, type_: wit.Function) -> bool:
        """Whether the side that made the first handle serves the function."""
        if not self.is_mixed or not is_carried(interface):
            return False
        return unversioned(f"{interface}#{function}") == _POLL or _takes_io(type_)


def carriage(type_: wit.ComponentType, form: Form) -> Carriage:
    """Decide; raises `Invalid` for what speaks of the shim's resources but is not the shim's."""
    is_ours = {name: is_carried(name) and not _is_granted(name, form) for name in type_.imports}
    carried = {name: item for name, item in type_.imports.items() if is_ours[name]}
    hosted = {name: item for name, item in type_.imports.items() if not is_ours[name]}
    resources = {resource for item in hosted.values() for resource in _used(item)}
    is_mixed = any(resource.startswith(_IO) for resource in resources)
    found = Carriage(carried=carried, hosted=hosted, is_mixed=is_mixed)
    _check(found, resources)
    return found


def _is_granted(interface: str, form: Form) -> bool:
    return form is Form.GRANTED and interface.startswith(_GRANTED)


def _check(found: Carriage, used: set[str]) -> None:
    for resource in used:
        owner = resource.partition("#")[0]
        if owner in found.carried and not owner.startswith(_IO):
            raise Invalid(f"it imports from the host what uses `{resource}`, which the shim has")
    if not found.is_mixed:
        return
    names = [unversioned(name) for name in (*found.carried, *found.hosted) if name.startswith(_IO)]
    if len(names) != len(set(names)):
        raise Invalid("it imports `wasi:io` in several versions")
    for name, item in (*found.carried.items(), *found.hosted.items()):
        for function, type_ in item.functions.items():
            if not _is_passable(found, name, function, type_):
                raise Invalid(f"`{name}#{function}` takes a stream, pollable or error of either side")


def _is_passable(found: Carriage, interface: str, function: str, type_: wit.Function) -> bool:
    """Whether a function takes no handle of `wasi:io`, or is one of those that know of both sides."""
    if interface.startswith(_IO) or not any(map(_is_io, _parts(type_))):
        return True
    others = replace(type_, params=type_.params[1:])
    return found.is_shared(interface, function, type_) and not any(map(_is_io, _parts(others)))


def _parts(type_: wit.Function) -> Iterator[wit.Type]:
    """All that occurs in its parameters."""
    return (part for _, parameter in type_.params for part in wit.walk(parameter))


def _takes_io(type_: wit.Function) -> bool:
    return bool(type_.params) and _is_io(type_.params[0][1])


def _is_io(type_: wit.Type) -> bool:
    return isinstance(type_, wit.Handle) and type_.resource.startswith(_IO)


def _used(interface: wit.Interface) -> set[str]:
    """The resources of other interfaces that it speaks of, by qualified names."""
    types = [*interface.types.values()]
    for function in interface.functions.values():
        types += wit.function_types(function)
    handles = (part for type_ in types for part in wit.walk(type_) if isinstance(part, wit.Handle))
    return {handle.resource for handle in handles if handle.resource.partition("#")[0] != interface.name}
