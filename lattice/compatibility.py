"""Which interface serves which, and what is nearest to a name that nobody has.

Versions match as in the wasm linker: within the compatible track (1.x with 1.y, 0.2.x with 0.2.y) either way
round; a pre-release, and 0.0.x, only serve themselves. A link is checked by structure: names of types do not
count, names of parameters, fields and cases do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from lattice import wit
from lattice.errors import Invalid, NotFound
from lattice.names import did_you_mean

_VERSION = re.compile(
    r"([0-9]{1,9})(?:\.([0-9]{1,9}))?(?:\.([0-9]{1,9}))?(-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?"
)


# Interfaces by name and version


def split_version(interface: str) -> tuple[str, str]:
    """The name without its version, and the version; an empty one if it has none."""
    name, _, version = interface.partition("@")
    return name, version


def match_interface(wanted: str, offered: Iterable[str]) -> str | None:
    """The offered interface that serves the wanted one: the same, else the newest of its track, else None."""
    names = list(offered)
    if wanted in names:
        return wanted
    track = _track(wanted)
    compatible = [name for name in names if track is not None and _track(name) == track]
    return max(compatible, key=_order, default=None)


def is_compatible(wanted: str, offered: str) -> bool:
    """Whether `offered` serves `wanted`."""
    return match_interface(wanted, (offered,)) is not None


def _track(interface: str) -> tuple[str, str] | None:
    # Interfaces of one track serve each other; None: the interface only serves itself.
    name, version = split_version(interface)
    parsed = _VERSION.fullmatch(version)
    if parsed is None or parsed[4]:
        return None
    major, minor, patch = parsed[1], parsed[2] or "0", parsed[3] or "0"
    if int(major):
        return name, str(int(major))
    if int(minor):
        return name, f"0.{int(minor)}"
    return name, f"0.0.{int(patch)}"


def _order(interface: str) -> tuple[int, ...]:
    parsed = _VERSION.fullmatch(split_version(interface)[1])
    return tuple(int(part or 0) for part in parsed.groups()[:3]) if parsed else ()


# Links


def check_link(wanted: wit.Interface, offered: wit.Interface) -> Invalid | None:
    """What keeps `offered` from serving the import `wanted`, naming the function and the difference; or None.

    Resources are refused: a handle means nothing outside the instance that made it.
    """
    if not is_compatible(wanted.name, offered.name):
        return Invalid(f"`{offered.name}` does not serve `{wanted.name}`: another interface or version track")
    if wanted.resources:
        return _refused(wanted, wanted.resources[0])
    for name, function in wanted.functions.items():
        if name.startswith("[") or any(wit.contains_handle(part) for part in wit.function_types(function)):
            return _refused(wanted, name)
        found = offered.functions.get(name)
        if found is None:
            return Invalid(
                f"`{offered.name}` has no function `{name}`{did_you_mean(name, offered.functions)}"
            )
        difference = _function_difference(function, found)
        if difference:
            return Invalid(f"function `{name}` of `{wanted.name}`: {difference}")
    return None


def _refused(interface: wit.Interface, where: str) -> Invalid:
    return Invalid(
        f"`{interface.name}` has resources (see `{where}`): a link carries plain values only, so far; "
        "offer functions over values, such as ids, instead"
    )


def _function_difference(wanted: wit.Function, found: wit.Function) -> str | None:
    wanted_names = [name for name, _ in wanted.params]
    found_names = [name for name, _ in found.params]
    if wanted_names != found_names:
        return f"takes ({', '.join(found_names)}), the import passes ({', '.join(wanted_names)})"
    for (name, wanted_type), (_, found_type) in zip(wanted.params, found.params, strict=True):
        difference = type_difference(wanted_type, found_type)
        if difference:
            return f"parameter `{name}`{difference}"
    difference = type_difference(wanted.result, found.result)
    return f"result{difference}" if difference else None


def type_difference(wanted: wit.Type | None, found: wit.Type | None) -> str | None:
    """Where two types differ first: a path and both sides; None if they are the same."""
    if wanted == found:
        return None
    for step, wanted_part, found_part in _parts(wanted, found):
        difference = type_difference(wanted_part, found_part)
        if difference:
            return step + difference
    return f": the import has `{_text(wanted)}`, the export `{_text(found)}`"


def _parts(
    wanted: wit.Type | None, found: wit.Type | None
) -> list[tuple[str, wit.Type | None, wit.Type | None]]:
    # Pairs of parts to compare, where the two types are of one kind and shape; none where they are not.
    match wanted, found:
        case wit.List(a), wit.List(b):
            return [("[]", a, b)]
        case wit.Option(a), wit.Option(b):
            return [("?", a, b)]
        case wit.Result(a_ok, a_err), wit.Result(b_ok, b_err):
            return [(".ok", a_ok, b_ok), (".err", a_err, b_err)]
        case wit.Tuple(a_items), wit.Tuple(b_items) if len(a_items) == len(b_items):
            pairs = zip(a_items, b_items, strict=True)
            return [(f"[{index}]", a, b) for index, (a, b) in enumerate(pairs)]
        case wit.Record(a_named), wit.Record(b_named):
            return _named_parts(a_named, b_named)
        case wit.Variant(a_cases), wit.Variant(b_cases):
            return _named_parts(a_cases, b_cases)
    return []


def _named_parts(
    wanted: tuple[tuple[str, wit.Type], ...] | tuple[tuple[str, wit.Type | None], ...],
    found: tuple[tuple[str, wit.Type], ...] | tuple[tuple[str, wit.Type | None], ...],
) -> list[tuple[str, wit.Type | None, wit.Type | None]]:
    if [name for name, _ in wanted] != [name for name, _ in found]:
        return []
    return [(f".{name}", a, b) for (name, a), (_, b) in zip(wanted, found, strict=True)]


def _text(type_: wit.Type | None) -> str:
    text = "nothing" if type_ is None else wit.type_text(type_)
    return text if len(text) <= 200 else text[:200] + "…"


# Finding what was asked for


def find_function(
    component: str, type_: wit.ComponentType, interface: str | None, function: str
) -> tuple[str, wit.Function]:
    """The exported interface and function that a call means.

    The interface may have another version of its track; without one all exports are searched. Raises
    `NotFound` with the nearest name, and `Invalid` if several interfaces have the function.
    """
    if interface is not None:
        exported = _exported(component, type_, interface)
        return exported.name, _function(component, exported, function)
    having = [exported for exported in type_.exports.values() if function in exported.functions]
    if len(having) > 1:
        choices = ", ".join(f"`{exported.name}`" for exported in having)
        raise Invalid(f"several interfaces of `{component}` export `{function}`: say which of {choices}")
    if not having:
        known = _functions(type_.exports)
        hint = did_you_mean(function, known)
        raise NotFound(f"component `{component}` exports no function `{function}`{hint or _has(known)}")
    return having[0].name, having[0].functions[function]


def _exported(component: str, type_: wit.ComponentType, interface: str) -> wit.Interface:
    match = match_interface(interface, type_.exports)
    if match is not None:
        return type_.exports[match]
    hint = did_you_mean(interface, type_.exports)
    raise NotFound(f"component `{component}` exports no interface `{interface}`{hint or _has(type_.exports)}")


def _function(component: str, exported: wit.Interface, function: str) -> wit.Function:
    found = exported.functions.get(function)
    if found is not None:
        return found
    where = f"component `{component}`" if exported.name == wit.WORLD else f"interface `{exported.name}`"
    hint = did_you_mean(function, exported.functions)
    raise NotFound(f"{where} has no function `{function}`{hint or _has(exported.functions)}")


def _functions(interfaces: Mapping[str, wit.Interface]) -> list[str]:
    return [name for interface in interfaces.values() for name in interface.functions]


def _has(names: Iterable[str]) -> str:
    shown = sorted(names)
    if not shown:
        return "; it exports nothing"
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return f"; there is {', '.join(f'`{name}`' for name in shown[:8])}{more}"
