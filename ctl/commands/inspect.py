"""`latticectl inspect`: what a component file imports and exports; needs no lattice."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctl.arguments import file_argument
from ctl.command import command, session_of
from ctl.output import fields_text
from ctl.session import Session
from lattice.errors import Failed, Invalid, LatticeError, from_code
from lattice.quantities import size_text

if TYPE_CHECKING:
    from ctl.models import Inspection

NODE_PROGRAM = "lattice-node"
INSPECT_SECONDS = 120.0


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

    artifact = read_artifact(file)
    seconds = session.timeout_or(INSPECT_SECONDS)
    report = session.run_alone(inspect_file, file.absolute(), seconds)
    inspection = _inspection(report, artifact.digest, len(artifact.data))
    session.output.item(inspection, lambda: _text(file, inspection))


async def inspect_file(file: Path, timeout_seconds: float) -> dict[str, Any]:
    """What `lattice-node inspect --json FILE` prints; `file` is absolute. Raises what it reports."""
    import anyio

    command = [str(node_program()), "inspect", "--json", str(file)]
    with anyio.move_on_after(timeout_seconds) as scope:
        done = await anyio.run_process(command, check=False)
    if scope.cancelled_caught:
        raise Failed(f"`{NODE_PROGRAM} inspect` did not end within {timeout_seconds:g} s")
    if done.returncode:
        raise _reported(done.stderr.decode(errors="replace"))
    try:
        report = json.loads(done.stdout)
    except ValueError:
        report = None
    if not isinstance(report, dict):
        raise Failed(f"`{NODE_PROGRAM} inspect --json` did not print a JSON object: is its version another?")
    return report


def node_program() -> Path:
    """The `lattice-node` beside this program, else the one on the path; raises `Invalid`."""
    beside = Path(sys.executable).parent / NODE_PROGRAM
    found = str(beside) if beside.exists() else shutil.which(NODE_PROGRAM)
    if found is None:
        raise Invalid(
            f"`{NODE_PROGRAM}` was not found: it comes with the package, is its folder on the PATH?"
        )
    return Path(found)


def _reported(stderr: str) -> LatticeError:
    """The error in what the program wrote: its `error:` line, without the hint, which is ours to give."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.partition("error:")[2].strip() for line in lines if line.startswith("error:")]
    message = errors[-1] if errors else (lines[-1] if lines else "it gave no reason")
    return from_code("invalid", message)


def _inspection(report: dict[str, Any], digest: str, size: int) -> Inspection:
    from ctl.exchange import decoded
    from ctl.models import Inspection

    type_ = report.get("type") or {name: report[name] for name in ("imports", "exports") if name in report}
    return decoded(Inspection, {"digest": digest, "size": size, **report, "type": type_})


def _text(file: Path, inspection: Inspection) -> str:
    from ctl.interfaces import component_text
    from lattice.wit import component_type_from_json

    head = fields_text(
        [("file", str(file)), ("size", size_text(inspection.size)), ("digest", inspection.digest)]
    )
    return f"{head}\n\n{component_text(component_type_from_json(inspection.type))}"
