"""Build the shim: `python node/capabilities/http/shim/build.py` writes `shim.wasm` beside this file.

Needs the package `ziglang`, in the version that requirements/dev.txt pins: the same sources then give the
same bytes everywhere, which the tests check. The result is a core module. What makes it a component, around
each guest, is written from the guest's own WIT: `node.engine.shim_text`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
HEAP = 16384
"""Where memory.wat lets handles and the arena begin: static data and the stack must end before."""

FLAGS = (
    *("-target", "wasm32-freestanding", "-mcpu=mvp+bulk_memory+sign_ext+simd128"),
    *("-std=c17", "-O2", "-Wall", "-Wextra", "-Werror", "-nostdlib", "-ffile-prefix-map=.="),
    *("-Wl,--no-entry", "-Wl,--import-memory", "-Wl,--stack,6144"),
    *("-Wl,--export=__heap_base", "-Wl,--strip-debug"),
)


def build(target: Path) -> None:
    """Compile and link; raises `CalledProcessError` with the compiler's words on standard error."""
    sources = sorted(path.name for path in FOLDER.glob("*.c"))
    command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, "-o", str(target), *sources]
    subprocess.run(command, cwd=FOLDER, check=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "shim.wasm")
