"""Finds the function that a caller means among those that a component exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lattice import wit
from lattice.errors import Invalid, NotFound
from lattice.names import did_you_mean

MAX_LISTED = 12
"""Names that a message lists; with more, the nearest one is worth more than all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """An exported function and where it is."""

    component: str
    interface: str
    name: str
    type: wit.Function

    @property
    def text(self) -> str:
        """As in WIT, e.g. `demo:greeter/greet greet: func(name: string) -> string`."""
        place = "" if self.interface == wit.WORLD else f"{self.interface} "
        return place + wit.function_text(self.name, self.type)


def find_function(
    component: str, type_: wit.ComponentType, function: str, interface: str | None = None
) -> Function:
    """The function meant; raises `NotFound` that suggests the nearest, `Invalid` when several are meant.

    An interface may be given without its version, and as its last part only.
    """
    places = _callable(type_)
    if interface is not None:
        name = _find_interface(component, places, interface)
        places = {name: places[name]}
    found = [name for name, interface_ in places.items() if function in interface_.functions]
    if not found:
        raise _missing(component, _no_function(component, places, function))
    if len(found) > 1:
        raise Invalid(
            f"`{component}` exports `{function}` in several interfaces: say which one: {', '.join(found)}"
        )
    (name,) = found
    return Function(component=component, interface=name, name=function, type=places[name].functions[function])


def split_words(type_: wit.ComponentType, words: Sequence[str]) -> tuple[str | None, str, list[str]]:
    """Interface (if it is named), function and arguments of `[INTERFACE] FUNCTION ARGS...`.

    A first word that is a function's name is that function, even if an interface ends in it too.
    """
    first, rest = words[0], list(words[1:])
    if rest and _names_interface(type_, first):
        return first, rest[0], rest[1:]
    return None, first, rest


def interface_matches(name: str, wanted: str) -> bool:
    """Whether `demo:greeter/greet@0.1.0` is meant by itself, without version, or as `greet`."""
    bare = name.partition("@")[0]
    return wanted in (name, bare, bare.rpartition("/")[2])


def _callable(type_: wit.ComponentType) -> Mapping[str, wit.Interface]:
    """The exports that have functions other than those of resources."""
    return {
        name: interface
        for name, interface in type_.exports.items()
        if any(not function.startswith("[") for function in interface.functions)
    }


def _names_interface(type_: wit.ComponentType, first: str) -> bool:
    if ":" in first or "/" in first or first == wit.WORLD:
        return True
    if any(first in interface.functions for interface in type_.exports.values()):
        return False
    return any(interface_matches(name, first) for name in type_.exports)


def _find_interface(component: str, places: Mapping[str, wit.Interface], wanted: str) -> str:
    found = [wanted] if wanted in places else [name for name in places if interface_matches(name, wanted)]
    if not found:
        near = did_you_mean(wanted, places) or f"; it exports {_listed(places)}"
        raise _missing(component, f"`{component}` exports no interface `{wanted}` with functions{near}")
    if len(found) > 1:
        raise Invalid(
            f"`{wanted}` means several interfaces of `{component}`: say which one: {', '.join(found)}"
        )
    return found[0]


def _no_function(component: str, places: Mapping[str, wit.Interface], function: str) -> str:
    names = [
        name for interface in places.values() for name in interface.functions if not name.startswith("[")
    ]
    near = did_you_mean(function, names) or f"; it exports {_listed(names)}"
    return f"`{component}` exports no function `{function}`{near}"


def _missing(component: str, message: str) -> NotFound:
    return NotFound(message, details={"hint": f"`latticectl describe {component}` lists its functions"})


def _listed(names: Mapping[str, object] | Sequence[str]) -> str:
    shown = [f"`{name}`" for name in list(names)[:MAX_LISTED]]
    more = len(names) - len(shown)
    return (", ".join(shown) or "nothing that can be called") + (f" and {more} more" if more else "")
