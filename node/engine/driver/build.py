"""Build the driver: `python -m node.engine.driver.build` writes `driver.so` beside this file.

Needs the package `ziglang`, which is a compiler for C. Without the file everything works, only slower.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from node.engine.driver import LIBRARY

FOLDER = Path(__file__).parent

FLAGS = (
    *("-std=c17", "-D_POSIX_C_SOURCE=200809L", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread"),
    *("-Wall", "-Wextra", "-Werror", "-Wl,--strip-debug"),
)


def build(target: Path) -> None:
    """Compile and link; raises `CalledProcessError` with the compiler's words on standard error."""
    sources = sorted(str(path) for path in FOLDER.glob("*.c"))
    command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, "-o", str(target), *sources]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else LIBRARY)
