"""What a component file imports and exports, as `lattice-node inspect` reads it in a process of its own."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import anyio
import anyio.to_thread

from ctl.exchange import decoded
from ctl.models import Inspection
from lattice.errors import Failed, Invalid

NODE_PROGRAM = "lattice-node"
INSPECT_SECONDS = 120.0


async def inspect_file(
    file: Path, *, timeout_seconds: float = INSPECT_SECONDS, program: Path | None = None
) -> Inspection:
    """Describe a component file; raises `Invalid` with what the program says of any other.

    `program` is the `lattice-node` to run: the one beside this interpreter, else the one on the PATH.
    """
    program = program or await anyio.to_thread.run_sync(node_program)
    command = [str(program), "inspect", "--json", str(file)]
    with anyio.move_on_after(timeout_seconds) as scope:
        done = await anyio.run_process(command, check=False)
    if scope.cancelled_caught:
        raise Failed(f"`{NODE_PROGRAM} inspect` did not end within {timeout_seconds:g} s")
    if done.returncode:
        raise Invalid(_reported(done.stderr.decode(errors="replace")))
    try:
        report = json.loads(done.stdout)
    except ValueError:
        raise Failed(f"`{NODE_PROGRAM} inspect --json` did not print JSON: is its version another?") from None
    return decoded(Inspection, report)


def node_program() -> Path:
    """The `lattice-node` to run; raises `Invalid` when there is none."""
    beside = Path(sys.executable).parent / NODE_PROGRAM
    found = str(beside) if beside.exists() else shutil.which(NODE_PROGRAM)
    if found is None:
        raise Invalid(
            f"`{NODE_PROGRAM}` was not found: it comes with the package, is its folder on the PATH?"
        )
    return Path(found)


def _reported(stderr: str) -> str:
    """The program's `error:` line without its hint, which is ours to give; else its last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.partition("error:")[2].strip() for line in lines if line.lower().startswith("error:")]
    return (errors or lines or ["it gave no reason"])[-1]
