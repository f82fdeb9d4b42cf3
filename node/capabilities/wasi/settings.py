"""What a component gets to see of the world through WASI."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from node.capabilities.wasi.network import NetworkPolicy
from node.capabilities.wasi.sockets.name_lookup import system_lookup
from node.capabilities.wasi.streams import InputStream, OutputStream

if TYPE_CHECKING:
    from node.capabilities.wasi.filesystem.folders import Folder


@dataclass(frozen=True, slots=True, kw_only=True)
class WasiSettings:
    """All that is not the same for every component; nothing of the host's own shows through by default."""

    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    """As a program sees them: the first is its name."""
    working_directory: str | None = None
    standard_input: bytes | InputStream = b""
    """Bytes are there for every sandbox anew; a stream, such as a `PipeInput`, is for one sandbox."""
    standard_output: OutputStream | None = None
    """For one sandbox, such as a `PipeOutput`; without one, lines go to the component's log."""
    standard_error: OutputStream | None = None
    exact_exit: bool = False
    """Let a command's exit raise `Exited` with its very status, where else it is only success or failure."""
    folders: tuple[Folder, ...] = ()
    network: NetworkPolicy = field(default_factory=NetworkPolicy)
    lookup: Callable[[str], list[str]] = system_lookup
    """Gives the addresses of a granted name; it runs on a thread."""
    monotonic_ns: Callable[[], int] = time.monotonic_ns
    wall_ns: Callable[[], int] = time.time_ns
    random_bytes: Callable[[int], bytes] = os.urandom
