"""`latticectl inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ctl.arguments import file_argument
from ctl.command import command, session_of
from ctl.output import fields_text
from ctl.session import Session
from lattice.quantities import size_text

if TYPE_CHECKING:
    from ctl.models import Inspection


@command()
@file_argument()
@session_of
def inspect(session: Session, file: Path) -> None:
    """Show what a component file imports and exports, its size and its digest.

    Needs no lattice: `lattice-node inspect` reads the file in a process of its own.

    \b
    Examples:
      latticectl inspect greeter.wasm
      latticectl inspect greeter.wasm --output json | jq '.type.exports[].name'
    """
    from ctl.artifact import read_artifact
    from ctl.inspection import INSPECT_SECONDS, inspect_file

    read_artifact(file)  # says at once and more briefly what is no component at all
    path, seconds = file.absolute(), session.timeout_or(INSPECT_SECONDS)

    async def run() -> Inspection:
        return await inspect_file(path, timeout_seconds=seconds)

    inspection = session.run_alone(run)
    session.output.item(inspection, lambda: inspection_text(file, inspection))
    for warning in inspection.warnings:
        session.output.warn(warning)


def inspection_text(file: Path, inspection: Inspection) -> str:
    """The file for people: what it is, then its interfaces."""
    from ctl.interfaces import component_text
    from lattice.wit import component_type_from_json

    head = fields_text(
        [("file", str(file)), ("size", size_text(inspection.size)), ("digest", inspection.digest)]
    )
    return f"{head}\n\n{component_text(component_type_from_json(inspection.type))}"
