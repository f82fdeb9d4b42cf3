"""Build the shim: `python node/capabilities/http/shim/build.py` writes the two `.wasm` files beside this one.

Needs the package `ziglang`, in the version that requirements/dev.txt pins: the same sources then give the
same bytes everywhere, which the tests check. The results are core modules: one to be made a component beside
each guest's (`node.engine.shim_text`), one to go into it (`node.engine.shim_inline`); they differ in who
keeps handles. What is around them is written from the guest's own WIT.
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


MODULES = {"shim.wasm": (), "inside.wasm": ("-DINSIDE",)}


def build(folder: Path) -> None:
    """Compile and link into a folder; raises `CalledProcessError`, the reason is on standard error."""
    sources = sorted(path.name for path in FOLDER.glob("*.c"))
    for name, flags in MODULES.items():
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, *flags, "-o", str(folder / name), *sources]
        subprocess.run(command, cwd=FOLDER, check=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else FOLDER)
