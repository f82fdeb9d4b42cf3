"""Imports and exports of a component as text, in the manner of WIT."""

from __future__ import annotations

from collections.abc import Mapping

from lattice import wit

NAMED = (wit.Record, wit.Variant, wit.Enum, wit.Flags)
"""Types that WIT gives a name; others are written out."""


def component_text(type_: wit.ComponentType, *, imports_in_full: bool = True) -> str:
    """What it imports and exports with all functions and named types, or of imports the names only."""
    lines = _side("import", type_.imports, imports_in_full) + _side("export", type_.exports, True)
    return "\n".join(lines) or "(no imports or exports)"


def _side(word: str, interfaces: Mapping[str, wit.Interface], full: bool) -> list[str]:
    lines: list[str] = []
    for name, interface in sorted(interfaces.items()):
        if name == wit.WORLD:
            lines += [f"{word} {line}" for line in _functions(interface)]
        elif full:
            lines += [f"{word} {name} {{", *(f"  {line}" for line in _body(interface)), "}"]
        else:
            lines.append(f"{word} {name}")
    return lines


def _body(interface: wit.Interface) -> list[str]:
    names = _names(interface)
    return [
        *(f"resource {name};" for name in interface.resources),
        *(_definition(name, type_, names) for name, type_ in interface.types.items()),
        *(f"{line};" for line in _functions(interface)),
    ]


def _functions(interface: wit.Interface) -> list[str]:
    names = _names(interface)
    return [
        wit.function_text(name, function, names) for name, function in sorted(interface.functions.items())
    ]


def _names(interface: wit.Interface) -> dict[wit.Type, str]:
    return {type_: name for name, type_ in interface.types.items() if isinstance(type_, NAMED)}


def _definition(name: str, type_: wit.Type, names: Mapping[wit.Type, str]) -> str:
    if isinstance(type_, wit.Handle):
        interface, _, resource = type_.resource.rpartition("#")
        return f"use {interface}.{{{resource if resource == name else f'{resource} as {name}'}}};"
    others = {other: text for other, text in names.items() if other != type_}
    text = wit.type_text(type_, others)
    if isinstance(type_, NAMED):
        kind, _, body = text.partition(" ")
        return f"{kind} {name} {body}"
    return f"type {name} = {text};"
