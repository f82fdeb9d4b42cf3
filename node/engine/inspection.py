"""What a component file is: imports and exports with full signatures, without running or keeping anything."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread

from lattice import wit
from lattice.errors import Invalid
from node.engine.binary import Kind, require_component
from node.engine.compile_process import CompileLimits, run_worker
from node.engine.configuration import EngineSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """A component file, described."""

    file: str
    digest: str
    size: int
    type: wit.ComponentType
    adapted_imports: tuple[str, ...]
    adapted_exports: tuple[str, ...]
    warnings: tuple[str, ...]


async def inspect_file(path: Path, limits: CompileLimits | None = None) -> Inspection:
    """Describe a file in a limited process, as a deploy would.

    Raises `Invalid` that names the file and says what it is instead of a component.
    """
    limits = limits or CompileLimits()
    artifact = await anyio.to_thread.run_sync(read_artifact, path, limits)
    done = await run_worker(artifact, limits, EngineSettings(), output=None)
    type_ = wit.component_type_from_json(done["type"])
    return Inspection(
        file=str(path),
        digest=f"sha256:{hashlib.sha256(artifact).hexdigest()}",
        size=len(artifact),
        type=type_,
        adapted_imports=tuple(done["adapted_imports"]),
        adapted_exports=tuple(done["adapted_exports"]),
        warnings=tuple(_warnings(type_)),
    )


def read_artifact(path: Path, limits: CompileLimits) -> bytes:
    """The bytes of a component file; raises `Invalid` for anything else, naming the file."""
    try:
        if not path.is_file():
            raise Invalid(f"{path}: {'not a file' if path.exists() else 'there is no such file'}")
        limits.check_size(path.stat().st_size)
        artifact = path.read_bytes()
    except OSError as error:
        raise Invalid(f"{path}: {error.strerror or error}") from error
    try:
        require_component(artifact)
    except Invalid as error:
        raise Invalid(f"{path}: {error.message}", details=error.details) from None
    return artifact


def _warnings(type_: wit.ComponentType) -> list[str]:
    """What keeps parts of a component from being called from another node."""
    if not any(interface.functions for interface in type_.exports.values()):
        return ["the component exports no function: nothing in it can be called"]
    return [
        f"export `{name}` has resources: it can be linked to components of the same node only"
        for name, interface in type_.exports.items()
        if not name.startswith("wasi:") and _has_resources(interface)
    ]


def _has_resources(interface: wit.Interface) -> bool:
    types = [type_ for item in interface.functions.values() for type_ in wit.function_types(item)]
    return bool(interface.resources) or any(map(wit.contains_handle, types))


def inspection_to_json(inspection: Inspection) -> dict[str, Any]:
    """For programs: signatures as text, and under `type` in full as they are stored and sent."""
    return {
        "file": inspection.file,
        "digest": inspection.digest,
        "size": inspection.size,
        "kind": Kind.COMPONENT.value,
        "imports": _interfaces(inspection.type.imports),
        "exports": _interfaces(inspection.type.exports),
        "adapted_imports": list(inspection.adapted_imports),
        "adapted_exports": list(inspection.adapted_exports),
        "warnings": list(inspection.warnings),
        "type": wit.component_type_to_json(inspection.type),
    }


def _interfaces(interfaces: Mapping[str, wit.Interface]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "functions": _functions(item),
            "types": _types(item),
            "resources": list(item.resources),
        }
        for name, item in interfaces.items()
    ]


def inspection_text(inspection: Inspection) -> str:
    """For people, in WIT syntax."""
    lines = [
        f"file    {inspection.file}",
        f"digest  {inspection.digest}",
        f"size    {inspection.size} bytes",
        *(f"warning {warning}" for warning in inspection.warnings),
    ]
    for word, interfaces in (("import", inspection.type.imports), ("export", inspection.type.exports)):
        for interface in interfaces.values():
            lines += ["", *_interface_lines(word, interface)]
    return "\n".join(lines)


def _interface_lines(word: str, interface: wit.Interface) -> list[str]:
    types = [*(f"resource {name}" for name in interface.resources), *_types(interface)]
    if interface.name == wit.WORLD:
        return [*(f"{line};" for line in types), *(f"{word} {line};" for line in _functions(interface))]
    return [f"{word} {interface.name} {{", *(f"  {line};" for line in (*types, *_functions(interface))), "}"]


def _functions(interface: wit.Interface) -> list[str]:
    names = _names(interface)
    return [wit.function_text(name, function, names) for name, function in interface.functions.items()]


def _types(interface: wit.Interface) -> list[str]:
    return [_type_line(name, type_, _names(interface)) for name, type_ in interface.types.items()]


def _type_line(name: str, type_: wit.Type, names: Mapping[wit.Type, str]) -> str:
    if isinstance(type_, wit.Handle):
        defined_by = type_.resource.rsplit("#", 1)[0]
        used = wit.type_text(type_)
        return f"use {defined_by}.{{{used if used == name else f'{used} as {name}'}}}"
    inside = {other: symbol for other, symbol in names.items() if other != type_}
    keyword, _, body = wit.type_text(type_, inside).partition(" ")
    if keyword in ("record", "variant", "enum", "flags"):
        return f"{keyword} {name} {body}"
    return f"type {name} = {wit.type_text(type_, inside)}"


def _names(interface: wit.Interface) -> dict[wit.Type, str]:
    named = (wit.Record, wit.Variant, wit.Enum, wit.Flags)
    return {type_: name for name, type_ in interface.types.items() if isinstance(type_, named)}
