"""Ports that nobody else takes while their servers are down: neither other tests, nor what is tested.

Each process of tests has a share of its own. None is among those that nodes give to their embedded servers,
or the system to outgoing connections.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from node.file_lock import FileLock
from node.server_process import FREE_PORTS, free_port

SHARE = 200
PORTS = range(10_000, FREE_PORTS.start)


def own_port() -> int:
    """A free TCP port of the loopback interface that was not given to anybody for long."""
    _, ports = _share()
    return next(port for port in itertools.islice(ports, SHARE) if free_port(port) == port)


@functools.cache
def _share() -> tuple[FileLock, Iterator[int]]:
    """The lock that this process holds to its end, and the ports that it may use by it."""
    folder = Path(tempfile.gettempdir()) / f"lattice-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    starts = PORTS[::SHARE]
    for start in random.sample(starts, len(starts)):
        lock = FileLock(folder / str(start))
        if lock.take():
            return lock, itertools.cycle(range(start, start + SHARE))
        lock.close()
    raise AssertionError(f"more than {len(starts)} processes of tests run: {folder}")
