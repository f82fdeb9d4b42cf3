"""On what the figures were measured."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from node.server_process import find_binary

PACKAGES = ("wasmtime", "nats-py", "uvloop", "anyio")


def facts() -> list[str]:
    """Lines to be printed above the results."""
    server = subprocess.run([find_binary(), "--version"], capture_output=True, text=True, check=True)
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return [
        f"{os.cpu_count()} cores of {_processor()}, {_memory_gigabytes():.0f} GB, {platform.platform()}",
        f"Python {platform.python_version()}, {packages}, {server.stdout.strip()}",
        f"load before: {load()}",
    ]


def load() -> str:
    """The load averages: other work on the machine shows here."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this thread, and the processes that it starts meanwhile, on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def resident_bytes(pid: int) -> int:
    """The memory of a process that it shares with no other."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty"):
            return int(line.split()[1]) * 1024
    raise LookupError(pid)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")


def _memory_gigabytes() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
